"""ModelService as a gateway has it: with champions of its own, and the registry and documents of all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import Message

from demur.v1 import model_pb2 as pb
from fallback.config import Config
from fallback.documents import Documents
from fallback.errors import (
    DemurError,
)
from fallback.identity import Credentials
from gateway import manifest as manifests
from gateway.admission import Limits
from gateway.certification import Certification
from gateway.champion import Champion
from gateway.manifest import Manifest
from gateway.metrics import Metrics
from gateway.model_service import ModelService
from gateway.policy import Policy
from gateway.registry import ModelVersion, Registry
from gateway.transport import Metadata
from gateway.watch import Watch
from tests.onnx_files import linear

MANIFEST = Manifest(labels=("a", "b", "c"))
TEXT = manifests.render(MANIFEST)
CHUNK_BYTES = 100


class Call:
    """One call as a transport hands it over."""

    deadline = None
    cancelled = False
    driven = False

    def __init__(self, method: str, messages: Sequence[bytes], *, peer: str = "unix:", metadata: Metadata = ()) -> None:
        self.method = method
        self.payload = messages[0] if len(messages) == 1 else b""
        self.peer = peer
        self.metadata = metadata
        self._messages = [*messages]
        self.replied: bytes | None = None
        self.failed: DemurError | None = None

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        assert not trailing
        self.replied = payload

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:
        assert not trailing
        self.failed = error

    async def send(self, payload: bytes) -> None:
        raise AssertionError(payload)

    async def receive(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None


class Champions:
    """The gateway's champions, one a model."""

    def __init__(self) -> None:
        self.champions: dict[str, Champion] = {}
        self.policies: dict[str, Policy] = {}
        self.certifications: dict[str, Certification] = {}

    async def ensure(self, version: ModelVersion) -> None:
        champion = self.champions.setdefault(version.model, Champion(device="cpu", threads=1))
        policy = self.policies.get(version.model, version.manifest.policy)
        champion.set_certification(self.certifications.get(version.model))
        await asyncio.to_thread(champion.swap, version, policy)

    def current(self, model: str) -> ModelVersion | None:
        champion = self.champions.get(model)
        return champion.live.version if champion is not None and champion.live is not None else None

    async def shadow(self, model: str, versions: Sequence[ModelVersion]) -> None:
        found = []
        for version in versions:
            challenger = Champion(device="cpu", threads=1)
            await asyncio.to_thread(challenger.swap, version, version.manifest.policy)
            found.append(challenger)
        if model in self.champions:
            self.champions[model].set_challengers(found)

    def shadows(self, model: str) -> list[str]:
        lives = (challenger.live for challenger in self.champions[model].challengers)
        return [live.version.version for live in lives if live is not None]

    def remove(self, model: str) -> None:
        self.champions[model].close()

    def set_policy(self, model: str, policy: Policy) -> None:
        self.policies[model] = policy
        if model in self.champions:
            self.champions[model].set_policy(policy)

    def set_certification(self, model: str, certification: Certification) -> None:
        self.certifications[model] = certification
        if model in self.champions:
            self.champions[model].set_certification(certification)

    def live(self, model: str) -> str:
        version = self.current(model)
        return "" if version is None else version.version

    def policy(self, model: str) -> Policy:
        live = self.champions[model].live
        assert live is not None
        return live.rules.policy


class Gateway:
    """What one gateway has of all this: its own champions, the shared registry and documents."""

    def __init__(self, config: Config, folder: Path, *, artefact_bytes_max: int = 10**6) -> None:
        self.documents = Documents.connect(config)
        self.registry = Registry(config.data_folder / "models")
        self.champions = Champions()
        self.watch = Watch(
            documents=self.documents,
            registry=self.registry,
            champions=self.champions,
            folder=folder,
            wait_seconds=5,
            metrics=Metrics(),
        )
        self.service = ModelService(
            registry=self.registry,
            documents=self.documents,
            watch=self.watch,
            limits=Limits(artefact_bytes_max=artefact_bytes_max),
            credentials=Credentials(),
        )

    async def call(self, method: str, *requests: Message, peer: str = "unix:") -> bytes:
        call = Call(method, [request.SerializeToString() for request in requests], peer=peer)
        await self.service.routes()[f"/demur.v1.ModelService/{method}"](call)
        if call.failed is not None:
            raise call.failed
        assert call.replied is not None
        return call.replied

    async def publish(self, model: str, content: bytes, *, promote: bool = False, text: str = TEXT) -> pb.ModelVersion:
        header = pb.PublishModelVersionRequest.Header(model=model, manifest=text, promote=promote, reason="why")
        parts = [pb.PublishModelVersionRequest(header=header)]
        parts += [
            pb.PublishModelVersionRequest(chunk=content[start : start + CHUNK_BYTES])
            for start in range(0, len(content), CHUNK_BYTES)
        ]
        return pb.ModelVersion.FromString(await self.call("PublishModelVersion", *parts))

    async def promote(self, version: str) -> pb.ModelVersion:
        request = pb.PromoteModelVersionRequest(name=f"models/m/versions/{version}", reason="better")
        return pb.ModelVersion.FromString(await self.call("PromoteModelVersion", request))

    async def shadow(self, version: str, *, stop: bool = False) -> pb.ModelVersion:
        request = pb.ShadowModelVersionRequest(name=f"models/m/versions/{version}", stop=stop)
        return pb.ModelVersion.FromString(await self.call("ShadowModelVersion", request))

    async def roll_back(self, expected: str = "") -> pb.ModelVersion:
        request = pb.RollBackModelRequest(model="m", reason="worse", expected_champion=expected)
        return pb.ModelVersion.FromString(await self.call("RollBackModel", request))

    async def states(self) -> dict[str, str]:
        reply = await self.call("ListModelVersions", pb.ListModelVersionsRequest(model="m"))
        found = pb.ListModelVersionsResponse.FromString(reply)
        state = pb.ModelVersion.State.Name
        return {version.name.rpartition("/")[2]: state(version.state) for version in found.versions}

    async def policy(self) -> pb.Policy:
        return pb.Policy.FromString(await self.call("GetPolicy", pb.GetPolicyRequest(model="m")))

    async def set_policy(self, policy: pb.Policy) -> pb.Policy:
        reply = await self.call("UpdatePolicy", pb.UpdatePolicyRequest(policy=policy))
        return pb.Policy.FromString(reply)

    async def close(self) -> None:
        await self.documents.close()


def content_of(seed: int = 0) -> bytes:
    content: bytes = linear(seed=seed).SerializeToString()
    return content
