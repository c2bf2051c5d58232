"""Open loop: requests come when they are due, and latency counts from then. What such a load found, pure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.sending import Shots
from benchmarks.serve.wire import OK

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
    # The server's processor time a request, where somebody looked.
    cpu_us: float | None = None


def judged(shots: Shots) -> Opened:
    """Return the figures of requests that came back."""
    back = shots.code == OK
    took = shots.latency_ms[back]
    lag = quantile(shots.lag_ms, 0.99)
    return Opened(
        len(shots.due),
        int((~back).sum()),
        quantile(took, 0.5),
        quantile(took, 0.9),
        quantile(took, 0.99),
        quantile(took, 0.999),
        quantile(took, 1.0),
        lag,
        lag > LAG_P99_MS_MAX,
    )


def quantile(values: NDArray[np.float64], share: float) -> float:
    """Return the smallest of `values` that at least `share` of them do not exceed, to a microsecond; 0 for none."""
    return round(float(np.quantile(values, share, method="inverted_cdf")), 3) if len(values) else 0.0


def facts(found: Opened) -> dict[str, Any]:
    """Return it as JSON has it."""
    return dict(found._asdict())
