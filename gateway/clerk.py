"""The clerk, as its gateway has it: a process beside it that parks what plain requests leave to people.

Theory of operation. To make a row into what the queue takes, and to talk to Redis, costs some hundred microseconds of
Python. In the gateway's own process these are taken from the thread that answers, whatever thread they run on. So a
process of its own does that, of slips (`gateway.slip`), which cost a few. They go to it in rounds
(`gateway.clerk_rounds`), one at a time, each in one call of the system. The answering thread sends one itself where
nobody else waits; else it only leaves its rows there, and the thread that hears the last round's verdicts, and tells
the callers, sends the next.

Nothing is promised before the queue has it, and nothing is parked twice: what a row is called in the queue follows from
its errand's ticket, for whoever parks it. While the clerk is not there (it has just started, it died), or where a row
is not a plain request's, the gateway parks by itself as ever. Where a clerk dies its errands are parked so, under the
same ids, which finds those that it had parked and not told. One that hangs is as good as dead: it is killed once a
round took longer than any does while Redis is away. Where the gateway dies the clerk parks what it was given, and ends.
The bound on all of it is that of what is on its way to the queue (`gateway.backlog`).
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import structlog

from fallback.config import Config, RedisSettings
from fallback.connection import attempt_seconds_max
from fallback.errors import DemurError
from fallback.queue import Parked
from gateway import clerk_wire
from gateway.aside import IDLE_SECONDS, Aside
from gateway.clerk_rounds import Given, Rounds
from gateway.clerk_terms import KnownTerms
from gateway.clerk_wire import Errand, Frames, Reply, Settings, from_wire
from gateway.internal import told
from gateway.slip import Terms

if TYPE_CHECKING:
    from gateway.champion import Live
    from gateway.declined import Declined

PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 30.0
_STEADY_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0
# A clerk that is not there by then hangs; on a busy machine, where it gives way to others, it takes some seconds.
START_SECONDS_MAX: Final = 60.0
# A round may take so many times as long as one that waits for Redis. Who is killed all the same costs a new process.
_ATTEMPTS: Final = 2
# How often it is looked whether the clerk hangs.
_LOOK_MS: Final = 1000
_READ_BYTES: Final = 1 << 18
_SEND_BUFFER_BYTES: Final = 1 << 20
_MS: Final = 1000
# The thread sends a round so late that as a rule who brings more rows has sent it.
_LATE_MS: Final = 1
_LEFT_MS: Final = math.ceil(_MS * IDLE_SECONDS)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)

Verdicts: TypeAlias = Sequence[Parked | DemurError]
# Told of errands that nobody waits for and that are parked as they should be, and of others with their verdicts.
Heard: TypeAlias = Callable[[Sequence[Given], Sequence[tuple[Given, Verdicts]]], None]
# Says why an errand need not be done.
Hopeless: TypeAlias = "Callable[[Declined, Live], DemurError | None]"

# An errand's ticket, the number of its terms, and whose it is.
_Ticketed: TypeAlias = "tuple[int, int, Declined]"


class _Round(NamedTuple):
    """A round to be sent to `to`, and what is not sent, each with why."""

    to: socket.socket
    new: list[tuple[int, Terms]]
    errands: list[_Ticketed]
    hopeless: list[tuple[Given, Verdicts]]


log = structlog.get_logger(__name__)


class Clerk:
    """One process at a time. `take` from any thread.

    `heard` is called with what became of errands, `left` with those of a clerk that died, on a thread of its own;
    `hopeless` when an errand is about to be sent.
    """

    def __init__(self, config: Config, aside: Aside | None = None) -> None:
        self._settings = clerk_wire.frame(Settings.of(config))
        self._round_seconds_max = _ATTEMPTS * attempt_seconds_max(config.table("redis", RedisSettings))
        self._start_seconds_max = START_SECONDS_MAX
        self._nonce = secrets.token_bytes(clerk_wire.NONCE_BYTES)
        self._aside = aside or Aside()
        self._heard: Heard
        self._left: Callable[[Sequence[Given]], None]
        self._hopeless: Hopeless
        self._changed = Condition()
        self._stopping = Event()
        self._socket: socket.socket | None = None
        self._up = False
        self._ticket = 0
        self._rounds = Rounds()
        # When the thread looks at the rounds by itself next.
        self._looks_at = math.inf
        self._given: dict[int, Given] = {}
        self._terms = KnownTerms()
        # What the socket has no room for yet; whoever reads waits for that too, once it is woken.
        self._unsent = bytearray()
        self._wake_read, self._wake_write = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = Thread(target=self._run, name="clerk", daemon=True)

    @property
    def up(self) -> bool:
        """Whether errands go to it now."""
        return self._up

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        return 0 if self._process is None else self._process.pid

    def start(
        self,
        heard: Heard,
        left: Callable[[Sequence[Given]], None],
        hopeless: Hopeless,
    ) -> None:
        """Start the process; returns at once."""
        self._heard, self._left, self._hopeless = heard, left, hopeless
        self._thread.start()

    def take(self, batch: Sequence[Declined], live: Live) -> Sequence[Declined]:
        """Take the plain requests of a batch; returns those that it does not take."""
        if not self._up:
            return batch
        left = [declined for declined in batch if declined.samplings or declined.plain is None]
        wanted = batch if not left else [each for each in batch if each.plain is not None and not each.samplings]
        now = time.monotonic()
        with self._changed:
            if not self._up:
                return batch
            self._rounds.add([(declined, live) for declined in wanted], now)
            due = self._rounds.due
            order = self._next(now) if due <= now else None
            wakes = order is None and due < self._looks_at
            if wakes:
                self._looks_at = due
        if order is not None:
            self._begin(order)
        elif wakes:
            self._wake()
        return left

    def _begin(self, order: _Round) -> None:
        """Send a round on a thread that answers; where that fails whoever reads hears that the socket is shut."""
        try:
            self._send(order)
        except Exception as error:  # noqa: BLE001 - its batch is answered already: only who is to be parked is concerned
            told(error, where="clerk")
            with contextlib.suppress(OSError):
                order.to.shutdown(socket.SHUT_RDWR)

    def _wake(self) -> None:
        os.write(self._wake_write, b"\0")

    def _next(self, now: float) -> _Round:
        """Begin the next round: give its errands tickets."""
        assert self._socket is not None, "who is up has a socket"
        order = _Round(self._socket, [], [], [])
        for given in self._rounds.take(now):
            declined, live = given
            assert declined.plain is not None, "only plain requests are taken"
            if problem := self._hopeless(declined, live):
                order.hopeless.append((given, [problem] * declined.rows))
                continue
            self._ticket += 1
            self._given[self._ticket] = given
            order.errands.append((self._ticket, self._terms.number(declined.plain.job, live, order.new), declined))
        if not order.errands:
            self._rounds.heard()
            self._changed.notify_all()
        return order

    def _send(self, order: _Round) -> None:
        """Send a round: what the socket takes now, and the rest as soon as it takes more."""
        done = not order.hopeless or self._aside.do(lambda: self._heard((), order.hopeless))
        if not done or not order.errands:
            # Whoever reads comes back for what was left, and looks whether there is another round.
            self._wake()
        if not order.errands:
            return
        ours, content = order.to, clerk_wire.frame((order.new, [_errand(*each) for each in order.errands]))
        # Nothing of another round is unsent: one is under way at a time, and what answers it has read all of it.
        sent = _write(ours, content)
        if sent < len(content):
            with self._changed:
                # Of a clerk that is gone nothing is sent.
                if self._socket is ours:
                    self._unsent += memoryview(content)[sent:]
            self._wake()

    def close(self, grace_seconds: float) -> None:
        """Let it end its errands for up to `grace_seconds`, and end it; what it did not do is `left`."""
        if not self._thread.is_alive():
            return
        with self._changed:
            self._rounds.hurry()
            self._wake()
            self._changed.wait_for(lambda: not (self._given or self._rounds), grace_seconds)
            self._stopping.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
        self._thread.join(_END_SECONDS)
        if self._process is not None:
            _kill(self._process)
        self._thread.join(_END_SECONDS)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        pause = PAUSE_SECONDS_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001 - the root of the thread: without a clerk the gateway parks by itself
                told(error, where="clerk")
            self._end()
            self._hand_back()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = PAUSE_SECONDS_MIN
            log.warning("the clerk ended; the gateway parks by itself meanwhile", pause_seconds=pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _serve(self) -> None:
        """Start a process, and hear what it says until it ends."""
        ours, its = socket.socketpair()
        with ours:
            ours.setblocking(False)  # noqa: FBT003 - positional only
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            with its:
                self._process = self._spawn(its.fileno())
            ours.sendall(self._settings)
            with self._changed:
                self._socket = ours
                if self._stopping.is_set():
                    ours.shutdown(socket.SHUT_WR)
            self._read(ours)

    def _end(self) -> None:
        """End a process that has ended, hangs, or that nobody hears any more."""
        if self._process is None:
            return
        if self._stopping.is_set():
            # Who stops gives it time to end by itself.
            self._process.wait()
        _kill(self._process)

    def _spawn(self, socket_number: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "gateway.clerk_process", str(socket_number), self._nonce.hex()]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[socket_number])  # noqa: S603 - our own module

    def _read(self, ours: socket.socket) -> None:
        frames, poll = Frames(), select.poll()
        poll.register(ours, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        began = time.monotonic()
        while True:
            wait_ms = self._look()
            if not self._aside.catch_up():
                wait_ms = min(wait_ms, _LEFT_MS)
            events = dict(poll.poll(wait_ms))
            if self._wake_read in events:
                os.read(self._wake_read, _READ_BYTES)
            if events.get(ours.fileno(), 0) & ~select.POLLOUT:
                if not self._take(ours, frames):
                    return
            elif self._hangs(began):
                log.error("the clerk hangs and is killed", pid=self.pid)
                return
            poll.modify(ours, select.POLLIN if self._flushed(ours) else select.POLLIN | select.POLLOUT)

    def _hangs(self, began: float) -> bool:
        """Whether a clerk that says nothing now, and began at `began`, should have said something long ago."""
        now = time.monotonic()
        if not self._up:
            return now - began > self._start_seconds_max
        with self._changed:
            return now - self._rounds.since > self._round_seconds_max

    def _look(self) -> int:
        """Send a round that is due; returns for how long none will be, and nobody need look again, ms."""
        now = time.monotonic()
        with self._changed:
            due = self._rounds.due if self._up else math.inf
            order = self._next(now) if due <= now else None
            self._looks_at = due if order is None else math.inf
        if order is not None:
            self._send(order)
            return _LOOK_MS
        return _LOOK_MS if due == math.inf else min(_LOOK_MS, math.ceil(_MS * (due - now)) + _LATE_MS)

    def _flushed(self, ours: socket.socket) -> bool:
        """Send what was left; returns whether nothing is left now."""
        if not self._unsent:
            return True
        with self._changed:
            del self._unsent[: _write(ours, self._unsent)]
            return not self._unsent

    def _take(self, ours: socket.socket, frames: Frames) -> bool:
        """Hear what came; False where nothing comes any more."""
        try:
            came = ours.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for content in frames.feed(came):
            self._tell(_REPLIES.decode(content))
            if not self._up:
                # Only now: what it says first ends no round.
                log.info("the clerk is there", pid=self.pid)
                self._up = True
        return bool(came)

    def _tell(self, said: Reply) -> None:
        fine, others = said
        given = self._given
        with self._changed:
            self._rounds.heard()
        done = [given.pop(ticket) for ticket in fine if ticket in given]
        known = [(given.pop(ticket), from_wire(verdicts)) for ticket, verdicts in others if ticket in given]
        if done or known:
            self._aside.do(lambda: self._heard(done, known))
        if not self._given:
            with self._changed:
                self._changed.notify_all()

    def _hand_back(self) -> None:
        """Give back what a clerk that ended did not do."""
        self._aside.do_all()
        with self._changed:
            self._up, self._socket = False, None
            given, self._given = self._given, {}
            waiting = self._rounds.clear()
            self._terms.clear()
            self._unsent.clear()
            self._changed.notify_all()
        for ticket, (declined, _) in given.items():
            declined.ids = clerk_wire.ids(self._nonce, ticket, declined.rows)
        if left := [*given.values(), *waiting]:
            self._left(left)


def _errand(ticket: int, terms: int, declined: Declined) -> Errand:
    plain = declined.plain
    assert plain is not None, "only plain requests are taken"
    until = (plain.job.deadline or math.inf) if declined.deferred else None
    return Errand(ticket, terms, until, plain.slips((*declined.deferred, *declined.audited)))


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    # One that waits for a disk ends when that answers, and does nothing any more until then.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)


def _write(ours: socket.socket, content: bytes | bytearray) -> int:
    try:
        return ours.send(content)
    except BlockingIOError:
        return 0
    except OSError:
        # It is gone, which whoever reads finds out.
        return len(content)
