"""Open loop: requests come when they are due, and latency counts from then. For latency, and for overload."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.demo.counts import percentile
from benchmarks.serve.shooter import CALL_SECONDS, Round, Specification
from fallback.errors import UnavailableError

# Enough for every process to have started and connected.
START_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 15.0
# A generator that sends later than this measures itself: the run is void.
LAG_P99_MS_MAX: Final = 5.0


class Opened(NamedTuple):
    """What an open loop found, ms from when a request was due; `void` where the generator did not keep its times."""

    requests: int
    failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    lag_p99_ms: float
    void: bool


class Shooting:
    """Processes that send, started and not waited for yet."""

    def __init__(self, given: Specification, *, processes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="demur-")
        self.start = time.time() + START_SECONDS
        self._seconds = given.seconds
        self._children: list[tuple[subprocess.Popen[bytes], Path]] = []
        for number in range(processes):
            own = msgspec.structs.replace(
                given, start=self.start, rate=given.rate / processes, seed=given.seed * processes + number
            )
            path, result = (Path(self._folder.name) / f"{what}-{number}" for what in ("given", "result"))
            path.write_bytes(msgspec.json.encode(own))
            argv = [sys.executable, "-m", "benchmarks.serve.shooter", str(path), str(result)]
            self._children.append((subprocess.Popen(argv), result))  # noqa: S603 - this Python, our own module

    def rounds(self) -> list[Round]:
        """Wait for the end and return all rounds; raises UnavailableError if a process failed."""
        try:
            left = self.start - time.time() + self._seconds + CALL_SECONDS + GRACE_SECONDS
            for child, _ in self._children:
                if child.wait(max(1.0, left)):
                    raise UnavailableError(f"a process of the load ended with code {child.returncode}")
            found = [result.read_bytes() for _, result in self._children]
        finally:
            for child, _ in self._children:
                child.kill()
                child.wait()
            self._folder.cleanup()
        return [each for content in found for each in msgspec.json.decode(content, type=list[Round])]


def shoot(given: Specification, *, processes: int = 1) -> list[Round]:
    """Send all and return what became of each."""
    return Shooting(given, processes=processes).rounds()


def judged(rounds: Sequence[Round]) -> Opened:
    """Return the figures of requests that came back."""
    took = [each.latency_ms for each in rounds if each.code == "OK"]
    lag = percentile([each.lag_ms for each in rounds], 0.99)
    p50, p90, p99, p999 = (round(percentile(took, share), 3) for share in (0.5, 0.9, 0.99, 0.999))
    failed = sum(each.code != "OK" for each in rounds)
    most = round(max(took, default=0.0), 3)
    return Opened(len(rounds), failed, p50, p90, p99, p999, most, round(lag, 3), lag > LAG_P99_MS_MAX)


def facts(found: Opened) -> dict[str, Any]:
    """Return it as JSON has it."""
    return dict(found._asdict())
