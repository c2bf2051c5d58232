"""The transport on grpc.aio: raw bytes in, raw bytes or a status out.

Theory of operation. The server and its event loop live in a thread of their own, the transport's. A hot handler is
called there and returns at once; whoever settles the call later, from whatever thread, puts the outcome into a mailbox
that the loop empties in one go, so that a batch of replies costs one wake-up. A slow handler runs on the slow loop.
Where several calls come at a time the loop turns until no more have come for a moment, and only then says that they
are there (`Routes.drained`, where a short batch runs at once): a batch costs far more than a call, and two threads that
hand calls over one by one would spend their time on taking the interpreter from each other. A call waits for the first
of: its outcome, its deadline (so that DEADLINE_EXCEEDED comes on time even while the model runs), its cancellation.
Nothing but a DemurError's own sentence ever reaches a client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Unpack

import grpc
import structlog

from fallback.edge import status_of
from fallback.errors import ConfigError, DemurError, FullError, OverdueError
from gateway.connections import Connections
from gateway.internal import told
from gateway.standing import Standing
from gateway.transport import CUT_SECONDS, Hot, Metadata, Routes, Slow, Terms

_START_SECONDS_MAX: Final = 30.0
# Beyond the grace: what a cancelled handler may still take to end.
_END_SECONDS: Final = 5.0
_FULL_RETRY_SECONDS: Final = 1.0
# When no call came for so long, those that did are run.
_QUIET_SECONDS: Final = 0.0004
# What is handed over before they are run though more come.
_HANDED_MAX: Final = 512

# By whether the client, and whether the server streams.
_MAKE: Final[dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Replied:
    payload: bytes
    trailing: Metadata


@dataclass(frozen=True, slots=True)
class _Failed:
    error: DemurError
    trailing: Metadata


_Outcome = _Replied | _Failed


class _Mailbox:
    """Outcomes from other threads, handed to the loop's futures; many for one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[tuple[asyncio.Future[_Outcome], _Outcome]] = deque()
        self._woken = False

    def post(self, future: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
        self._items.append((future, outcome))
        # Set before it is emptied below, so an item that sees it set is still taken.
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._empty)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._items.clear()

    def _empty(self) -> None:
        self._woken = False
        while self._items:
            future, outcome = self._items.popleft()
            if not future.done():
                future.set_result(outcome)


class _Call:
    """One call on grpc.aio."""

    driven: Final = True

    __slots__ = ("_context", "_loop", "_mailbox", "deadline", "future", "metadata", "method", "payload", "peer")

    def __init__(self, method: str, payload: bytes, context: Context, mailbox: _Mailbox) -> None:
        remaining = context.time_remaining()
        self.method = method
        self.payload = payload
        self.deadline = None if remaining is None else time.monotonic() + remaining
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        self.peer: str = context.peer()
        self._context = context
        self._mailbox = mailbox
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[_Outcome] = self._loop.create_future()

    @property
    def cancelled(self) -> bool:
        return self.future.done()

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        self._mailbox.post(self.future, _Replied(payload, trailing))

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:
        self._mailbox.post(self.future, _Failed(error, trailing))

    async def send(self, payload: bytes) -> None:
        await self._there(self._context.write(payload))

    async def receive(self) -> bytes | None:
        message = await self._there(self._context.read())
        if isinstance(message, bytes):
            return message
        await asyncio.sleep(CUT_SECONDS)
        if self.future.done():
            raise asyncio.CancelledError
        return None

    async def _there(self, operation: Awaitable[Any]) -> Any:
        """Await, on the slow loop, what must run on the transport's."""

        async def run() -> Any:
            return await operation

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))


