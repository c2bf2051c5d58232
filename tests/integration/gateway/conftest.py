"""One gateway for a module's tests, and what only its insides can do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
import redis
import tritonclient.grpc as triton
from onnx import TensorProto
from tritonclient.grpc import service_pb2_grpc

from fallback import embedded
from fallback.answer import Answer, Identity, Label
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.deferral import Lease
from gateway.manifest import Manifest, Output, Preprocess
from gateway.policy import Policy
from gateway.server import Gateway
from tests.live_gateway import JUDGED, echo, install, named, promote, running, settings, table, told

AUDITED = msgspec.structs.replace(JUDGED, policy=Policy(threshold=0.8, audit_share=1.0))
MODELS: dict[str, tuple[bytes, Manifest]] = {
    "m": (told(1), JUDGED),
    "checked": (told(1), JUDGED),
    "named": (named(), msgspec.structs.replace(JUDGED, on_deferral="wait")),
    "waits": (told(1), msgspec.structs.replace(JUDGED, on_deferral="wait")),
    "refuses": (told(1), msgspec.structs.replace(JUDGED, on_deferral="refuse")),
    "audited": (told(1), AUDITED),
    "wishful": (told(1), msgspec.structs.replace(JUDGED, policy=Policy(audit_share=0, allow_model_wish=True))),
    "tiered": (told(1), msgspec.structs.replace(JUDGED, queue="tiered")),
    "plain": (told(1), Manifest(output=Output(tensor="p"))),
    "table": (table(), Manifest(forbid_nan=False)),
    "image": (
        told(1, width=4),
        Manifest(
            output=Output(tensor="p"),
            preprocess=Preprocess(kind="image", input="x", width=2, height=2, layout="flat"),
        ),
    ),
    "features": (
        told(1),
        Manifest(output=Output(tensor="p"), preprocess=Preprocess(kind="json", input="x", fields=("r", "g", "b"))),
    ),
    "echo": (
        echo(
            fp32=TensorProto.FLOAT,
            fp64=TensorProto.DOUBLE,
            fp16=TensorProto.FLOAT16,
            int64=TensorProto.INT64,
            int8=TensorProto.INT8,
            uint16=TensorProto.UINT16,
            bool=TensorProto.BOOL,
            bytes=TensorProto.STRING,
        ),
        Manifest(forbid_nan=False),
    ),
}


class Stand:
    """A running gateway, and hands that reach into its queue."""

    def __init__(self, gateway: Gateway, config: Config) -> None:
        self.gateway = gateway
        self.config = config

    @property
    def address(self) -> str:
        return self.gateway.address

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` on the gateway's slow loop, from a test's thread."""
        return self.gateway._slow.run(work, timeout_seconds=10)

    def lease(self, queue: str) -> Lease:
        """Take the next item as a reviewer of this test's own."""
        who = Identity(name=f"reviewer-{uuid.uuid4().hex[:8]}")
        leases = self.run(self.gateway.queue.lease(queue, reviewer=who, wait_seconds=5))
        (lease,) = leases
        self.who = who
        assert isinstance(lease, Lease)
        return lease

    def review(self, queue: str, answer: Answer | str) -> Lease:
        """Answer the next item."""
        lease = self.lease(queue)
        said = Label(answer) if isinstance(answer, str) else answer
        self.run(self.gateway.queue.submit(lease.token, reviewer=self.who, answer=said, request_id=uuid.uuid4().hex))
        return lease

    def depth(self, queue: str) -> int:
        """Return how many deferrals are open."""
        states = self.run(self.gateway.queue.states())
        return sum(state.open for state in states if state.name == queue)


@pytest.fixture(scope="module")
def stand(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One gateway with all the models above."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    folder = tmp_path_factory.mktemp("gateway")
    base = Config(data_folder=folder, queues={"tiered": QueueSettings(tiers=("reader", "doctor"))})
    config = settings(base, {"redis": RedisSettings(url=server.url)})
    for name, (artefact, manifest) in MODELS.items():
        install(folder, name, "1", artefact, manifest)
        promote(config, name, "1")
    with running(config) as gateway:
        yield Stand(gateway, config)


@pytest.fixture(scope="module")
def client(stand: Stand) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stand.address) as found:
        yield found


@pytest.fixture(scope="module")
def stub(stand: Stand) -> Iterator[Any]:
    with grpc.insecure_channel(stand.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def channel(stand: Stand) -> Iterator[grpc.Channel]:
    """A plain channel without limits of its own."""
    options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(stand.address, options=options) as found:
        yield found


@pytest.fixture
async def in_thread() -> Callable[..., Coroutine[Any, Any, Any]]:
    """Runs what blocks beside a test's own loop."""
    return asyncio.to_thread


@pytest.fixture
def png() -> bytes:
    """A 2 x 2 grey image."""
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of the test's own."""
    return tmp_path / "data"
