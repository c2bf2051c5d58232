"""The search for the highest rate that keeps a bound, as values: what is tried next, and what was learnt. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from benchmarks.serve.results import Run

Why = Literal["bound", "failures", "generator", "capacity"]
FIRST_SHARE: Final = 0.7
TRIES_MAX: Final = 8
# The search ends when what is kept and what is not are so near each other.
NEAR: Final = 1.05
# A rate that cannot be verified is lowered to this share, so often.
LOWER: Final = 0.85
VERIFICATIONS: Final = 5
ROUNDS_MAX: Final = 6


class Bounds(NamedTuple):
    """The highest rate that was kept, the lowest that was not, why, and how many were tried."""

    low: float
    high: float
    why: Why = "capacity"
    tries: int = 0


def following(bounds: Bounds) -> float | None:
    """Return the rate to try next; None where there is nothing more to learn."""
    if bounds.tries >= TRIES_MAX or (bounds.low and bounds.high / bounds.low <= NEAR):
        return None
    if not bounds.tries:
        return FIRST_SHARE * bounds.high
    return (bounds.low + bounds.high) / 2


def learnt(bounds: Bounds, rate: float, fault: Why | None) -> Bounds:
    """Return the bounds after `rate` was tried; `fault`: why it does not count, None where it does."""
    if fault is None:
        return bounds._replace(low=rate, tries=bounds.tries + 1)
    return Bounds(bounds.low, rate, fault, bounds.tries + 1)


def fault(run: Run, bound_ms: float) -> Why | None:
    """Return why an open loop does not keep the bound; None where it does."""
    if run.void:
        return "generator"
    if run.failed:
        return "failures"
    return None if run.latency.p99_ms <= bound_ms else "bound"