class AioTransport:
    """Serves `routes` under `terms`."""

    def __init__(self, routes: Routes, **terms: Unpack[Terms]) -> None:
        self._standing = Standing(routes, names=terms["names"], files=terms["files"])
        self._terms = terms
        self._connections = terms.get("connections") or Connections()
        # Of the calls under way; changed on the transport's loop only.
        self._requests_bytes = 0
        # Calls handed over since `drained` was called, when the newest came, and when that last returned.
        self._fresh = 0
        self._newest = self._ran = 0.0
        self._several = False
        self._gathering = False
        self._port = 0
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="transport", daemon=True)

    @property
    def port(self) -> int:
        """The port in use, once started; 0 on a unix socket."""
        return self._port

    def start(self) -> None:
        """Listen; returns once calls are taken. Raises ConfigError where the address cannot be had."""
        self._thread.start()
        self._started.result(_START_SECONDS_MAX)

    def set_ready(self, ready: bool) -> None:
        """Say to those who ask for health whether calls are welcome."""
        self._standing.set_ready(ready=ready)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those under way finish for up to `grace_seconds`, then end them."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set_result, grace_seconds)
        self._thread.join(grace_seconds + _END_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the root of the thread: whoever starts it is told
            if self._started.done():
                log.critical("the transport ended", exc_info=error)
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping: asyncio.Future[float] = self._loop.create_future()
        self._mailbox = _Mailbox(self._loop)
        server = grpc.aio.server(
            options=self._connections.options(self._terms["message_bytes_max"]),
            maximum_concurrent_rpcs=self._terms["calls_max"],
        )
        server.add_generic_rpc_handlers((_Handlers(self),))
        self._port = self._bind(server)
        await server.start()
        self._started.set_result(None)
        grace = await self._stopping
        self._standing.end()
        await server.stop(grace)

    def _bind(self, server: grpc.aio.Server) -> int:
        listen, credentials = self._terms["listen"], self._connections.credentials()
        try:
            if credentials is None:
                return server.add_insecure_port(listen)
            return server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise ConfigError(f"gateway.grpc_listen: cannot listen on {listen}; is it in use?") from error

    async def answer_hot(self, handler: Hot, call: _Call) -> bytes:
        """Run one hot call to its end."""
        with self._weighed(call) as fits:
            try:
                if fits:
                    self._handed_over()
                    handler(call)
            except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
                call.fail(told(error, method=call.method))
            return await self._outcome(call)

    async def answer_slow(self, handler: Slow, call: _Call) -> bytes:
        """Run one slow call to its end, on the slow loop."""

        async def run() -> None:
            try:
                await handler(call)
            except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
                call.fail(told(error, method=call.method))
            else:
                call.reply(b"")  # where there was no reply: the end of a stream

        with self._weighed(call) as fits:
            running = asyncio.run_coroutine_threadsafe(run(), self._terms["slow_loop"]) if fits else None
            try:
                return await self._outcome(call)
            finally:
                if running is not None:
                    running.cancel()

    def _handed_over(self) -> None:
        """Have `drained` called once no more calls come."""
        self._fresh, self._newest = self._fresh + 1, time.monotonic()
        if not self._gathering:
            self._gathering = True
            # It came while others were run, as a rule with more: who calls alone has just had its answer.
            self._several = self._newest < self._ran + _QUIET_SECONDS
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        several = self._several or self._fresh > 1
        if several and self._fresh < _HANDED_MAX and time.monotonic() < self._newest + _QUIET_SECONDS:
            # Not a timer: the loop's are whole milliseconds.
            self._loop.call_soon(self._look)
            return
        self._fresh, self._gathering = 0, False
        try:
            self.routes.drained()
        except Exception as error:  # noqa: BLE001 - as the loop of the other transport: one batch must not end it
            told(error, where="transport")
        self._ran = time.monotonic()

    @contextmanager
    def _weighed(self, call: _Call) -> Iterator[bool]:
        """Count a call's request among those under way; False, and the call is refused, where it is too much."""
        size, most = len(call.payload), self._terms["requests_bytes_max"]
        fits = not self._requests_bytes or self._requests_bytes + size <= most
        if fits:
            self._requests_bytes += size
        else:
            problem = f"requests of {self._requests_bytes} bytes are under way, the most is {most}"
            call.fail(FullError(problem, retry_after_seconds=_FULL_RETRY_SECONDS))
        try:
            yield fits
        finally:
            if fits:
                self._requests_bytes -= size

    async def _outcome(self, call: _Call) -> bytes:
        timer = None
        if call.deadline is not None:
            late = max(0.0, call.deadline - time.monotonic())
            timer = self._loop.call_later(late, call.fail, OverdueError("the deadline passed"))
        try:
            outcome = await call.future
        finally:
            if timer is not None:
                timer.cancel()
        return await _end(call, outcome)

    def new_call(self, method: str, payload: bytes, context: Context) -> _Call:
        """Wrap one call."""
        return _Call(method, payload, context, self._mailbox)

    @property
    def routes(self) -> Routes:
        """What is served."""
        return self._standing.routes


async def _end(call: _Call, outcome: _Outcome) -> bytes:
    context = call._context  # noqa: SLF001 - the call and its end are one thing
    if isinstance(outcome, _Replied):
        if outcome.trailing:
            context.set_trailing_metadata(outcome.trailing)
        return outcome.payload
    status = status_of(outcome.error)
    await context.abort(status.code, status.details, (*status.trailing, *outcome.trailing))
    raise AssertionError("unreachable: abort raises")


def _refusing(error: DemurError) -> grpc.RpcMethodHandler[Any, Any]:
    """Return what refuses a call. To gRPC it is one of a client's stream, whose messages nobody has to read."""
    status = status_of(error)

    async def refuse(_: Any, context: Context) -> bytes:
        await context.abort(status.code, status.details, status.trailing)
        raise AssertionError("unreachable: abort raises")

    return grpc.stream_unary_rpc_method_handler(refuse)


class _Handlers(grpc.GenericRpcHandler):
    """Finds a method's handler by name."""

    def __init__(self, transport: AioTransport) -> None:
        self._transport = transport
        routes = transport.routes
        self._routes = routes
        self._methods = {name: self._hot(name, handler) for name, handler in routes.hot.items()}
        self._methods |= {name: self._slow(name, handler) for name, handler in routes.slow.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return what answers; where a call is refused, what does so without asking for its message."""
        name = handler_call_details.method
        found, refusal = self._methods.get(name), self._routes.refusals.get(name)
        if found is None:
            return _refusing(self._routes.unserved(name))
        try:
            problem = None if refusal is None else refusal()
        except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
            problem = told(error, method=name)
        return found if problem is None else _refusing(problem)

    def _hot(self, name: str, handler: Hot) -> grpc.RpcMethodHandler[Any, Any]:
        transport = self._transport

        async def answer(payload: bytes, context: Context) -> bytes:
            return await transport.answer_hot(handler, transport.new_call(name, payload, context))

        return grpc.unary_unary_rpc_method_handler(answer)

    def _slow(self, name: str, handler: Slow) -> grpc.RpcMethodHandler[Any, Any]:
        transport = self._transport

        async def answer(payload: Any, context: Context) -> bytes:
            reads = name in transport.routes.reads
            return await transport.answer_slow(handler, transport.new_call(name, b"" if reads else payload, context))

        async def stream(payload: Any, context: Context) -> None:
            await answer(payload, context)

        ways = (name in transport.routes.reads, name in transport.routes.writes)
        return _MAKE[ways](stream if ways[1] else answer)
