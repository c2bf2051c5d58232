"""Latencies as histograms (HdrHistogram: microseconds to three significant digits), which merge exactly. Pure.

Source: G. Tene, HdrHistogram; `Latency.hdr` is its compressed V2 encoding, which every port of it reads.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from benchmarks.serve.results import Latency

_LEAST_US: Final = 1
_MOST_US: Final = 3_600_000_000
_DIGITS: Final = 3
_US_PER_MS: Final = 1000
# Points of the curve from one halving of the distance to 100 % to the next.
_TICKS: Final = 5


def histogram(took_ms: NDArray[np.float64]) -> HdrHistogram:
    """Return the histogram of latencies in ms."""
    made = HdrHistogram(_LEAST_US, _MOST_US, _DIGITS)
    whole = np.clip(np.rint(took_ms * _US_PER_MS), _LEAST_US, _MOST_US).astype(np.int64)
    for value, count in zip(*np.unique(whole, return_counts=True), strict=True):
        made.record_value(int(value), int(count))
    return made


def merged(*encoded: str) -> HdrHistogram:
    """Return the sum of histograms that were encoded as in `Latency.hdr`; empty ones add nothing."""
    made = HdrHistogram(_LEAST_US, _MOST_US, _DIGITS)
    for each in encoded:
        if each:
            made.decode_and_add(each.encode("ascii"))
    return made


def latency(of: HdrHistogram) -> Latency:
    """Return the figures of a histogram."""
    count = int(of.get_total_count())
    if not count:
        return Latency(count=0, mean_ms=0, p50_ms=0, p90_ms=0, p99_ms=0, p999_ms=0, p9999_ms=0, max_ms=0)
    p50, p90, p99, p999, p9999, most = (
        _ms(of.get_value_at_percentile(percentile)) for percentile in (50, 90, 99, 99.9, 99.99, 100)
    )
    curve = [(each.percentile_level_iterated_to, _ms(each.value_iterated_to)) for each in _points(of)]
    return Latency(
        count=count,
        mean_ms=_ms(of.get_mean_value()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p999_ms=p999,
        p9999_ms=p9999,
        max_ms=most,
        curve=tuple((round(percentile, 6), ms) for percentile, ms in curve),
        hdr=of.encode().decode("ascii"),
    )


def _points(of: HdrHistogram) -> Any:
    return of.get_percentile_iterator(_TICKS)


def _ms(us: float) -> float:
    return float(f"{us / _US_PER_MS:.4g}")
