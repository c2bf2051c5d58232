"""Deferrals to review, the real review service on a port of its own, and receivers of callbacks."""

from __future__ import annotations

import hashlib
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
from aiohttp import web

from fallback.answer import Identity, Label, LabelOption, Task
from fallback.config import Config
from fallback.deferral import Callback, Parking, Prediction
from fallback.errors import DemurError
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.service import Server
from tests.integration.fallback.edges.receivers import Receiver, Trusted

DIGITS = tuple(LabelOption(label=str(digit), key=str(digit)) for digit in range(10))


def parking_of(queue: str, fields: dict[str, Any]) -> Parking:
    """A digit that the model takes for a 7, with whatever `fields` say otherwise."""
    subject = fields.pop("subject", b"image of a seven")
    given = {
        "client": "shop",
        "idempotency_key": uuid.uuid4().hex,
        "input_digest": hashlib.sha256(subject).hexdigest(),
        "task": Task(question="Which digit is it?", labels=DIGITS),
        "subject": subject,
        "media_type": "image/png",
        "attributes": {"site": "north"},
        "prediction": Prediction(model="digits", version="1", answer=Label("7"), confidence=0.62),
        "reasons": ("threshold",),
        "callback": Callback(webhook_url="http://127.0.0.1:1/callbacks"),
    }
    return Parking(queue=queue, **{**given, **fields})


Park = Callable[..., Awaitable[str]]


@pytest.fixture
async def queue(config: Config) -> AsyncIterator[Queue]:
    """A queue on the empty database."""
    connected = Queue.connect(config)
    yield connected
    await connected.close()


@pytest.fixture
def park(queue: Queue) -> Park:
    """Parks one deferral and returns its name."""

    async def park_one(name: str = "digits", **fields: Any) -> str:
        (verdict,) = await queue.park([parking_of(name, fields)])
        if isinstance(verdict, DemurError):
            raise verdict
        return verdict.name

    return park_one


@pytest.fixture
def settle(queue: Queue, park: Park) -> Park:
    """Parks one deferral, has it answered, and returns its name."""

    async def settle_one(label: str = "7", **fields: Any) -> str:
        name = await park(**fields)
        reviewer = Identity(name="settler")
        (lease,) = await queue.lease("digits", reviewer=reviewer)
        await queue.submit(lease.token, reviewer=reviewer, answer=Label(label), request_id=uuid.uuid4().hex)
        return name

    return settle_one


@pytest.fixture
async def review_address(queue: Queue, config: Config) -> AsyncIterator[str]:
    """Where a review service without credentials answers."""
    server = Server(queue, Credentials(), config)
    port = await server.start("127.0.0.1:0")
    yield f"127.0.0.1:{port}"
    await server.stop(0.5)


@pytest.fixture
async def listening() -> AsyncIterator[Callable[..., Any]]:
    """Starts receivers and ends them."""
    runners = []

    async def start(*, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Receiver:
        receiver = Receiver()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", receiver.take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        receiver.url = f"{'https' if tls else 'http'}://{shown}:{port}/callbacks"
        return receiver

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Trusted:
    """An authority of the test's own."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return Trusted(certificate=authority.issue_cert("localhost", "127.0.0.1"), ca_file=str(file))
