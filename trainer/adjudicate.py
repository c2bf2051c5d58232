"""What counts as the truth of a request, and how far the people who say so can be trusted.

Theory of operation. Only blind reviews count. One person is enough where they and every version under certification
say the same; where one disagrees, two more people decide, and so they do for a tenth of the agreements, chosen by a
hash of the request that nobody can foresee. What a majority of these three says is the truth; without a majority there
is none, and every version counts as wrong.

The rule leans one way: a wrong answer that the first reviewer shares is never doubted, but for the tenth. What the
tenth finds is an estimate of that miss, with a bound. The other way round, a first reviewer who errs makes a right
answer look wrong unless both others put it right: of reviewers who err at rate g, independently and at worst alike,
g (1 - (1 - g)^2) of the right answers look wrong, and in the tenth g^2 (1 - g) more. Where that alone is alpha or
more, no number of audits certifies anything, and the certificate says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import eq
from typing import Final

from scipy.stats import beta

from fallback.errors import InvalidError
from gateway.policy import draw
from gateway.promise import false_error
from gateway.samples import AGREEMENT_SHARE, agreement_epoch

PANEL: Final = 3
_CONFIDENCE: Final = 0.95

# By a task's rule, whether two answers (canonical JSON) say the same; for labels: whether they are equal.
Same = Callable[[str, str], bool]


class Reach(StrEnum):
    """Whether reviewers are good enough for alpha: surely, perhaps (more gold items would tell), surely not."""

    REACHABLE = "reachable"
    DOUBTFUL = "doubtful"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`count` of `total`, the estimate, and bounds that each hold with 95 % confidence (Clopper and Pearson)."""

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise InvalidError(f"share: expected a count from 0 to {self.total}, got {self.count}")

    @property
    def estimate(self) -> float:
        """Zero where there is nothing to go by."""
        return self.count / self.total if self.total else 0.0

    @property
    def lower(self) -> float:
        """At least this, probably."""
        return float(beta.ppf(1 - _CONFIDENCE, self.count, self.total - self.count + 1)) if self.count else 0.0

    @property
    def upper(self) -> float:
        """At most this, probably."""
        if self.count == self.total:
            return 1.0
        return float(beta.ppf(_CONFIDENCE, self.count + 1, self.total - self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewers:
    """What gold items say: a single reviewer's error, the share of right answers that will look wrong, the verdict."""

    error: Share
    false_error: float
    reach: Reach
    advice: str


def panel_due(
    secret: bytes, *, model: str, epoch: str, request_key: str, first: str, predictions: Iterable[str], same: Same = eq
) -> bool:
    """Return whether two more people decide: a version disagrees with the first one, or the hash chose an agreement."""
    if not all(same(first, prediction) for prediction in predictions):
        return True
    return panel_drawn(secret, model=model, epoch=epoch, request_key=request_key)


def panel_drawn(secret: bytes, *, model: str, epoch: str, request_key: str) -> bool:
    """Return whether the hash chose this request for three people whatever the first one says."""
    return draw(secret, model=model, epoch=agreement_epoch(epoch), request_key=request_key) < AGREEMENT_SHARE


def truth(blind: Sequence[str | None], *, same: Same = eq) -> str | None:
    """Return what one blind review, or the majority of three, says; None: they cannot tell, or all say another thing.

    Raises InvalidError for another number of reviews.
    """
    if len(blind) not in {1, PANEL}:
        raise InvalidError(f"reviews: expected 1 or {PANEL} blind ones, got {len(blind)}")
    if len(blind) == 1:
        return blind[0]
    given = [answer for answer in blind if answer is not None]
    return next((answer for answer in given if sum(same(answer, other) for other in given) * 2 > PANEL), None)


def wrong(truth: str | None, predictions: dict[str, str], *, same: Same = eq) -> tuple[str, ...]:
    """Return the versions whose prediction (by version) was not the truth, in order: all where there is none."""
    return tuple(sorted(version for version, said in predictions.items() if truth is None or not same(truth, said)))


def estimate_miss(overturned: Iterable[bool]) -> Share:
    """Return how often reviewer and model agreed on what was wrong; one flag for each agreement the hash chose."""
    flags = list(overturned)
    return Share(count=sum(flags), total=len(flags))


def judge_reviewers(gold: Share, *, alpha: float, true_error: float = 0.0) -> Reviewers:
    """Return whether reviewers who got `gold.count` of `gold.total` gold items wrong can prove `alpha`.

    `true_error` is what is known of the model's own error at the wanted coverage.
    """
    room = alpha - true_error
    seen = false_error(gold.estimate)
    shown = f"reviewers get {gold.estimate:.1%} of gold items wrong, which makes {seen:.2%} of right answers look wrong"
    if false_error(gold.lower) >= room:
        reach, advice = Reach.UNREACHABLE, f"{shown}: alpha {alpha:.2%} cannot be proved; train them, or raise alpha"
    elif false_error(gold.upper) >= room:
        reach, advice = (
            Reach.DOUBTFUL,
            f"{shown}: too few answers ({gold.total}) to be sure that alpha {alpha:.2%} is in reach: add gold items",
        )
    else:
        reach, advice = Reach.REACHABLE, shown
    return Reviewers(error=gold, false_error=seen, reach=reach, advice=advice)
