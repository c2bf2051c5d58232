"""The transport on gRPC's core: no asyncio, no hand-off; raw bytes in, raw bytes or a status out.

Theory of operation. One thread polls the core's completion queue. What it takes out is an event whose tag is a bound
method: a call arrived, its message is there, it ended. Hot methods are registered with the core, which matches them
itself, and several arrivals of each are asked for in advance. The thread hands over every call that is there, says so
(`Routes.drained`, where a short batch runs at once), and only then waits; waiting releases the interpreter. Replies
start on whatever thread has them. Everything of one call is in `gateway.cq_call`.

Deadlines are the core's: it ends an overdue call on a thread of its own, whatever this process does, and tells the
caller DEADLINE_EXCEEDED; here that is one more call whose caller has gone.

The core reads sockets on threads of its own. Its older way (`GRPC_EXPERIMENTS=-event_engine_listener`) reads them on
the thread that polls, for a sixth less processor time a call. It is not asked for: of a connection that is reset
together with its last bytes it hears of these only (one epoll event, TCP_INQ 0; grpcio 1.85.3), and the calls of who
has gone are never ended.

The interface is grpcio's private one (grpc/_cython/_cygrpc/server.pyx.pxi, completion_queue.pyx.pxi), so
`gateway.transports` offers this transport on proven versions only, and only after it has answered a call of each kind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Unpack

import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # no stubs

from fallback.errors import ConfigError
from gateway.connections import Connections
from gateway.cq_call import CqCall, SlowCall, UnderWay
from gateway.internal import told
from gateway.standing import Standing
from gateway.transport import Hot, Refusal, Routes, Slow, Terms

# Arrivals of a method that are asked for in advance: as many can come within one pass of the loop without a wait.
_ASKED: Final = 32
_ASKED_OTHER: Final = 8
# What is handed over before `drained` is called even though there is more.
_HANDED_MAX: Final = 512
# Beyond the grace: what cancelled calls may still take to end.
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05
_AT_ONCE: Final = 0.0
_NO_FLAGS: Final = 0

log = structlog.get_logger(__name__)


class _Method:
    """A hot method: takes its arrivals in."""

    __slots__ = ("_handler", "_name", "_queue", "_refusal", "_server", "_tag", "_under_way")

    def __init__(self, name: str, handler: Hot, refusal: Refusal | None, transport: CqTransport) -> None:
        self._name = name
        self._handler = handler
        self._refusal = refusal
        self._queue = transport.queue
        self._server = transport.server
        self._under_way = transport.under_way
        self._tag = self._arrived

    def ask(self) -> None:
        """Ask for one more arrival, unless it began to shut down."""
        try:
            self._server.request_registered_call(self._queue, self._queue, self._name, self._tag)
        except ValueError:
            return

    def _arrived(self, event: Any) -> None:
        if not event.success:
            return  # the server is shutting down
        call = CqCall(self._name, event, self._handler, self._under_way)
        try:
            if not call.refuse_if_full():
                problem = None if self._refusal is None else self._refusal()
                if problem is None:
                    call.begin()
                else:
                    call.fail(problem)
        except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
            call.fail(told(error, method=self._name))
        self.ask()


class CqTransport:
    """Serves `routes` under `terms`, as AioTransport does."""

    def __init__(self, routes: Routes, **terms: Unpack[Terms]) -> None:
        self._standing = Standing(routes, names=terms["names"], files=terms["files"])
        self._routes = self._standing.routes
        self._terms = terms
        self._connections = terms.get("connections") or Connections()
        self._port = 0
        self._shut_down = False
        self._drained = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transport", daemon=True)
        self.under_way = UnderWay(calls_max=terms["calls_max"], requests_bytes_max=terms["requests_bytes_max"])
        self.queue: Any = cygrpc.CompletionQueue()
        self.server: Any = cygrpc.Server(self._connections.options(terms["message_bytes_max"]), False)  # noqa: FBT003 - positional only

    @property
    def port(self) -> int:
        """The port in use, once started; 0 on a unix socket."""
        return self._port

    def start(self) -> None:
        """Listen; returns once calls are taken. Raises ConfigError where the address cannot be had."""
        self.server.register_completion_queue(self.queue)
        for name in self._routes.hot:
            self.server.register_method(name)
        self._port = self._bind(self._terms["listen"])
        self.server.start()
        for name, handler in self._routes.hot.items():
            method = _Method(name, handler, self._routes.refusals.get(name), self)
            for _ in range(_ASKED):
                method.ask()
        for _ in range(_ASKED_OTHER):
            self._ask()
        self._thread.start()

    def _bind(self, listen: str) -> int:
        credentials = self._connections.credentials()
        arguments = () if credentials is None else (credentials._credentials,)  # type: ignore[attr-defined]  # noqa: SLF001 - what the core takes
        try:
            port = self.server.add_http2_port(listen.encode(), *arguments)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(f"gateway.grpc_listen: cannot listen on {listen}; is it in use?")
        return 0 if listen.startswith("unix:") else int(port)

    def set_ready(self, ready: bool) -> None:
        """Say to those who ask for health whether calls are welcome."""
        self._standing.set_ready(ready=ready)

    def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those under way finish for up to `grace_seconds`, then end them."""
        if not self._thread.is_alive():
            return
        self._standing.end()
        self.server.shutdown(self.queue, self._drained_all)
        if not self._drained.wait(grace_seconds):
            self.server.cancel_all_calls()
        self._thread.join(_END_SECONDS)
        if not self._thread.is_alive():
            self._close()

    def _drained_all(self, _: Any) -> None:
        self._shut_down = True
        self._drained.set()

    def _ask(self) -> None:
        try:
            self.server.request_call(self.queue, self.queue, self._arrived)
        except ValueError:
            return  # it began to shut down

    def _arrived(self, event: Any) -> None:
        """Take in a call that is not hot."""
        if not event.success:
            return
        try:
            name = event.call_details.method.decode("ascii", "replace")
            handler = self._routes.slow.get(name)
            if handler is None:
                self._refuse(event.call, name)
            else:
                self._take(name, handler, event)
        finally:
            self._ask()

    def _take(self, name: str, handler: Slow, event: Any) -> None:
        call = SlowCall(
            event,
            handler,
            self.under_way,
            loop=self._terms["slow_loop"],
            reads=name in self._routes.reads,
            writes=name in self._routes.writes,
        )
        if not call.refuse_if_full():
            call.begin()

    def _refuse(self, rpc: Any, name: str) -> None:
        said = str(self._routes.unserved(name)).encode()
        operations = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.unimplemented, said, _NO_FLAGS),
            cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        )
        rpc.start_server_batch(operations, _nothing)

    def _run(self) -> None:
        poll, under_way, fresh, drained = self.queue.poll, self.under_way, self.under_way.fresh, self._routes.drained
        aside = self._routes.aside
        while not (self._shut_down and under_way.nothing):
            _guarded(aside.end)
            event = poll(time.time() + _LOOK_SECONDS if self._shut_down else None)
            aside.begin()
            under_way.monotonic_offset = time.monotonic() - time.time()
            while (tag := event.tag) is not None:
                _guarded(tag, event)
                if len(fresh) >= _HANDED_MAX:
                    break
                # The call that an event holds must be able to go before the next poll.
                event = tag = None
                event = poll(_AT_ONCE)
            event = None
            if fresh:
                _guarded(drained)
                for call in fresh:
                    if not call.over:
                        call.watch()
                fresh.clear()
        _guarded(aside.end)

    def _close(self) -> None:
        # On the thread that shut it down: the core may report that it is done before that call has returned.
        self.server.destroy()
        self.queue.shutdown()
        while self.queue.poll(None).completion_type != cygrpc.CompletionType.queue_shutdown:
            pass


def _nothing(_: Any) -> None:
    """Do nothing more when a refused call has ended."""


def _guarded(do: Callable[..., None], *arguments: Any) -> None:
    try:
        do(*arguments)
    except Exception as error:  # the root of the thread: one event must not end it
        log.critical("an event of the transport failed", exc_info=error)
