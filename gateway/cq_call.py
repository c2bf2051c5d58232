"""One call on gRPC's core: what came with it, its one outcome, its end.

Theory of operation. Two things may happen to a call once only, from whatever thread: it is settled (a reply, a refusal,
or its caller's going), and its end is asked for (the core's "receive close", which completes when the call is over).
Deleting a slot is one step under the interpreter's lock, and the second who tries fails: that is the whole locking.
A call that is settled while the polling thread still drains asks for its end in the same batch of operations as the
reply, and costs three events; only one that waits longer is watched, by an operation of its own, and costs four.

A call counts as under way until the core has said that its last batch is done. So when nothing is under way nobody can
start an operation any more, and the completion queue may be shut down: an operation on a queue that was shut down
would abort the process.

Operations come from grpc/_cython/_cygrpc/operation.pyx.pxi; those without a value of their own are made once and
shared: the core copies what they hold when a batch starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # no stubs

from fallback.edge import status_of
from fallback.errors import DemurError, FullError, UnavailableError, UnimplementedError
from gateway.internal import told
from gateway.transport import CUT_SECONDS, Hot, Metadata, Slow

_FULL_RETRY_SECONDS: Final = 1.0
_NO_FLAGS: Final = 0
_FOREVER: Final = float("inf")
_INITIAL: Final = cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)
_OK: Final = cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", _NO_FLAGS)
# Where it is shared nobody reads what the core writes into it.
_CLOSE: Final = cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)

log = structlog.get_logger(__name__)
_send = cygrpc.SendMessageOperation
_receive = cygrpc.ReceiveMessageOperation


@dataclass(slots=True)
class UnderWay:
    """What the calls under way are and weigh; changed on the polling thread only. Not frozen: it is a tally."""

    calls_max: int
    requests_bytes_max: int
    calls: int = 0
    requests_bytes: int = 0
    # Handlers of slow calls: handed to the slow loop (by the polling thread), and ended (by the loop).
    launched: int = 0
    landed: int = 0
    # Hot calls handed over since the polling thread last waited.
    fresh: list[CqCall] = field(default_factory=list)
    # What is added to a wall-clock time to get one of time.monotonic(); taken anew at each wake-up.
    monotonic_offset: float = 0.0

    @property
    def nothing(self) -> bool:
        """Whether no call and no handler can start an operation any more."""
        return not self.calls and self.launched == self.landed

    def no_room(self, size: int) -> FullError | None:
        """Return why a request of `size` bytes is too much, None where it is not; a lone one is always taken."""
        if not self.requests_bytes or self.requests_bytes + size <= self.requests_bytes_max:
            return None
        problem = f"requests of {self.requests_bytes} bytes are under way, the most is {self.requests_bytes_max}"
        return FullError(problem, retry_after_seconds=_FULL_RETRY_SECONDS)


class CqCall:
    """One call; a hot one as it is."""

    __slots__ = (
        "_arrival",
        "_close",
        "_handler",
        "_open",
        "_receiving",
        "_rpc",
        "_size",
        "_under_way",
        "deadline",
        "method",
        "over",
        "payload",
        "watched",
    )

    driven = True

    def __init__(self, method: str, arrival: Any, handler: Any, under_way: UnderWay) -> None:
        self.method = method
        self.payload = b""
        self.over = False
        self.watched = False
        wall = arrival.call_details.deadline
        self.deadline: float | None = None if wall == _FOREVER else wall + under_way.monotonic_offset
        self._arrival = arrival
        self._handler = handler
        self._rpc = arrival.call
        self._size = 0
        self._under_way = under_way
        self._open = self._close = True
        under_way.calls += 1

    @property
    def metadata(self) -> Metadata:
        """What came beside the request."""
        found: Metadata = self._arrival.invocation_metadata
        return found

    @property
    def peer(self) -> str:
        """The caller's address."""
        found: str = self._rpc.peer().decode("ascii", "replace")
        return found

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self.over

    def begin(self) -> None:
        """Take it in: ask for its message. On the polling thread, as all that follows up to `reply`."""
        self._receiving = _receive(_NO_FLAGS)
        self._rpc.start_server_batch((self._receiving,), self._received)

    def refuse_if_full(self) -> bool:
        """Refuse it where too many calls are under way; say whether."""
        if self._under_way.calls <= self._under_way.calls_max:
            return False
        problem = f"{self._under_way.calls_max} calls are under way, which is the most"
        self.fail(FullError(problem, retry_after_seconds=_FULL_RETRY_SECONDS))
        return True

    def _received(self, _: Any) -> None:
        payload = self._receiving.message()
        del self._receiving
        if payload is None:
            # Half-closed without a message, refused by the core for its size, or gone; every call needs an answer.
            self.fail(UnimplementedError(f"{self.method} takes exactly one message, got none"))
            return
        self._size = size = len(payload)
        under_way = self._under_way
        problem = under_way.no_room(size)
        under_way.requests_bytes += size
        if problem is not None:
            self.fail(problem)
            return
        self.payload = payload
        self._run()

    def _run(self) -> None:
        self._under_way.fresh.append(self)
        handler: Hot = self._handler
        try:
            handler(self)
        except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
            self.fail(told(error, method=self.method))

    def watch(self) -> None:
        """Ask for its end, so that its caller's going is noticed."""
        self.watched = True
        try:
            del self._close
        except AttributeError:
            return
        closing = cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)
        self._rpc.start_server_batch((closing,), self._closed)

    def _closed(self, _: Any) -> None:
        try:
            del self._open
        except AttributeError:
            return  # settled: the end of that batch ends the call
        self.over = True
        self._ended(None)

    def _ended(self, _: Any) -> None:
        self._under_way.calls -= 1
        self._under_way.requests_bytes -= self._size

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        """Answer."""
        try:
            del self._open
        except AttributeError:
            return
        self.over = True
        if trailing:
            self._end_with(cygrpc.StatusCode.ok, b"", trailing, (_send(payload, _NO_FLAGS),))
            return
        # What most calls come to, so without a step that could be spared.
        if not self.watched:
            try:
                del self._close
            except AttributeError:
                pass
            else:
                self._rpc.start_server_batch((_INITIAL, _send(payload, _NO_FLAGS), _OK, _CLOSE), self._ended)
                return
        self._rpc.start_server_batch((_INITIAL, _send(payload, _NO_FLAGS), _OK), self._ended)

    def fail(self, error: DemurError, trailing: Metadata = ()) -> None:
        """Refuse."""
        try:
            del self._open
        except AttributeError:
            return
        self.over = True
        status = status_of(error)
        self._end_with(status.code.value[0], status.details.encode(), (*status.trailing, *trailing))

    def _end_with(self, code: int, details: bytes, trailing: Metadata, message: tuple[Any, ...] = ()) -> None:
        """Start the last batch of a call that was settled just now."""
        beginning = self._beginning()
        try:
            del self._close
        except AttributeError:
            end: tuple[Any, ...] = ()
        else:
            end = (_CLOSE,)
        status = cygrpc.SendStatusFromServerOperation(trailing, code, details, _NO_FLAGS)
        if self._rpc.start_server_batch((*beginning, *message, status, *end), self._ended):
            # The core takes no metadata that is not ASCII; nothing of the batch was begun.
            log.error("a reply's metadata were refused", method=self.method, keys=[key for key, _ in trailing])
            status = cygrpc.SendStatusFromServerOperation(
                None, cygrpc.StatusCode.internal, b"internal error", _NO_FLAGS
            )
            self._rpc.start_server_batch((*beginning, status, *end), self._ended)

    def _beginning(self) -> tuple[Any, ...]:
        """Return what must be sent before anything else."""
        return (_INITIAL,)

    async def send(self, payload: bytes) -> None:
        """Send one message of a server stream: a hot call has none."""
        raise NotImplementedError

    async def receive(self) -> bytes | None:
        """Return the next message of a client stream: a hot call has none."""
        raise NotImplementedError


