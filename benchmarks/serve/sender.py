"""One process of open-loop load as heavy as a server in C can take: `python -m benchmarks.serve.sender GIVEN RESULT`.

A file with one JSON object in, one of arrays (NumPy's .npz) out. It sends each request when it is due, whatever became
of those before it, until its time is over or its standard input ends. A request for which the server's limits leave no
stream on any connection is not sent: it was shed, at no cost to the server.
"""

from __future__ import annotations

import gc
import select
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve import wire
from benchmarks.serve.models import RUN_WIDTH
from benchmarks.serve.shooter import METHOD
from benchmarks.serve.wire import SHED, Ended, Wire
from demur import kserve

# Besides gRPC's codes: no answer came.
UNANSWERED: Final = 101
STAMP_BYTES: Final = 8
_WAIT_SECONDS_MAX: Final = 0.05
_LATE_SECONDS_MAX: Final = 12.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, from `start` (time.monotonic(), one clock for all processes) on, at `rate` a second.

    With `stamp_at` two numbers (FP32) that no other request has are written into each payload there, and the reply's
    version and last output are read.
    """

    address: str
    method: str = METHOD
    payload: bytes
    start: float
    rate: float
    seconds_max: float
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0
    connections: int = 4
    stamp_at: int | None = None


class Sent:
    """What became of each request, as columns; seconds from the start, milliseconds from when it was due."""

    def __init__(self, size: int) -> None:
        self.lag_ms = np.zeros(size)
        self.latency_ms = np.zeros(size)
        self.code = np.full(size, UNANSWERED, np.int16)
        # Whether a refusal says when to come back; which version a reply names, and what `run` says of it.
        self.retry = np.zeros(size, np.bool_)
        self.version = np.zeros(size, np.int32)
        self.run = np.zeros((size, RUN_WIDTH))


def due_times(given: Load) -> NDArray[np.float64]:
    """Return when requests are due, seconds from the start."""
    count = int(given.rate * given.seconds_max)
    if given.arrivals == "constant":
        return np.arange(count) / given.rate
    return np.cumsum(np.random.default_rng(given.seed).exponential(1 / given.rate, count))


class Sender:
    """Sends, and keeps what became of each."""

    def __init__(self, given: Load, wires: list[Wire]) -> None:
        self._given = given
        self._wires = wires
        self._due: list[float] = (given.start + due_times(given)).tolist()
        self._at = 0
        self._turn = 0
        self._places: list[dict[int, int]] = [{} for _ in wires]
        self._sockets = {each.socket: number for number, each in enumerate(wires)}
        self._stamps = np.random.default_rng([given.seed, 1]).random((len(self._due), 2), np.float32)
        self.sent = Sent(len(self._due))

    def run(self, stop: Any) -> int:
        """Send every request at its time, until `stop` can be read; return how many were due."""
        last = None
        while last is None or (any(each.calls for each in self._wires) and time.monotonic() < last):
            now = time.monotonic()
            if last is None:
                self._send_due(now)
                if self._at == len(self._due):
                    last = now + _LATE_SECONDS_MAX
            for each in self._wires:
                each.flush()
            wait = _WAIT_SECONDS_MAX if last else self._due[self._at] - time.monotonic()
            unsent = [each.socket for each in self._wires if each.unsent]
            watched = [*self._sockets, *([] if last else [stop])]
            readable, _, _ = select.select(watched, unsent, [], min(max(wait, 0.0), _WAIT_SECONDS_MAX))
            for each in readable:
                if each is stop:
                    last = time.monotonic() + _LATE_SECONDS_MAX
                else:
                    self._take(self._sockets[each])
        return self._at

    def _send_due(self, now: float) -> None:
        due, sent = self._due, self.sent
        while self._at < len(due) and due[self._at] <= now:
            number, self._at = self._at, self._at + 1
            sent.lag_ms[number] = 1000 * (now - due[number])
            place = self._free()
            if place is None:
                sent.code[number] = SHED
                continue
            self._places[place][self._wires[place].call(self.stamped(number))] = number

    def _free(self) -> int | None:
        """Return the connection whose turn it is, or the next one that takes a call."""
        for _ in self._wires:
            self._turn = (self._turn + 1) % len(self._wires)
            if not self._wires[self._turn].full:
                return self._turn
        return None

    def stamped(self, number: int) -> bytes:
        """Return the payload of request `number`."""
        at, payload = self._given.stamp_at, self._given.payload
        if at is None:
            return payload
        stamp: bytes = self._stamps[number].tobytes()
        return payload[:at] + stamp + payload[at + STAMP_BYTES :]

    def _take(self, place: int) -> None:
        ended = self._wires[place].read()
        now, places = time.monotonic(), self._places[place]
        for each in ended:
            number = places.pop(each.stream)
            self.sent.latency_ms[number] = 1000 * (now - self._due[number])
            self.sent.code[number] = each.code
            self._read(number, each)

    def _read(self, number: int, ended: Ended) -> None:
        if ended.code != wire.OK:
            self.sent.retry[number] = bool(ended.details)
        elif self._given.stamp_at is not None:
            reply = kserve.ModelInferResponse.FromString(ended.message)
            self.sent.version[number] = int(reply.model_version)
            self.sent.run[number] = np.frombuffer(reply.raw_output_contents[-1])[:RUN_WIDTH]


def main() -> None:
    """Read what to send, send, write what became of it."""
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Load)
    wires = [Wire(given.address, given.method) for _ in range(given.connections)]
    sender = Sender(given, wires)
    # What is collected here is kept to the end anyway.
    gc.disable()
    count = sender.run(sys.stdin)
    columns = {name: values[:count] for name, values in vars(sender.sent).items()}
    np.savez(sys.argv[2], due=due_times(given)[:count], **columns)


if __name__ == "__main__":
    main()
