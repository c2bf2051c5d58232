"""Open-loop load: when each request is due is drawn beforehand, and latency counts from then, sent late or not.

A caller that waits for a reply before it sends again hides the very stalls that matter (coordinated omission), so no
request here waits for another. A generator that cannot keep its own times measures itself: such a run is void.
Source: G. Tene, "How NOT to Measure Latency"; Poisson arrivals as from many independent clients.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from benchmarks.figures import Check, percentile

LAG_P99_MS_MAX = 10.0
ACHIEVED_SHARE_MIN = 0.95


class Shot(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request: when it was due (seconds from the start), sent that much late, done that long after it was due."""

    due_seconds: float
    lag_ms: float
    latency_ms: float
    failed: bool


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return when requests are due within `seconds` (> 0) at `rate` a second on average, as a Poisson process."""
    draw, due, times = random.Random(seed), 0.0, []  # noqa: S311 - a schedule, not a secret
    while (due := due + draw.expovariate(rate)) < seconds:
        times.append(due)
    return times


def judge(shots: Sequence[Shot], *, seconds: float) -> list[Check]:
    """Return whether the run may be believed (the generator kept its times) and whether all requests came back."""
    failed = sum(shot.failed for shot in shots)
    lag = percentile([shot.lag_ms for shot in shots], 0.99)
    offered = len(shots) / seconds
    share = achieved(shots, seconds) / offered if offered else 0.0
    return [
        Check(name="failed requests", value=failed, goal="= 0", ok=failed == 0),
        Check(
            name="generator's lag p99, ms; more makes the run void",
            value=round(lag, 3),
            goal=f"<= {LAG_P99_MS_MAX:g}",
            ok=lag <= LAG_P99_MS_MAX,
        ),
        Check(
            name="achieved rate over the offered one",
            value=round(share, 4),
            goal=f">= {ACHIEVED_SHARE_MIN:g}",
            ok=share >= ACHIEVED_SHARE_MIN,
        ),
    ]


def achieved(shots: Sequence[Shot], seconds: float) -> float:
    """Return the requests a second that came back, over the time from the start to the last reply."""
    done = [shot for shot in shots if not shot.failed]
    last = max((shot.due_seconds + shot.latency_ms / 1000 for shot in done), default=0.0)
    return len(done) / max(seconds, last)


def summary(shots: Sequence[Shot], *, rate: float, seconds: float, facts: dict[str, object]) -> dict[str, object]:
    """Return the object that `--json` prints.

    Latencies are of requests that came back, from when they were due; `rate` is the mean that was asked for,
    `offered_rate` what was drawn.
    """
    latencies = [shot.latency_ms for shot in shots if not shot.failed]
    checks = judge(shots, seconds=seconds)
    return {
        "requests": len(shots),
        "failed_requests": sum(shot.failed for shot in shots),
        "rate": rate,
        "offered_rate": round(len(shots) / seconds, 2),
        "achieved_rate": round(achieved(shots, seconds), 2),
        "p50_ms": round(percentile(latencies, 0.50), 3),
        "p99_ms": round(percentile(latencies, 0.99), 3),
        "p999_ms": round(percentile(latencies, 0.999), 3),
        "lag_p99_ms": round(percentile([shot.lag_ms for shot in shots], 0.99), 3),
        "void": not all(check.ok for check in checks[1:]),
        **facts,
        "checks": [msgspec.to_builtins(check) for check in checks],
        "ok": all(check.ok for check in checks),
    }
