"""One process of open-loop load: sends each request when it is due, whatever became of those before it.

`python -m benchmarks.serve.shooter SPECIFICATION RESULT`: a file with one JSON object in, one with the rounds out.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import msgspec

from benchmarks.load import arrivals

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
CALL_SECONDS: Final = 10.0
# How long the last replies are waited for.
_LAST_SECONDS: Final = CALL_SECONDS + 2.0


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, from `start` (Unix seconds) on, at `rate` a second for `seconds`."""

    address: str
    method: str = METHOD
    payload: bytes
    start: float
    rate: float
    seconds: float
    arrivals: Literal["poisson", "constant"] = "poisson"
    seed: int = 0


class Round(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request: when it was due (seconds from the start), how much later it was sent, and done, and its code."""

    due_seconds: float
    lag_ms: float
    latency_ms: float
    code: str


def due_times(given: Specification) -> list[float]:
    """Return when requests are due, seconds from the start."""
    if given.arrivals == "constant":
        return [number / given.rate for number in range(int(given.rate * given.seconds))]
    return arrivals(given.rate, given.seconds, given.seed)


class _Gun:
    """Sends, and keeps what became of each."""

    def __init__(self, given: Specification, channel: grpc.Channel) -> None:
        self._given = given
        self._call: Any = channel.unary_unary(given.method)
        self._begin = time.monotonic() + given.start - time.time()
        self._rounds: list[Round] = []
        self._left = 0
        self._done = threading.Condition()

    def run(self) -> list[Round]:
        """Send every request at its time; return what became of each."""
        for due in due_times(self._given):
            wait = self._begin + due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            lag = 1000 * (time.monotonic() - self._begin - due)
            with self._done:
                self._left += 1
            future = self._call.future(self._given.payload, timeout=CALL_SECONDS)
            future.add_done_callback(lambda ended, due=due, lag=lag: self._end(ended, due, lag))
        with self._done:
            self._done.wait_for(lambda: not self._left, _LAST_SECONDS)
            # What never came back is a failure too.
            late = 1000 * (time.monotonic() - self._begin)
            never = Round(due_seconds=0.0, lag_ms=0.0, latency_ms=late, code="UNANSWERED")
            return [*self._rounds, *[never] * self._left]

    def _end(self, ended: Any, due: float, lag: float) -> None:
        latency = 1000 * (time.monotonic() - self._begin - due)
        found = Round(due_seconds=due, lag_ms=lag, latency_ms=latency, code=ended.code().name)
        with self._done:
            self._rounds.append(found)
            self._left -= 1
            self._done.notify()


def main() -> None:
    """Read the specification, send, write the result."""
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Specification)
    with grpc.insecure_channel(given.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        grpc.channel_ready_future(channel).result(CALL_SECONDS)
        rounds = _Gun(given, channel).run()
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(rounds))


if __name__ == "__main__":
    main()
