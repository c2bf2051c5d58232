"""What a rule said of a row, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said of one row, and how it was evaluated, e.g. "confidence 0.62 < 0.90"."""

    rule: str
    defers: bool
    evaluation: str


def compared(value: float, bound: float, *, what: str = "") -> tuple[bool, str]:
    """Return whether `value` is below `bound`, as what is no number is, and both with as few digits as tell them apart.

    At least two; `what` is said before the bound.
    """
    below = not value >= bound
    for digits in range(2, 17):
        shown = f"{value:.{digits}f}", f"{bound:.{digits}f}"
        if shown[0] != shown[1]:
            break
    else:
        shown = f"{value:.2f}", f"{bound:.2f}"
    return below, f"{shown[0]} {'<' if below else '>='} {what}{shown[1]}"
