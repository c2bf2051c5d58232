"""What is promised of automatic answers, the bets that test it, and what people's own errors make of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Final

from fallback.errors import InvalidError
from gateway.samples import AGREEMENT_SHARE

# Kappa in the mathematics: small stakes win where nearly alpha is wrong, large ones where almost nothing is.
STAKES: Final = (0.1, 0.25, 0.45, 0.65, 0.8, 0.92)
# What a promise may say; more than a half wrong is none.
RISK_MAX: Final = 0.5
# Thresholds are tried by the share of requests that they let through: from `WALK_COVERAGE` on in a walk that has nearly
# all of delta. At the stricter ones few audits come; each has a little of delta to itself, for models that are sure of
# less: without it nothing would ever be proved of those. It costs others few audits, unless one is sure of a part and
# wrong in the next.
WALK_COVERAGE: Final = 0.4
HEAD_COVERAGES: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
HEAD_SHARE: Final = 0.05
# Coverage is measured on what came lately: that of a threshold is a little more or less than what it was chosen for.
COVERAGE_MIN: Final = 0.8 * HEAD_COVERAGES[0]
_NEARLY: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """At most `alpha` of the automatic answers wrong, with confidence 1 - `delta`; both in (0, 1/2]."""

    alpha: float
    delta: float = 0.05

    def __post_init__(self) -> None:
        for field, value in (("alpha", self.alpha), ("delta", self.delta)):
            if not 0 < value <= RISK_MAX:
                raise InvalidError(f"{field}: expected a share above 0 and at most {RISK_MAX}, got {value}")


def false_error(reviewer_error: float) -> float:
    """Return the share of right answers that look wrong, where each reviewer errs at `reviewer_error` in [0, 1].

    Two more people look where the first one disagrees with the model, and at a tenth of the agreements.
    """
    g = reviewer_error
    return g * (1 - (1 - g) ** 2) + AGREEMENT_SHARE * (1 - g) * g**2


def lifetime_delta(delta: float, number: int) -> float:
    """Return the delta of the `number`-th process, counted from 1; over all that ever come these add up to `delta`."""
    if number < 1:
        raise InvalidError(f"number: expected 1 or more, got {number}")
    return 6 * delta / (pi**2 * number**2)


def delta_of_coverage(delta: float, coverage: float) -> float:
    """Return what of `delta` a threshold that lets a share `coverage` through is proved with; 0: none is so strict.

    More where a stricter one is proved already.
    """
    if coverage >= _NEARLY * WALK_COVERAGE:
        return delta * (1 - HEAD_SHARE)
    return delta * HEAD_SHARE / len(HEAD_COVERAGES) if coverage >= COVERAGE_MIN else 0.0
