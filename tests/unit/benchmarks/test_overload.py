"""What `demur bench overload` makes of what it sees."""

from __future__ import annotations

import numpy as np

from benchmarks.serve import overloads
from benchmarks.serve.overloads import Course
from benchmarks.serve.sending import Shots
from benchmarks.serve.wire import SHED


def shots(due: list[float], latency_ms: list[float], code: list[int], retry: list[bool] | None = None) -> Shots:
    """Return columns of what was sent."""
    nothing = np.zeros(len(due))
    return Shots(
        due=np.array(due),
        lag_ms=nothing,
        latency_ms=np.array(latency_ms),
        code=np.array(code, np.int16),
        retry=np.array(retry or [False] * len(due)),
        version=nothing.astype(np.int32),
        run=np.zeros((len(due), 3)),
    )


def test_a_storm_counts_once_it_has_begun_and_the_calm_once_it_is_over() -> None:
    """Goodput is what was answered of all that came; refusals are to say when to come back."""
    calm = shots([1.5, 5.0, 8.5, 9.5], [2.0, 40.0, 90.0, 3.0], [0, 0, 0, 0])
    storm = shots([3.5, 5.1, 5.2, 5.3, 5.4], [500.0, 60.0, 1.0, 2.0, 0.0], [0, 0, 8, 8, SHED], [False] * 3 + [True] * 2)
    found = overloads.judged(Course(calm, storm, 3.0, 8.0, (90, 100, 104)), capacity=1.0, rows_wait_max=2)
    assert (found.goodput, found.goodput_share, found.allowed_p99_ms) == (0.5, 0.5, 2000.0)
    assert (found.accepted, found.refused, found.refused_without_retry, found.shed, found.other) == (2, 2, 1, 1, 0)
    assert (found.accepted_p50_ms, found.accepted_p99_ms, found.refused_p99_ms) == (40.0, 60.0, 2.0)
    assert (found.p99_before_ms, found.p99_after_ms, found.rss_growth) == (2.0, 3.0, 0.04)
    broken = {each.name for each in overloads.checks("conv", found) if not each.ok}
    assert broken == {"conv: goodput over the peak", "conv: refusals without RetryInfo"}
    assert all(each.ok for each in overloads.checks("tiny", found))
