"""Errors at the edge: a DemurError to a gRPC status and back, and the guard that lets no other text out."""

from __future__ import annotations

import functools
import inspect
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fallback.errors import (
    AbortedError,
    Code,
    ConflictError,
    DemurError,
    ForbiddenError,
    FullError,
    InvalidError,
    NotFoundError,
    OverdueError,
    StateError,
    TrimmedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

DETAILS_KEY: Final = "grpc-status-details-bin"
# gRPC's default limit on all metadata of a reply is 8 KiB; a message's bytes may take three times their size.
MESSAGE_BYTES_MAX: Final = 1_500
_TRAILINGS_KEPT: Final = 64

# What gRPC itself says where nothing listens; it names the address, not what to do.
_UNREACHED: Final = "failed to connect to all addresses"

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_ERRORS: Final[dict[int, type[DemurError]]] = {
    class_.code: class_
    for class_ in (
        InvalidError,
        NotFoundError,
        ConflictError,
        StateError,
        TrimmedError,
        AbortedError,
        FullError,
        UnavailableError,
        OverdueError,
        UnauthenticatedError,
        ForbiddenError,
        UnimplementedError,
    )
}

log = structlog.get_logger(__name__)


class Status(NamedTuple):
    """What a call ends with: as `ServicerContext.abort` takes it."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, bytes], ...]


def status_of(error: DemurError) -> Status:
    """Return code, text and trailing metadata for `error`.

    Where the error says when to come back, the metadata carries google.rpc.RetryInfo in `grpc-status-details-bin`
    (https://google.aip.dev/193).
    """
    details = error.message.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")
    if error.retry_after_seconds is None:
        return Status(_CODES[error.code], details, ())
    return Status(_CODES[error.code], details, _trailing(error.code, details, error.retry_after_seconds))


@functools.lru_cache(_TRAILINGS_KEPT)
def _trailing(code: Code, details: str, retry_after_seconds: float) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata that say when to come back; where many are refused, most are told the same."""
    rich = status_pb2.Status(code=int(code), message=details)
    rich.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=_duration(retry_after_seconds)))
    return ((DETAILS_KEY, rich.SerializeToString()),)


def error_of(error: grpc.aio.AioRpcError) -> DemurError:
    """Return what a failed call said, as a value of this family; the other direction of `status_of`."""
    number = error.code().value[0]
    class_ = _ERRORS.get(number, DemurError)
    message = error.details() or error.code().name
    if message.startswith(_UNREACHED):
        message = f"cannot be reached: is it running, at this address, with TLS on both sides or none? ({message})"
    result = class_(message, retry_after_seconds=_retry_after(error))
    if number in Code._value2member_map_:
        result.code = Code(number)
    return result


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
        except DecodeError:
            return None
        info = error_details_pb2.RetryInfo()
        for detail in details:
            if detail.Unpack(info):
                return float(info.retry_delay.seconds) + float(info.retry_delay.nanos) / 1e9
    return None


def _duration(seconds: float) -> Duration:
    nanos = math.ceil(max(0.0, seconds) * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Stands outermost: a DemurError becomes its status; anything else is logged and answered as INTERNAL with an id.

    grpc.aio by itself shows the text of whatever a handler raised to the client. Requests are parsed in here for the
    same reason.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        ways = ("stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming))
        kind = "_".join(ways)
        behaviour = _reading(getattr(handler, kind), handler.request_deserializer, streaming=handler.request_streaming)
        guard = _guard_stream if inspect.isasyncgenfunction(getattr(handler, kind)) else _guard_once
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(guard(behaviour, method), response_serializer=handler.response_serializer)  # type: ignore[no-any-return]  # chosen by name


def _reading(behaviour: Callable[..., Any], deserialize: Callable[[bytes], Any] | None, *, streaming: bool) -> Any:
    """Return `behaviour` taking bytes; what is not a request is refused when it is read."""

    def read(raw: bytes) -> Any:
        try:
            return raw if deserialize is None else deserialize(raw)
        except (DecodeError, ValueError) as error:
            raise InvalidError("request: expected this method's message, got bytes that are none") from error

    async def read_all(raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for item in raw:
            yield read(item)

    def call(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return behaviour(read_all(raw) if streaming else read(raw), context)

    return call


def _guard_once(behaviour: Callable[..., Any], method: str) -> Any:
    async def guarded(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(raw, context)
        except Exception as error:  # noqa: BLE001  # the root of a call: answered and logged, never shown
            await _end(context, error, method)

    return guarded


def _guard_stream(behaviour: Callable[..., Any], method: str) -> Any:
    async def guarded(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for reply in behaviour(raw, context):
                yield reply
        except Exception as error:  # noqa: BLE001  # the root of a call: answered and logged, never shown
            await _end(context, error, method)

    return guarded


async def _end(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, DemurError):
        name = uuid.uuid4().hex[:12]
        log.error("internal error", id=name, method=method, exc_info=error)
        error = DemurError(f"internal error, id {name}")
    status = status_of(error)
    await context.abort(status.code, status.details, status.trailing)
    raise AssertionError("unreachable: abort raises")
