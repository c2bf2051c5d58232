"""What measuring adds up to, and whether that is what was promised. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import median

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One promise: what was found, what was promised, and whether it holds."""

    name: str
    value: float
    goal: str
    ok: bool


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of several rounds: the median, the least, the most."""

    median: float
    low: float
    high: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One promise, measured: ours and what it is measured against in `unit`, and in each round ours over the other.

    `limit` is the least that the ratio may be where `at_least`, else the most.
    """

    name: str
    unit: str
    ours: Spread
    other: Spread
    ratio: Spread
    limit: float
    at_least: bool


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` (in (0, 1]) of them do not exceed; 0.0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and most of at least one value, to four digits."""
    return Spread(median=_short(median(values)), low=_short(min(values)), high=_short(max(values)))


def figure(
    name: str, unit: str, rounds: Sequence[tuple[float, float]], *, limit: float, at_least: bool = False
) -> Figure:
    """Return the figure of `rounds`, each what ours and the other (> 0) took or reached, one after the other."""
    return Figure(
        name=name,
        unit=unit,
        ours=spread([ours for ours, _ in rounds]),
        other=spread([other for _, other in rounds]),
        ratio=spread([ours / other for ours, other in rounds]),
        limit=limit,
        at_least=at_least,
    )


def check(figure: Figure) -> Check:
    """Return whether the median of a figure's ratios is what was promised."""
    value, limit = figure.ratio.median, figure.limit
    sign = ">=" if figure.at_least else "<="
    return Check(
        name=figure.name,
        value=value,
        goal=f"{sign} {limit:g}",
        ok=value >= limit if figure.at_least else value <= limit,
    )


def check_most(name: str, value: float, most: float) -> Check:
    """Return whether `value` is at most `most`."""
    return Check(name=name, value=_short(value), goal=f"<= {most:g}", ok=value <= most)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