class SlowCall(CqCall):
    """A call whose handler is a coroutine on the slow loop; it is watched from the start."""

    driven = False

    __slots__ = ("_begun", "_loop", "_reads", "_task", "_writes")

    def __init__(
        self,
        arrival: Any,
        handler: Slow,
        under_way: UnderWay,
        *,
        loop: asyncio.AbstractEventLoop,
        reads: bool,
        writes: bool,
    ) -> None:
        super().__init__(arrival.call_details.method.decode("ascii", "replace"), arrival, handler, under_way)
        self._begun = False
        self._loop = loop
        self._reads = reads
        self._writes = writes
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take it in: ask for its message, or run its handler, which asks for them itself."""
        self.watch()
        if self._reads:
            self._run()
        else:
            super().begin()

    def _run(self) -> None:
        self._under_way.launched += 1
        try:
            self._loop.call_soon_threadsafe(self._launch)
        except RuntimeError:  # the loop is closed
            self._under_way.launched -= 1
            self.fail(UnavailableError("the gateway is stopping"))

    def _launch(self) -> None:
        if self.over:
            self._under_way.landed += 1
            return
        self._task = self._loop.create_task(self._answer())
        self._task.add_done_callback(self._land)

    def _land(self, _: asyncio.Task[None]) -> None:
        self._under_way.landed += 1

    async def _answer(self) -> None:
        handler: Slow = self._handler
        try:
            await handler(self)
        except asyncio.CancelledError:
            self.fail(UnavailableError("the gateway is stopping"))  # counts only where the caller still waits
            raise
        except Exception as error:  # noqa: BLE001 - the root of a call: told without its text
            self.fail(told(error, method=self.method))
        else:
            self.reply(b"")  # where there was no reply: the end of a stream

    def _ended(self, event: Any) -> None:
        super()._ended(event)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def reply(self, payload: bytes, trailing: Metadata = ()) -> None:
        """Answer; a stream's payload went by `send`."""
        try:
            del self._open
        except AttributeError:
            return
        self.over = True
        message = () if self._writes else (_send(payload, _NO_FLAGS),)
        self._end_with(cygrpc.StatusCode.ok, b"", trailing, message)

    def _beginning(self) -> tuple[Any, ...]:
        if self._begun:
            return ()
        self._begun = True
        return (_INITIAL,)

    async def send(self, payload: bytes) -> None:
        """Send one message; returns when the core has room for the next."""
        await self._done((*self._beginning(), _send(payload, _NO_FLAGS)))

    async def receive(self) -> bytes | None:
        """Return the next message, None at the end."""
        receiving = _receive(_NO_FLAGS)
        await self._done((receiving,))
        message: bytes | None = receiving.message()
        if message is None:
            await asyncio.sleep(CUT_SECONDS)
            if self.over:
                raise asyncio.CancelledError
        return message

    async def _done(self, operations: tuple[Any, ...]) -> None:
        """Run one batch of operations; raises CancelledError where the call is over."""
        if self.over:
            raise asyncio.CancelledError
        future: asyncio.Future[bool] = self._loop.create_future()

        def tell(event: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, future, event.success)

        if self._rpc.start_server_batch(operations, tell) or not await future or self.over:
            raise asyncio.CancelledError


def _settle(future: asyncio.Future[bool], success: bool) -> None:
    if not future.done():
        future.set_result(success)
