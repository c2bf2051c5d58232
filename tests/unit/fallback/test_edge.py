"""Errors at the edge, over a real server and channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog.testing
from grpc_status.rpc_status import from_call  # type: ignore[import-untyped]  # it comes without types

from fallback import errors
from fallback.edge import MESSAGE_BYTES_MAX, GuardInterceptor, error_of, status_of
from fallback.errors import (
    ConflictError,
    DemurError,
    FullError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)

SECRET_TEXT = "password=hunter2"


async def _unary(request: bytes, context: Any) -> bytes:
    await _act(request, context)
    return request


async def _server_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    await _act(request, context)


async def _writing(request: bytes, context: Any) -> None:
    await context.write(b"first")
    await _act(request, context)


async def _client_stream(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([await _taken(request, context) async for request in requests])


async def _both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield await _taken(request, context)


async def _taken(request: bytes, context: Any) -> bytes:
    await _act(request, context)
    return request


async def _act(request: bytes, context: Any) -> None:
    match request:
        case b"known":
            raise FullError("queue digits: expected fewer", retry_after_seconds=1.5)
        case b"unknown":
            raise KeyError(SECRET_TEXT)
        case b"abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "its own words")


def _parse(raw: bytes) -> bytes:
    if raw == b"garbage":
        raise ValueError(SECRET_TEXT)
    return raw


@pytest.fixture
async def channel() -> AsyncIterator[Any]:
    """A channel to a guarded server with one method of each kind."""
    methods: dict[str, Any] = {
        "unary": grpc.unary_unary_rpc_method_handler(_unary, _parse),
        "server_stream": grpc.unary_stream_rpc_method_handler(_server_stream, _parse),
        "writing": grpc.unary_stream_rpc_method_handler(_writing, _parse),
        "client_stream": grpc.stream_unary_rpc_method_handler(_client_stream, _parse),
        "both": grpc.stream_stream_rpc_method_handler(_both, _parse),
    }
    server = grpc.aio.server(interceptors=[GuardInterceptor()])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


async def _call(channel: Any, method: str, request: bytes) -> list[bytes]:
    match method:
        case "unary":
            return [await channel.unary_unary("/test/unary")(request)]
        case "client_stream":
            return [await channel.stream_unary("/test/client_stream")(iter([request]))]
        case "both":
            return [reply async for reply in channel.stream_stream("/test/both")(iter([request]))]
        case _:
            return [reply async for reply in channel.unary_stream(f"/test/{method}")(request)]


METHODS = ["unary", "server_stream", "writing", "client_stream", "both"]


@pytest.mark.parametrize("method", METHODS)
async def test_replies_pass(channel: Any, method: str) -> None:
    """The guard changes nothing of a call that goes well."""
    reply = await _call(channel, method, b"hello")
    assert reply == ([b"first"] if method in {"server_stream", "writing"} else [b"hello"])


@pytest.mark.parametrize("method", METHODS)
async def test_a_known_error_becomes_its_status(channel: Any, method: str) -> None:
    """Code, sentence and RetryInfo arrive, and read back as the same error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(channel, method, b"known")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "queue digits: expected fewer"
    back = error_of(caught.value)
    assert isinstance(back, FullError)
    assert back.retry_after_seconds == 1.5
    assert back.message == "queue digits: expected fewer"


@pytest.mark.parametrize("method", METHODS)
async def test_nothing_else_is_shown(channel: Any, method: str) -> None:
    """Any other exception is INTERNAL with an id, logged under that id with its cause."""
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(channel, method, b"unknown")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = caught.value.details() or ""
    assert details.startswith("internal error, id ")
    assert SECRET_TEXT not in str(caught.value)
    (entry,) = logs
    assert entry["id"] == details.rpartition(" ")[2]
    assert isinstance(entry["exc_info"], KeyError)


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_do_not_parse_are_the_callers_fault(channel: Any, method: str) -> None:
    """INVALID_ARGUMENT without the parser's words."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(channel, method, b"garbage")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert SECRET_TEXT not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
async def test_an_abort_of_a_handlers_own_stays(channel: Any, method: str) -> None:
    """What a handler ended itself is not touched."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(channel, method, b"abort")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "its own words")


async def test_an_unknown_method_is_unimplemented(channel: Any) -> None:
    """Nobody's method is answered by gRPC itself."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test/nothing")(b"")
    assert isinstance(error_of(caught.value), UnimplementedError)


async def test_the_retry_info_is_the_standards(channel: Any) -> None:
    """grpcio-status reads the trailer as a google.rpc.Status that agrees with the call."""
    call = channel.unary_unary("/test/unary")(b"known")
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = from_call(caught.value)
    assert status.code == 8
    assert status.details[0].type_url.endswith("google.rpc.RetryInfo")


def test_every_class_has_its_code() -> None:
    """A status is found for each member of the family, with no trailer where there is no time to come back."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DemurError)]
    for class_ in classes:
        status = status_of(class_("a sentence"))
        assert (status.details, status.trailing) == ("a sentence", ())
        assert status.code.value[0] == class_.code


def test_a_long_sentence_fits_into_metadata() -> None:
    """GRPC drops a reply whose metadata is too large; text is cut at a whole character."""
    status = status_of(InvalidError("\u00e4" * 100_000, retry_after_seconds=1))
    assert len(status.details.encode()) <= MESSAGE_BYTES_MAX
    assert set(status.details) == {"\u00e4"}


def test_an_error_from_elsewhere_keeps_its_code() -> None:
    """Codes map back to classes; a code that the family lacks stays readable."""
    for code, class_ in (
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, ConflictError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.DATA_LOSS, DemurError),
        (grpc.StatusCode.CANCELLED, DemurError),
    ):
        empty = grpc.aio.Metadata()
        found = error_of(grpc.aio.AioRpcError(code, empty, empty, details="a sentence"))
        assert type(found) is class_
        assert found.message == "a sentence"
        assert found.retry_after_seconds is None
