"""One attempt at a callback over gRPC, against a real grpc.aio server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from demur.v1 import callback_pb2 as pb
from demur.v1.callback_pb2_grpc import CallbackServiceServicer, add_CallbackServiceServicer_to_server
from fallback.address import Rule
from fallback.callback import Caller, NotTold, Told
from fallback.edge import status_of
from fallback.errors import FullError
from fallback.patience import Strain
from tests.integration.fallback.edges.receivers import SECRET, Trusted, call, delivery


class Called(CallbackServiceServicer):  # type: ignore[misc]  # the stubs are generated without types
    """A client's CallbackService."""

    def __init__(self) -> None:
        self.got: list[pb.DeliverRequest] = []
        self.metadata: dict[str, Any] = {}
        self.code: grpc.StatusCode | None = None
        self.status: Any = None
        self.delay_seconds = 0.0
        self.remaining: float | None = None

    async def Deliver(self, request: pb.DeliverRequest, context: Any) -> pb.DeliverResponse:  # noqa: N802  # the contract's name
        self.got.append(request)
        self.metadata, self.remaining = dict(context.invocation_metadata()), context.time_remaining()
        await asyncio.sleep(self.delay_seconds)
        if self.status is not None:
            await context.abort(self.status.code, self.status.details, self.status.trailing)
        if self.code is not None:
            await context.abort(self.code, "not now")
        return pb.DeliverResponse()


@pytest.fixture
async def called() -> AsyncIterator[tuple[Called, str]]:
    service, server = Called(), grpc.aio.server()
    add_CallbackServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(0)


async def test_a_callback_over_grpc_arrives(called: tuple[Called, str]) -> None:
    """Deliver carries id, type and the whole deferral with its outcome."""
    service, target = called
    assert await call(delivery(target=target)) == Told()
    (request,) = service.got
    assert (request.id, request.type) == ("0123456789abcdef", "deferral.resolved")
    assert request.deferral.outcome.answer.label == "7"
    assert request.deferral.prediction.confidence == 0.5
    assert request.deferral.version == 3
    assert service.metadata["webhook-id"] == "0123456789abcdef"
    assert abs(int(service.metadata["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize(
    ("code", "final", "strain"),
    [
        (grpc.StatusCode.UNAVAILABLE, False, Strain.FAILING),
        (grpc.StatusCode.INTERNAL, False, Strain.FAILING),
        (grpc.StatusCode.UNKNOWN, False, Strain.FAILING),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, Strain.FAILING),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False, Strain.THROTTLED),
        (grpc.StatusCode.ABORTED, False, Strain.NONE),
        (grpc.StatusCode.FAILED_PRECONDITION, False, Strain.NONE),
        (grpc.StatusCode.NOT_FOUND, False, Strain.NONE),
        (grpc.StatusCode.UNIMPLEMENTED, True, Strain.NONE),
        (grpc.StatusCode.UNAUTHENTICATED, True, Strain.NONE),
        (grpc.StatusCode.PERMISSION_DENIED, True, Strain.NONE),
        (grpc.StatusCode.INVALID_ARGUMENT, True, Strain.NONE),
    ],
)
async def test_a_grpc_status_says_whether_to_try_again(
    called: tuple[Called, str], code: grpc.StatusCode, final: bool, strain: Strain
) -> None:
    """What the receiver would say again gives up at once, all else is tried again, with the status as reason."""
    service, target = called
    service.code = code
    attempt = await call(delivery(target=target))
    assert isinstance(attempt, NotTold)
    assert code.name in attempt.reason
    assert (attempt.final, attempt.strain) == (final, strain)


async def test_nobody_there_over_grpc_is_tried_again() -> None:
    """As with webhooks."""
    attempt = await call(delivery(target="127.0.0.1:1"), timeout_seconds=2)
    assert isinstance(attempt, NotTold)
    assert (attempt.final, attempt.strain) == (False, Strain.FAILING)


async def test_a_grpc_receiver_that_hangs_is_left_and_one_that_asks_for_time_gets_it(
    called: tuple[Called, str],
) -> None:
    """The attempt's own deadline goes with the call; RetryInfo is handed on."""
    service, target = called
    service.delay_seconds = 30
    start = time.monotonic()
    attempt = await call(delivery(target=target), timeout_seconds=0.5)
    assert isinstance(attempt, NotTold)
    assert time.monotonic() - start < 5
    assert service.remaining is not None
    # A clock of its own reads what is left: some parts of a millisecond more are possible.
    assert service.remaining < 0.6
    service.delay_seconds = 0
    service.status = status_of(FullError("later", retry_after_seconds=120))
    attempt = await call(delivery(target=target))
    assert isinstance(attempt, NotTold)
    assert (attempt.retry_after_seconds, attempt.strain) == (120, Strain.THROTTLED)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_grpc_targets_keep_to_the_same_rule(called: tuple[Called, str], host: str) -> None:
    """A name is resolved, judged, and the judged address is dialled."""
    service, target = called
    attempt = await call(delivery(target=f"{host}:{target.rpartition(':')[2]}"), allow=())
    assert isinstance(attempt, NotTold)
    assert attempt.final is True
    assert service.got == []


class _Anywhere(Rule):
    """Takes loopback for a public address, so that TLS is asked for."""

    def listed(self, text: str) -> bool:
        return text == ""

    def check(self, text: str, *, encrypted: bool) -> None:
        assert encrypted, text


async def test_grpc_to_a_public_address_asks_for_tls(trusted: Trusted) -> None:
    """The address is dialled, the certificate is checked against the name."""
    service, server = Called(), grpc.aio.server()
    add_CallbackServiceServicer_to_server(service, server)
    pair = trusted.certificate.private_key_pem.bytes(), trusted.certificate.cert_chain_pems[0].bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    told = []
    for ca_file in (trusted.ca_file, ""):
        async with Caller(secret=SECRET, rule=_Anywhere(), timeout_seconds=2, ca_file=ca_file) as caller:
            told.append(await caller.call(delivery(target=f"localhost:{port}")))
    await server.stop(0)
    assert told[0] == Told()
    assert isinstance(told[1], NotTold)
    assert len(service.got) == 1


async def test_grpc_by_name_reaches_an_allowed_network(called: tuple[Called, str]) -> None:
    """A host name works where its address may be called."""
    service, target = called
    assert await call(delivery(target=f"localhost:{target.rpartition(':')[2]}"), allow=("127.0.0.0/8",)) == Told()
    assert len(service.got) == 1
