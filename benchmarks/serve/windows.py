"""What requests saw of swaps: pure figures of what became of each, and of when versions were swapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Check
from benchmarks.serve.opened import LAG_P99_MS_MAX
from benchmarks.serve.sending import Shots
from benchmarks.serve.wire import OK

P99_RATIO_MAX: Final = 1.5
FIRST_RATIO_MAX: Final = 3.0
RSS_GROWTH_MAX: Final = 0.05
# What the allocator itself may take or give while nothing is kept.
LEFT_SHARE_MAX: Final = 0.01


class Window(NamedTuple):
    """A load of a version, seconds from the load's start: from its request until the old one was freed.

    `version`: the new one; None where the load failed, until its caller was told.
    """

    begin: float
    end: float
    version: int | None


class Left(NamedTuple):
    """What a number of failed loads left behind in the process: resident memory over that before, threads, files."""

    rss_share: float
    threads: int
    files: int


class Swapped(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a run; times in ms from when a request was due."""

    failed_requests: int
    # By gRPC's code, or the generator's own: 100 where no stream was free, 101 where no answer came.
    failed_codes: dict[int, int]
    mixed_batches: int
    wrong_version: int
    p99_ratio: float
    p99_max_ms: float
    first_request_ratio: float
    rss_growth: float
    p50_ms: float
    p99_outside_ms: float
    p99_inside_ms: float
    p99_failed_loads_ms: float
    window_ms: float
    window_max_ms: float
    requests_inside: int
    requests: int
    batches: int
    lag_p99_ms: float


def judged(
    shots: Shots, windows: Sequence[Window], marks: Mapping[int, float], rss: Sequence[int], *, settled: int
) -> Swapped:
    """Return the figures. `marks`: by version; `rss`: bytes after each swap, compared from `settled` swaps on."""
    answered = shots.where(shots.code == OK)
    swaps = [window for window in windows if window.version is not None]
    swapping = _inside(answered, swaps)
    failing = _inside(answered, [window for window in windows if window.version is None])
    inside, outside = answered.where(swapping), answered.where(~swapping & ~failing)
    p50, p99_inside, p99_outside = _p(outside, 0.5), _p(inside, 0.99), _p(outside, 0.99)
    lengths = [1000 * (window.end - window.begin) for window in swaps]
    mixed, batches = _mixed(answered)
    return Swapped(
        failed_requests=len(shots.due) - len(answered.due),
        failed_codes=dict(Counter(shots.code[shots.code != OK].tolist())),
        mixed_batches=mixed,
        wrong_version=_wrong(answered, marks),
        p99_ratio=_short(p99_inside / p99_outside),
        p99_max_ms=_short(max(_p(answered.where(_inside(answered, [window])), 0.99) for window in swaps)),
        first_request_ratio=_short(median(_firsts(answered, swaps)) / p50),
        rss_growth=_short(rss[-1] / rss[settled - 1] - 1),
        p50_ms=_short(p50),
        p99_outside_ms=_short(p99_outside),
        p99_inside_ms=_short(p99_inside),
        p99_failed_loads_ms=_short(_p(answered.where(failing), 0.99)),
        window_ms=_short(median(lengths)),
        window_max_ms=_short(max(lengths)),
        requests_inside=len(inside.due),
        requests=len(shots.due),
        batches=batches,
        lag_p99_ms=_short(float(np.percentile(shots.lag_ms, 99))),
    )


def checks(found: Swapped, left: Left, *, swaps: int, wanted: int) -> list[Check]:
    """Return every promise beside what was found."""

    def none(name: str, value: float) -> Check:
        return Check(name=name, value=value, goal="= 0", ok=value == 0)

    def most(name: str, value: float, limit: float) -> Check:
        return Check(name=name, value=value, goal=f"<= {limit:g}", ok=value <= limit)

    return [
        Check(name="swaps under load", value=swaps, goal=f"= {wanted}", ok=swaps == wanted),
        none("failed requests", found.failed_requests),
        none("batches that mixed versions", found.mixed_batches),
        none("replies that name another version than ran", found.wrong_version),
        most("p99 in swap windows over p99 outside", found.p99_ratio, P99_RATIO_MAX),
        most("first request of a new version, median, over the median", found.first_request_ratio, FIRST_RATIO_MAX),
        most("growth of resident memory, last swap over the fifth", found.rss_growth, RSS_GROWTH_MAX),
        none("threads that failed loads left behind", left.threads),
        none("files that failed loads left open", left.files),
        most("growth of resident memory by failed loads", _short(left.rss_share), LEFT_SHARE_MAX),
        most("generator's lag p99, ms; more makes the run void", found.lag_p99_ms, LAG_P99_MS_MAX),
    ]


def _inside(shots: Shots, windows: Sequence[Window]) -> NDArray[np.bool_]:
    """Return which requests were due within a window."""
    found = np.zeros(len(shots.due), np.bool_)
    for window in windows:
        first, last = np.searchsorted(shots.due, [window.begin, window.end])
        found[first:last] = True
    return found


def _firsts(shots: Shots, swaps: Sequence[Window]) -> list[float]:
    """Return how long the first request that each new version answered took, ms."""
    took = []
    for window in swaps:
        first = int(np.searchsorted(shots.due, window.begin))
        mine = np.flatnonzero(shots.version[first:] == window.version)
        if len(mine):
            took.append(float(shots.latency_ms[first + mine[0]]))
    return took or [0.0]


def _wrong(shots: Shots, marks: Mapping[int, float]) -> int:
    expected = np.full(len(shots.due), np.nan)
    for version, mark in marks.items():
        expected[shots.version == version] = mark
    return int((shots.run[:, 0] != expected).sum())


def _mixed(shots: Shots) -> tuple[int, int]:
    """Return how many batches have replies of two versions, by name or by mark; and how many batches there were."""
    if not len(shots.due):
        return 0, 0
    # Sums over the batch of numbers that no two requests share: whoever ran together, and nobody else, has the same.
    _, batch = np.unique(shots.run[:, 1:], axis=0, return_inverse=True)
    told = np.unique(np.column_stack([batch.reshape(-1), shots.version, shots.run[:, 0]]), axis=0)
    versions = np.bincount(told[:, 0].astype(np.intp))
    return int((versions > 1).sum()), len(versions)


def _p(shots: Shots, share: float) -> float:
    if not len(shots.due):
        return 0.0
    return float(np.quantile(shots.latency_ms, share, method="inverted_cdf"))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
