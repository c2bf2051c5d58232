"""Which transport carries the calls: gRPC's core where it is proven, else grpc.aio.

`gateway.cq` stands on a private interface of grpcio. So it is offered on versions that its tests ran on, and only
after it has answered a call of each kind on this machine.
"""

from __future__ import annotations

import asyncio
import tempfile
from importlib import metadata
from typing import Any, Final, Literal, Unpack

import grpc
import structlog

from fallback.errors import ConfigError, DemurError, InvalidError
from gateway.aio import AioTransport
from gateway.transport import Call, Routes, Terms, Transport

PROVEN: Final = frozenset({"1.84.0", "1.84.1", "1.84.2", "1.85.0", "1.85.1", "1.85.3"})
_SECONDS: Final = 5.0
_SIZE_MAX: Final = 64 * 1024
_SERVICE: Final = "/demur.trial.Trial/"

Choice = Literal["auto", "cq", "aio"]

log = structlog.get_logger(__name__)


def make(choice: Choice, routes: Routes, **terms: Unpack[Terms]) -> Transport:
    """Return the transport that `choice` names; "auto" is aio where cq will not do, and the log says why.

    Raises ConfigError where "cq" is asked for and will not do.
    """
    if choice == "aio":
        return AioTransport(routes, **terms)
    problem = why_not(terms["slow_loop"])
    if problem is None:
        from gateway.cq import CqTransport

        return CqTransport(routes, **terms)
    if choice == "cq":
        raise ConfigError(f"gateway.transport: expected one that works here, got cq: {problem}; aio serves the same")
    log.warning("the transport is aio", because=problem)
    return AioTransport(routes, **terms)


def why_not(slow_loop: asyncio.AbstractEventLoop) -> str | None:
    """Return why cq will not do here, None where it does."""
    version = metadata.version("grpcio")
    if version not in PROVEN:
        return f"grpcio {version} is not one it is proven on ({', '.join(sorted(PROVEN))})"
    try:
        _try_each_kind(slow_loop)
    except Exception as error:  # whatever it is, there is another transport
        log.warning("cq failed its self-test", exc_info=error)
        return f"its self-test failed on grpcio {version}: {type(error).__name__}"
    return None


def _try_each_kind(slow_loop: asyncio.AbstractEventLoop) -> None:
    """Make one call of each kind over a real channel."""
    from gateway.cq import CqTransport

    routes = Routes(
        hot={f"{_SERVICE}Hot": _hot},
        slow={f"{_SERVICE}Gather": _gather, f"{_SERVICE}Scatter": _scatter, f"{_SERVICE}Refuse": _refuse},
        reads=frozenset({f"{_SERVICE}Gather"}),
        writes=frozenset({f"{_SERVICE}Scatter"}),
    )
    with tempfile.TemporaryDirectory(prefix="demur-") as folder:
        listen = f"unix:{folder}/trial"
        transport = CqTransport(
            routes,
            listen=listen,
            slow_loop=slow_loop,
            message_bytes_max=_SIZE_MAX,
            calls_max=16,
            requests_bytes_max=_SIZE_MAX,
            names=(),
            files=(),
        )
        transport.start()
        try:
            with grpc.insecure_channel(listen) as channel:
                _ask(channel)
        finally:
            transport.stop(_SECONDS)
        if not transport.under_way.nothing:
            raise InvalidError("calls under way: expected none once stopped")


def _ask(channel: grpc.Channel) -> None:
    hot: Any = channel.unary_unary(f"{_SERVICE}Hot")
    gather: Any = channel.stream_unary(f"{_SERVICE}Gather")
    scatter: Any = channel.unary_stream(f"{_SERVICE}Scatter")
    refuse: Any = channel.unary_unary(f"{_SERVICE}Refuse")
    reply, rpc = hot.with_call(b"ab", timeout=_SECONDS, metadata=(("trial", "yes"),))
    _expect("a hot call", (reply, dict(rpc.trailing_metadata())), (b"ab", {"trial": "yes"}))
    _expect("a client stream", gather(iter([b"a", b"b"]), timeout=_SECONDS), b"ab")
    _expect("a server stream", list(scatter(b"ab", timeout=_SECONDS)), [b"a", b"b"])
    try:
        refuse(b"no", timeout=_SECONDS)
    except grpc.RpcError as error:
        told: Any = error
        _expect("a refusal", told.code(), grpc.StatusCode.INVALID_ARGUMENT)
    else:
        raise InvalidError("a refusal: expected one, got a reply")


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise InvalidError(f"{what}: expected {expected!r}, got {got!r}")


def _hot(call: Call) -> None:
    call.reply(call.payload, tuple(item for item in call.metadata if item[0] == "trial"))


async def _gather(call: Call) -> None:
    parts = []
    while (part := await call.receive()) is not None:
        parts.append(part)
    call.reply(b"".join(parts))


async def _scatter(call: Call) -> None:
    for byte in call.payload:
        await call.send(bytes([byte]))


async def _refuse(_: Call) -> None:
    error: DemurError = InvalidError("as asked")
    raise error
