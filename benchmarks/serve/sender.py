"""A process of load as heavy as a server in C can take: `python -m benchmarks.serve.sender`.

Each line of its standard input is a Load (JSON). It sends that, writes what became of it to a file (NumPy's .npz), and
a line to its standard output, empty or with what went wrong. An empty line, or the end of the input, ends a load before
its time; the end of the input also ends the process.

An open loop sends each request when it is due, whatever became of those before it. A request for which the server's
limits leave no stream on any connection is not sent: it was shed, at no cost to the server. A closed loop has so many
callers, each of which asks again as soon as it has its answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import sys
import time
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve import wire
from benchmarks.serve.wire import SHED, Ended, Wire
from demur import kserve
from fallback.errors import UnavailableError

METHOD: Final = f"/{kserve.SERVICE}/ModelInfer"
# Besides gRPC's codes: no answer came.
UNANSWERED: Final = 101
STAMP_BYTES: Final = 8
# What a stamped model's last output tells of the run.
RUN_WIDTH: Final = 3
LATE_SECONDS_MAX: Final = 12.0
_WAIT_SECONDS_MAX: Final = 0.05
_FIRST_SIZE: Final = 4_096
_STDIN: Final = 0
_PR_SET_TIMERSLACK: Final = 29
_LINE_BYTES_MAX: Final = 1 << 16


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, from `start` (time.monotonic(), one clock for all processes) on, for `seconds_max`.

    Open loop: at `rate` a second. Closed loop: by so many `callers`, where these are not 0. Replies are waited for
    `late_seconds` more. With `stamp_at` two numbers (FP32) that no other request has are written into each payload
    there, and the reply's version and last output are read. `ca`: a file, for a server with TLS.
    """

    address: str
    method: str = METHOD
    payload: bytes
    start: float = 0.0
    rate: float = 0.0
    callers: int = 0
    seconds_max: float
    late_seconds: float = LATE_SECONDS_MAX
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0
    connections: int = 4
    stamp_at: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    ca: str | None = None
    # Where what became of it is written.
    result: str = ""


class Sent:
    """What became of each request, as columns; seconds from the start, milliseconds from when it was due."""

    def __init__(self, size: int) -> None:
        self.due = np.zeros(size)
        self.lag_ms = np.zeros(size)
        self.latency_ms = np.zeros(size)
        self.code = np.full(size, UNANSWERED, np.int16)
        # Whether a refusal says when to come back; which version a reply names, and what `run` says of it.
        self.retry = np.zeros(size, np.bool_)
        self.version = np.zeros(size, np.int32)
        self.run = np.zeros((size, RUN_WIDTH))

    def grow(self) -> None:
        """Make room for as many requests again."""
        size = len(self.code)
        more = vars(Sent(size))
        for name, column in vars(self).items():
            setattr(self, name, np.concatenate([column, more[name]]))

    def first(self, count: int) -> dict[str, NDArray[np.generic]]:
        """Return the columns of the first requests."""
        return {name: column[:count] for name, column in vars(self).items()}


def due_times(given: Load) -> NDArray[np.float64]:
    """Return when requests of an open loop are due, seconds from the start."""
    count = int(given.rate * given.seconds_max)
    if given.arrivals == "constant":
        return np.arange(count) / given.rate
    # Five deviations more, so that the last of them is never due before the end.
    count += int(5 * count**0.5) + 10
    drawn = np.cumsum(np.random.default_rng(given.seed).exponential(1 / given.rate, count))
    return drawn[drawn < given.seconds_max]


class _Line(NamedTuple):
    """A connection, and the request of each call under way on it, by stream."""

    wire: Wire
    places: dict[int, int]


