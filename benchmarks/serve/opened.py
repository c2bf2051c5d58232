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


def shoot(given: Specification) -> list[Round]:
    """Send all from a process of its own; return what became of each. Raises UnavailableError if that process fails."""
    with tempfile.TemporaryDirectory(prefix="demur-") as folder:
        path, result = Path(folder) / "given", Path(folder) / "result"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(given, start=time.time() + START_SECONDS)))
        argv = [sys.executable, "-m", "benchmarks.serve.shooter", str(path), str(result)]
        seconds = START_SECONDS + given.seconds + CALL_SECONDS + GRACE_SECONDS
        try:
            ran = subprocess.run(argv, check=False, timeout=seconds)  # noqa: S603 - this Python, our own module
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"the load did not end within {seconds:.0f} s") from error
        if ran.returncode:
            raise UnavailableError(f"the load ended with code {ran.returncode}; what it said stands above")
        return msgspec.json.decode(result.read_bytes(), type=list[Round])


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
