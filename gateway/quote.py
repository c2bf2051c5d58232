"""What a certificate will cost before anybody pays for it: audits, days, people's hours.

Theory of operation. With a fixed audit share every audit multiplies a stake's product by one of two numbers: 1 + stake
alpha / (1 - alpha) for a right answer, 1 - stake for a wrong one. So K after n audits with e errors is one number, and
for every e there is a least n(e) at which K reaches 1 / delta. Certification is the first time the count of errors, a
sum of coins of the true error rate, stands at no more than e after n(e) audits. It can only come at such an n: between
two of them nothing can be reached. Going from n(0) to n(1), n(2), ... with the exact distribution of the errors of all
that are not there yet gives the exact distribution of the number of audits; no simulation, no asymptotics. (The usual
ln(1 / delta) / KL is the growth of the best single stake, chosen by one who knows the error rate; at few errors it is
far too rosy.) The same walk from a process under way says how many audits it still needs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import log, log1p, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError, StateError
from gateway.certification import Standing
from gateway.policy import EXPIRE_DAYS_MAX, REVIEWS_PER_HOUR_MAX, Policy
from gateway.promise import (
    COVERAGE_MIN,
    HEAD_COVERAGES,
    STAKES,
    Promise,
    delta_of_coverage,
    false_error,
    lifetime_delta,
)
from gateway.samples import AGREEMENT_SHARE

AUDITS_MAX: Final = 200_000
# The walk takes time with the square of the errors; so many take a quarter of a second.
_ERRORS_MAX: Final = 2_500
# Kernels of a binomial are cut where what is left out cannot move a median.
_TAIL: Final = 1e-9
_DAY_HOURS: Final = 24.0
_ROUNDING: Final = 1e-9
# What there must be to plan by.
_KNOWN: Final = ("requests_per_hour", "coverage", "true_error", "model_error")
_PROMISED: Final = frozenset(Policy.__struct_fields__) - {
    "threshold",
    "class_thresholds",
    "always_person",
    "allow_model_wish",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What there is to decide and who is there to decide it.

    `coverage` in (0, 1] is the share of requests that the wanted threshold lets through, `true_error` the share of
    wrong ones among these, `model_error` the one among all. Before there is a certificate a share `blind_before` of
    what is at or above the threshold is reviewed: 1 where everything goes to people, the audit share where the
    operator's own threshold answers. `reviewer_error` is a single reviewer's, from gold items.
    """

    requests_per_hour: float
    coverage: float
    true_error: float
    model_error: float
    blind_before: float = 1.0
    review_seconds: float = 10.0
    reviewer_error: float = 0.0

    def __post_init__(self) -> None:
        for name in ("true_error", "model_error", "reviewer_error"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("coverage", "blind_before"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidError(f"{name}: expected a share in (0, 1], got {getattr(self, name)}")
        for name in ("requests_per_hour", "review_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidError(f"{name}: expected a number above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What somebody says of the work, see `Work`; None: what the evidence says counts."""

    requests_per_hour: float | None = None
    coverage: float | None = None
    true_error: float | None = None
    model_error: float | None = None
    review_seconds: float | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """What only evidence could say."""
        return tuple(name for name in _KNOWN if getattr(self, name) is None)

    def over(self, known: Work | None) -> Work | None:
        """Return the work as it was said, the rest as `known`; None where something is missing that nobody knows.

        Raises InvalidError for what is out of range, or cannot be together.
        """
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said = {name: value for name, value in said.items() if value is not None}
        if known is None and self.missing:
            return None
        work = Work(**said) if known is None else replace(known, **said)
        wrong = work.coverage * work.true_error
        # What the evidence alone says is estimated, each number by itself.
        if wrong > work.model_error * (1 + _ROUNDING) and said.keys() & {"coverage", "true_error", "model_error"}:
            raise InvalidError(
                f"true_error: {work.true_error:g} of the answered {work.coverage:g} are {wrong:.4g} of all requests, "
                f"but model_error says that {work.model_error:g} of all are wrong"
            )
        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What to expect: half of all cases need at most `audits`, nine of ten at most `audits_high`.

    `requests`, `days` and `person_hours` go with `audits`; `seen_error` is the error rate that audits will show, the
    true one and what reviewers get wrong. All but that are None where more than `audits_most` would be needed.
    """

    seen_error: float
    audits: int | None
    audits_high: int | None
    requests: int | None
    days: float | None
    person_hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A policy's promise, checked against what it needs: `problems` are sentences, each with its way out.

    Reviews an hour: `before` a certificate and `after`, counting two more people where one is not enough.
    """

    work: Work
    quote: Quote
    reviews_per_hour_before: float
    reviews_per_hour_after: float
    problems: tuple[str, ...]


def boundary(promise: Promise, logs: NDArray[np.float64] | None = None, *, errors: int = 1_000) -> NDArray[np.int64]:
    """Return n(e) for e = 0 to `errors` - 1: the least number of further audits, e of them wrong, that certifies.

    `logs` (stakes) is where the process stands; None: at its beginning. Certified already: n(0) is 0.
    """
    stakes = np.array(STAKES)
    start = np.zeros(len(stakes)) if logs is None else logs
    right, wrong = np.log1p(stakes * promise.alpha / (1 - promise.alpha)), np.log1p(-stakes)
    count = np.arange(errors)
    base = start + count[:, np.newaxis] * wrong
    low, high = np.zeros(errors), np.full(errors, float(2**40))
    # Halving: K rises with every right answer. Sixty times are enough to tell whole numbers apart.
    for _ in range(60):
        middle = (low + high) / 2
        reached = np.logaddexp.reduce(base + middle[:, np.newaxis] * right, axis=1) >= log(len(stakes) / promise.delta)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return count + np.ceil(high - 1e-6).astype(np.int64)


def audits_most(promise: Promise) -> int:
    """Return beyond how many audits nobody looks ahead."""
    return min(AUDITS_MAX, int(_ERRORS_MAX / promise.alpha))


def audits_needed(
    promise: Promise,
    error: float,
    *,
    shares: tuple[float, ...] = (0.5,),
    logs: NDArray[np.float64] | None = None,
    audits_max: int | None = None,
) -> tuple[int | None, ...]:
    """Return by how many audits a share of all cases is certified, for each of rising `shares`; None: never, or late.

    `error` in [0, 1) is the share of wrong answers that audits will show; late is after `audits_max`, or `audits_most`.
    """
    audits_max = audits_max or audits_most(promise)
    found: list[int | None] = []
    certified, waiting = 0.0, np.ones(1)
    numbers = boundary(promise, logs, errors=int(audits_max * promise.alpha) + 10)
    if not numbers[0]:
        return (0,) * len(shares)
    for before, number in pairwise([0, *numbers.tolist()]):
        if len(found) == len(shares) or number > audits_max:
            break
        waiting = np.convolve(waiting, _binomial(number - before, error))
        # Place 0 of those still waiting: as many errors as this boundary allows. They are through.
        certified += float(waiting[0])
        waiting = waiting[1:] if len(waiting) > 1 else np.zeros(1)
        while len(found) < len(shares) and certified >= shares[len(found)]:
            found.append(number)
    return (*found, *[None] * (len(shares) - len(found)))


def known_work(standing: Standing, alpha: float) -> Work | None:
    """Return what there is to decide, as the evidence says, were `alpha` to be promised; None where it says nothing.

    The wanted threshold is the loosest that is thought to have at most half of alpha wrong.
    """
    if not standing.risks or not standing.requests_per_hour:
        return None
    wanted = [risk for risk in standing.risks if risk[1] <= alpha / 2] or standing.risks[:1]
    coverage, true_error = wanted[-1]
    if not coverage:
        return None
    return Work(
        requests_per_hour=standing.requests_per_hour,
        coverage=coverage,
        true_error=true_error,
        model_error=standing.risks[-1][1],
        reviewer_error=standing.reviewer_error or 0.0,
    )


def plan(policy: Policy, said: Said, standing: Standing | None) -> Plan | None:
    """Return what the promise of `policy` costs; None where it makes none, or nobody knows what there is to do.

    Raises InvalidError where something was said of the work, and not enough.
    """
    if policy.alpha is None:
        return None
    work = said.over(None if standing is None else known_work(standing, policy.alpha))
    if work is not None:
        return check_plan(policy, policy.alpha, work, number=1 if standing is None else standing.processes + 1)
    if len(said.missing) < len(_KNOWN):
        raise InvalidError(f"work: nothing is known of it yet, so say all of it: {', '.join(said.missing)}")
    return None


def check_problems(found: Plan, policy: Policy, before: Policy) -> None:
    """Raise StateError where `policy` promises something else than the policy `before` it, and its plan has problems.

    While the promise is the same, what else changes may be a way out of them.
    """
    if found.problems and any(getattr(policy, name) != getattr(before, name) for name in _PROMISED):
        raise StateError(
            f"policy: nothing was changed, since the promise has problems: {'; '.join(found.problems)}. "
            "accept_problems makes it all the same"
        )


def _binomial(trials: int, error: float) -> NDArray[np.float64]:
    """Return how likely 0, 1, 2, ... errors among `trials` are, as far as it can matter.

    Written out, since a gateway that imports SciPy for it starts more than half a second later.
    """
    if error <= 0:
        return np.ones(1)
    mean = trials * error
    most = min(trials, int(mean + 10 * sqrt(mean) + 40))
    count = np.arange(most)
    steps = np.log((trials - count) / (count + 1)) + log(error) - log1p(-error)
    shares: NDArray[np.float64] = np.exp(trials * log1p(-error) + np.concatenate(([0.0], np.cumsum(steps))))
    return shares[: int(np.searchsorted(np.cumsum(shares), 1 - _TAIL)) + 1]


def quote(promise: Promise, work: Work) -> Quote:
    """Return what a certificate costs, for a threshold whose answers are wrong at `work.true_error`."""
    seen = min(1.0, work.true_error + (1 - work.true_error) * false_error(work.reviewer_error))
    level, audits, high = delta_of_coverage(promise.delta, work.coverage), None, None
    if level > 0 and seen < promise.alpha:
        audits, high = audits_needed(replace(promise, delta=level), seen, shares=(0.5, 0.9))
    if audits is None:
        return Quote(seen_error=seen, audits=None, audits_high=None, requests=None, days=None, person_hours=None)
    requests = audits / (work.coverage * work.blind_before)
    hours = requests / work.requests_per_hour
    return Quote(
        seen_error=seen,
        audits=audits,
        audits_high=high,
        requests=round(requests),
        days=hours / _DAY_HOURS,
        person_hours=hours * _reviews_per_hour(work, work.blind_before) * work.review_seconds / 3600,
    )


def check_plan(policy: Policy, alpha: float, work: Work, *, number: int = 1) -> Plan:
    """Return what it costs to promise `alpha` by `policy`, and whether its parts fit, before anything changes.

    `number` is that of the model's next process, counted from 1. Raises InvalidError for what is out of range.
    """
    _check_ranges(policy)
    audit_share, expire_days, most = policy.audit_share, policy.expire_days, policy.reviews_per_hour_max
    promise = Promise(alpha=alpha, delta=lifetime_delta(policy.delta, number) if policy.lifetime else policy.delta)
    if policy.until_proved == "answer":
        work = replace(work, blind_before=audit_share)
    offer = quote(promise, work)
    before, after = _reviews_per_hour(work, work.blind_before), _reviews_per_hour(work, audit_share)
    problems = []
    if offer.audits is None:
        problems.append(_unreachable(promise, work, offer.seen_error))
    else:
        renewal = offer.audits / (work.coverage * audit_share * work.requests_per_hour) / _DAY_HOURS
        if renewal > expire_days:
            problems.append(
                f"expire_days {expire_days:g}: with audit_share {audit_share:g} the next certificate needs "
                f"{renewal:.1f} days; let it live longer, or audit more"
            )
    for when, needed in (("until there is a certificate", before), ("under the certificate", after)):
        if most is not None and needed > most:
            problem = (
                f"reviews_per_hour_max {most:g}: {when} about {needed:.0f} reviews an hour come; "
                f"labels that come too late count as errors, so have more reviewers or send fewer requests"
            )
            if needed == before and work.blind_before > audit_share:
                problem += ", or let your own threshold answer until then, uncertified: --until-proved answer"
            problems.append(problem)
    return Plan(
        work=work,
        quote=offer,
        reviews_per_hour_before=before,
        reviews_per_hour_after=after,
        problems=tuple(problems),
    )


def _check_ranges(policy: Policy) -> None:
    """Raise InvalidError for what is out of range, and name it."""
    if not 0 < policy.audit_share <= 1:
        raise InvalidError(
            f"audit_share: expected a share in (0, 1], got {policy.audit_share}; without audits nothing is proved"
        )
    for name, value, greatest in (
        ("expire_days", policy.expire_days, EXPIRE_DAYS_MAX),
        ("reviews_per_hour_max", policy.reviews_per_hour_max, REVIEWS_PER_HOUR_MAX),
    ):
        if value is not None and not 0 < value <= greatest:
            raise InvalidError(f"{name}: expected a number above 0 and at most {greatest}, got {value:g}")


def sentences(plan: Plan) -> list[str]:
    """Return a plan in words, but for its problems."""
    work, offer = plan.work, plan.quote
    answered = f"{work.coverage:.0%} would be answered, {work.true_error:.2%} of these wrong"
    said = [f"planned by {work.requests_per_hour:.0f} requests an hour, of which {answered}"]
    if offer.audits is not None:
        high = "" if offer.audits_high is None else f", nine times of ten at most {offer.audits_high}"
        said.append(
            f"about {offer.audits} audits{high}: {offer.requests} requests, {offer.days:.1f} days, "
            f"{offer.person_hours:.1f} hours of people"
        )
    before, after = plan.reviews_per_hour_before, plan.reviews_per_hour_after
    return [*said, f"reviews an hour: {before:.0f} until it is proved, {after:.0f} after"]


def _unreachable(promise: Promise, work: Work, seen: float) -> str:
    if work.coverage < COVERAGE_MIN:
        return (
            f"coverage {work.coverage:g}: the strictest threshold that is tried lets {HEAD_COVERAGES[0]:.0%} of the "
            "requests through, and nothing is proved of fewer; have a better model, or raise alpha"
        )
    most = audits_most(promise)
    said = f"alpha {promise.alpha:g} cannot be proved within {most} audits: they will show {seen:.4f} wrong"
    if work.true_error < promise.alpha <= seen:
        return (
            f"{said}, of which reviewers' own errors are {seen - work.true_error:.4f}; raise alpha or train reviewers"
        )
    return f"{said}; raise alpha, or ask for less coverage"


def _reviews_per_hour(work: Work, blind: float) -> float:
    """Return the reviews an hour when a share `blind` of what is at or above the threshold goes to people too."""
    asked = 1 - work.coverage * (1 - blind)
    disagree = min(1.0, work.model_error + work.reviewer_error)
    return work.requests_per_hour * asked * (1 + 2 * (disagree + AGREEMENT_SHARE * (1 - disagree)))
