"""What becomes of requests while twice as many come as can be answered: pure figures."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.figures import Check
from benchmarks.serve.opened import LAG_P99_MS_MAX
from benchmarks.serve.sending import Shots
from benchmarks.serve.wire import OK, SHED

GOODPUT_SHARE_MIN: Final = 0.9
RSS_GROWTH_MAX: Final = 0.05
# p99 once it is over, against before.
AFTER_RATIO_MAX: Final = 1.5
# What the start of an overload may take, and what comes after it: seconds.
SETTLE_SECONDS: Final = 1.0
_RESOURCE_EXHAUSTED: Final = 8


class Course(NamedTuple):
    """What was sent: a calm load all the time and a storm within, both against `start`; seconds of the storm.

    `rss` are bytes before, a second into the storm, and at its end.
    """

    calm: Shots
    storm: Shots
    begin: float
    end: float
    rss: tuple[int, int, int]


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of one model; rates a second, times in ms from when a request was due."""

    capacity: float
    offered: float
    goodput: float
    goodput_share: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    allowed_p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    accepted: int
    refused: int
    refused_without_retry: int
    shed: int
    other: int
    rss_growth: float
    p99_before_ms: float
    p99_after_ms: float
    lag_p99_ms: float


def judged(course: Course, *, capacity: float, rows_wait_max: int) -> Overload:
    """Return the figures. `rows_wait_max`: rows of one each that may wait and be in a run, so many are answered first.

    The storm counts from SETTLE_SECONDS after its begin; what comes after it from SETTLE_SECONDS after its end.
    """
    seconds = course.end - course.begin - SETTLE_SECONDS
    during = [_due(shots, course.begin + SETTLE_SECONDS, course.end) for shots in (course.calm, course.storm)]
    codes = np.concatenate([shots.code for shots in during])
    latency = np.concatenate([shots.latency_ms for shots in during])
    retry = np.concatenate([shots.retry for shots in during])
    accepted, refused, shed = codes == OK, codes == _RESOURCE_EXHAUSTED, codes == SHED
    goodput = float(accepted.sum()) / seconds
    before = _due(course.calm, SETTLE_SECONDS, course.begin)
    after = _due(course.calm, course.end + SETTLE_SECONDS, np.inf)
    lag = np.concatenate([shots.lag_ms for shots in during])
    return Overload(
        capacity=_short(capacity),
        offered=_short(len(codes) / seconds),
        goodput=_short(goodput),
        goodput_share=_short(goodput / capacity),
        accepted_p50_ms=_p(latency[accepted], 0.5),
        accepted_p99_ms=_p(latency[accepted], 0.99),
        allowed_p99_ms=_short(1000 * rows_wait_max / max(goodput, 1.0)),
        refused_p50_ms=_p(latency[refused], 0.5),
        refused_p99_ms=_p(latency[refused], 0.99),
        accepted=int(accepted.sum()),
        refused=int(refused.sum()),
        refused_without_retry=int((refused & ~retry).sum()),
        shed=int(shed.sum()),
        other=int((~accepted & ~refused & ~shed).sum()),
        rss_growth=_short(course.rss[2] / course.rss[1] - 1),
        p99_before_ms=_p(before.latency_ms[before.code == OK], 0.99),
        p99_after_ms=_p(after.latency_ms[after.code == OK], 0.99),
        lag_p99_ms=_p(lag, 0.99),
    )


def checks(name: str, found: Overload) -> list[Check]:
    """Return every promise beside what was found; a model that is not refused by its queue has fewer."""

    def most(what: str, value: float, limit: float) -> Check:
        return Check(name=f"{name}: {what}", value=value, goal=f"<= {limit:g}", ok=value <= limit)

    share = found.goodput_share
    refusals = found.accepted_p50_ms
    promised = [
        Check(
            name=f"{name}: goodput over the peak",
            value=share,
            goal=f">= {GOODPUT_SHARE_MIN:g}",
            ok=share >= GOODPUT_SHARE_MIN,
        ),
        most("accepted p99, ms, within what may wait", found.accepted_p99_ms, found.allowed_p99_ms),
        most("refusals' p99, ms, below the accepted p50", found.refused_p99_ms, refusals),
        most("refusals without RetryInfo", found.refused_without_retry, 0),
        most("ended otherwise than answered, refused or shed", found.other, 0),
        most("growth of resident memory in the storm", found.rss_growth, RSS_GROWTH_MAX),
        most("p99 from a second after it over p99 before", _after(found), AFTER_RATIO_MAX),
    ]
    return [*(promised if name == "conv" else ()), most("lag p99, ms; more is void", found.lag_p99_ms, LAG_P99_MS_MAX)]


def _after(found: Overload) -> float:
    return _short(found.p99_after_ms / found.p99_before_ms) if found.p99_before_ms else float("inf")


def _due(shots: Shots, first: float, last: float) -> Shots:
    return shots.where((shots.due >= first) & (shots.due < last))


def _p(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], share: float) -> float:
    return _short(float(np.quantile(values, share, method="inverted_cdf"))) if len(values) else 0.0


def _short(value: float) -> float:
    return float(f"{value:.4g}")