class Sender:
    """Sends, and keeps what became of each.

    A connection that the server asks to leave is replaced at once, and closed when its calls have ended.
    """

    def __init__(self, given: Load, wires: list[Wire]) -> None:
        self._given = given
        self._lines = [_Line(each, {}) for each in wires]
        self._due: list[float] = [] if given.callers else (given.start + due_times(given)).tolist()
        self._end = given.start + given.seconds_max
        self._at = 0
        self._turn = 0
        self._files = {each.wire.socket.fileno(): each for each in self._lines}
        self._stamps = np.random.default_rng([given.seed, 1]).random((len(self._due), 2), np.float32)
        self.sent = Sent(max(len(self._due), _FIRST_SIZE))

    def run(self, stop: int) -> int:
        """Send every request at its time, until the file `stop` can be read; return how many were due."""
        last = None
        while last is None or (self._calls() and time.monotonic() < last):
            wait: float | None = _WAIT_SECONDS_MAX
            if last is None:
                wait = self._begin(time.monotonic())
                if wait is None:
                    last = time.monotonic() + self._given.late_seconds
            for line in self._files.values():
                line.wire.flush()
            if last is not None and not self._calls():
                break
            unsent = [file for file, line in self._files.items() if line.wire.unsent]
            watched = [*self._files, *([] if last else [stop])]
            readable, _, _ = select.select(watched, unsent, [], min(max(wait or 0.0, 0.0), _WAIT_SECONDS_MAX))
            for each in readable:
                if each == stop:
                    last = time.monotonic() + self._given.late_seconds
                else:
                    self._take(self._files[each])
        return self._at

    def _begin(self, now: float) -> float | None:
        """Begin what is due; returns the seconds until the next, None where there is none."""
        if self._given.callers:
            return self._begin_closed(now)
        due, sent = self._due, self.sent
        while self._at < len(due) and due[self._at] <= now:
            number, self._at = self._at, self._at + 1
            sent.lag_ms[number] = 1000 * (now - due[number])
            line = self._free()
            if line is None:
                sent.code[number] = SHED
                continue
            line.places[line.wire.call(self.stamped(number))] = number
        return due[self._at] - time.monotonic() if self._at < len(due) else None

    def _begin_closed(self, now: float) -> float | None:
        if now >= self._end:
            return None
        if now < self._given.start:
            return self._given.start - now
        free = self._given.callers - self._calls()
        while free > 0 and (line := self._free()) is not None:
            free, number, self._at = free - 1, self._at, self._at + 1
            if number == len(self.sent.code):
                self.sent.grow()
            self._due.append(now)
            line.places[line.wire.call(self._given.payload)] = number
        return self._end - now

    def _calls(self) -> int:
        return sum(each.wire.calls for each in self._files.values())

    def _free(self) -> _Line | None:
        """Return the connection whose turn it is, or the next one that takes a call."""
        for _ in self._lines:
            self._turn = (self._turn + 1) % len(self._lines)
            if not self._lines[self._turn].wire.full:
                return self._lines[self._turn]
        return None

    def stamped(self, number: int) -> bytes:
        """Return the payload of request `number`."""
        at, payload = self._given.stamp_at, self._given.payload
        if at is None:
            return payload
        stamp: bytes = self._stamps[number].tobytes()
        return payload[:at] + stamp + payload[at + STAMP_BYTES :]

    def _take(self, line: _Line) -> None:
        ended = line.wire.read()
        now = time.monotonic()
        for each in ended:
            number = line.places.pop(each.stream)
            self.sent.latency_ms[number] = 1000 * (now - self._due[number])
            self.sent.code[number] = each.code
            self._read(number, each)
        if line.wire.going:
            self._leave(line)

    def _leave(self, line: _Line) -> None:
        """Connect anew, where the server asked for it, and close the old connection when nothing is under way there."""
        if line in self._lines:
            made = _Line(connected(self._given), {})
            self._lines[self._lines.index(line)] = made
            self._files[made.wire.socket.fileno()] = made
        if not line.wire.calls:
            del self._files[line.wire.socket.fileno()]
            line.wire.close()

    def _read(self, number: int, ended: Ended) -> None:
        if ended.code != wire.OK:
            self.sent.retry[number] = bool(ended.details)
        elif self._given.stamp_at is not None:
            reply = kserve.ModelInferResponse.FromString(ended.message)
            self.sent.version[number] = int(reply.model_version)
            self.sent.run[number] = np.frombuffer(reply.raw_output_contents[-1])[:RUN_WIDTH]

    def columns(self, count: int) -> dict[str, NDArray[np.generic]]:
        """Return what became of the first requests."""
        self.sent.due[:count] = np.array(self._due[:count]) - self._given.start
        return self.sent.first(count)


def connected(given: Load) -> Wire:
    """Return a connection to where the load goes; raises UnavailableError."""
    tls = None if given.ca is None else wire.trusting(given.ca)
    return Wire(given.address, given.method, metadata=given.metadata, tls=tls)


def send(given: Load, stop: int) -> None:
    """Send one load and write what became of it; raises UnavailableError where the server is not spoken to."""
    wires = [connected(given) for _ in range(given.connections)]
    try:
        sender = Sender(given, wires)
        count = sender.run(stop)
        np.savez(given.result, **sender.columns(count))  # type: ignore[arg-type]  # its stubs take no columns by name
    finally:
        for each in wires:
            each.close()


def line() -> bytes:
    """Read a line of the standard input, without a buffer that would hide from `select` what came; empty at its end."""
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        part = os.read(_STDIN, _LINE_BYTES_MAX)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _wake_on_time() -> None:
    """Have the kernel (Linux's prctl) wake this process when it asked to be, not up to 50 microseconds later."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


def main() -> None:
    """Send each load that is given, until there is none."""
    _wake_on_time()
    # What is collected here is kept to the end of a load anyway.
    gc.disable()
    while said := line():
        if said == b"\n":
            continue
        fault = ""
        try:
            send(msgspec.json.decode(said, type=Load), _STDIN)
        except UnavailableError as error:
            fault = str(error).replace("\n", " ")
        sys.stdout.write(fault + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    main()
