"""Whether the promise is kept: 1,000 runs each, of which delta = 5 % may break it; 63 is two standard errors more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from gateway.promise import HEAD_COVERAGES, WALK_COVERAGE, Promise
from tests.statistics.simulation import Bands, Floats, report, simulate, violations
from trainer.certificate import Evidence, advance, begin, grid, walk

RUNS, REQUESTS, VIOLATIONS_MAX = 1_000, 4_000, 63
# Five seconds each on an idle core; a busy machine is no finding.
pytestmark = pytest.mark.timeout(600)
PROMISE = Promise(alpha=0.05, delta=0.05)
TEMPTING = Bands(coverage=np.linspace(0.3, 1.0, 15), risk=PROMISE.alpha * np.array([0.4] * 3 + [1.02] * 12))
AT_ALPHA = Bands(coverage=np.array([1.0]), risk=np.array([PROMISE.alpha]))


@pytest.mark.parametrize("audit_share", [0.1, 0.3, 1.0])
def test_thresholds_that_are_a_little_too_loose_are_not_certified(audit_share: float) -> None:
    """Three safe thresholds, then twelve at 1.02 alpha: few runs certify one of the twelve, most the three."""
    rng = np.random.default_rng(41)
    confidence, error = TEMPTING.stream(rng, RUNS, REQUESTS)
    end = simulate(confidence, error, TEMPTING.thresholds, PROMISE, rng, audit_share=audit_share)
    broken = violations(end.state, TEMPTING.risk, PROMISE)
    safe = float((end.in_force[:, -1] >= 3).mean())
    report(f"audit share {audit_share}: {broken} of {RUNS} violate; the three safe ones certified in {safe:.3f}")
    assert broken <= VIOLATIONS_MAX
    assert safe > 0.5


_COVERAGE = np.concatenate([HEAD_COVERAGES, np.linspace(WALK_COVERAGE, 1.0, 20)])
_NEVER = PROMISE.alpha * np.full(27, 1.02)


@pytest.mark.parametrize(
    ("risk", "audit_share"),
    [
        (_NEVER, 1.0),
        (_NEVER, 0.1),
        # Bad at the strictest, then good, then bad again: what is lost at the strictest is not there behind them.
        (PROMISE.alpha * np.where((_COVERAGE > 0.1) & (_COVERAGE < 0.4), 0.02 + 0.1 / _COVERAGE, 1.02), 0.3),
        # Good as far as the walk's beginning, then bad: all of delta is there for the first bad one.
        (PROMISE.alpha * np.array([0.4] * 8 + [1.02] * 19), 0.3),
    ],
)
def test_a_walk_from_several_places_certifies_nothing_that_is_too_loose(risk: Floats, audit_share: float) -> None:
    """The grid of the running system, whatever is good and bad in it: delta is for all of its beginnings together."""
    bands, rng = Bands(coverage=_COVERAGE, risk=risk), np.random.default_rng(47)
    shares = grid(np.linspace(0, 1, 1_000)).shares
    confidence, error = bands.stream(rng, RUNS, REQUESTS)
    end = simulate(confidence, error, bands.thresholds, PROMISE, rng, audit_share=audit_share, shares=shares)
    held, _ = walk(end.state, PROMISE.delta, shares)
    broken = int((held & (risk > PROMISE.alpha)).any(axis=1).sum())
    report(f"shares of delta, audit share {audit_share}: {broken} of {RUNS} violate")
    assert broken <= VIOLATIONS_MAX


def test_a_model_that_is_sure_of_little_is_certified_for_that() -> None:
    """Three in ten right, the others wrong too often: nothing could be proved of a walk from 40 % on."""
    risk = (0.001 * np.minimum(_COVERAGE, 0.3) + 0.4 * np.maximum(_COVERAGE - 0.3, 0)) / _COVERAGE
    bands, rng = Bands(coverage=_COVERAGE, risk=risk), np.random.default_rng(48)
    confidence, error = bands.stream(rng, 100, REQUESTS)
    shares = grid(np.linspace(0, 1, 1_000)).shares
    told = simulate(confidence, error, bands.thresholds, PROMISE, rng, audit_share=0.3, shares=shares)
    before = simulate(confidence, error, bands.thresholds[7:], PROMISE, rng, audit_share=0.3)
    found = np.concatenate([[0.0], _COVERAGE])[told.in_force[:, -1]]
    report(f"sure of 30 %: coverage {found.mean():.3f}, of a walk from 40 % on {before.in_force[:, -1].mean():.3f}")
    assert (found >= 0.25).mean() > 0.9
    assert before.in_force[:, -1].max() == 0


def _at_alpha(seed: int) -> tuple[Floats, Floats]:
    return AT_ALPHA.stream(np.random.default_rng(seed), RUNS, REQUESTS)


@pytest.mark.parametrize("audit_share", [0.1, 0.3, 1.0])
def test_a_threshold_at_exactly_alpha_is_not_certified(audit_share: float) -> None:
    """The hardest case there is, counted as a violation; the operator's own threshold answers meanwhile."""
    confidence, error = _at_alpha(42)
    rng = np.random.default_rng(43)
    end = simulate(
        confidence, error, AT_ALPHA.thresholds, PROMISE, rng, audit_share=audit_share, blind_share=audit_share
    )
    broken = violations(end.state, AT_ALPHA.risk, PROMISE, from_alpha_on=True)
    report(f"exactly alpha, audit share {audit_share}: {broken} of {RUNS} violate")
    assert broken <= VIOLATIONS_MAX


def test_this_check_catches_a_fixed_sample_bound_that_is_looked_at_again_and_again() -> None:
    """Clopper and Pearson's bound after every label is no guarantee."""
    _, error = _at_alpha(42)
    numbers, wrong = np.arange(1, REQUESTS + 1), np.cumsum(error, axis=1)
    # The bound is below alpha where so few errors have a chance below delta at alpha.
    allowed = binom.ppf(PROMISE.delta, numbers, PROMISE.alpha) - 1
    broken = int((wrong <= allowed).any(axis=1).sum())
    report(f"Clopper-Pearson, peeking: {broken} of {RUNS} violate")
    assert broken > 2 * VIOLATIONS_MAX


def test_this_check_catches_who_ignores_how_probable_a_review_was() -> None:
    """Where few of the doubtful requests are reviewed blind, an unweighted count is too rosy; a weighted one is not."""
    rng = np.random.default_rng(44)
    confidence, error = TEMPTING.stream(rng, RUNS, REQUESTS)
    broken = {}
    for ignore_q in (False, True):
        end = simulate(
            confidence,
            error,
            TEMPTING.thresholds[2::4],
            PROMISE,
            np.random.default_rng(45),
            audit_share=1.0,
            blind_share=0.3,
            ignore_q=ignore_q,
        )
        broken[ignore_q] = violations(end.state, TEMPTING.risk[2::4], PROMISE)
    report(f"blind share .3 below tau: {broken[False]} of {RUNS} violate; q ignored: {broken[True]}")
    assert broken[False] <= VIOLATIONS_MAX
    assert broken[True] > 2 * VIOLATIONS_MAX


def test_this_check_catches_labels_counted_as_they_come() -> None:
    """Where errors take people ten times longer, the first labels are too good, and the guarantee is gone."""
    rng = np.random.default_rng(46)
    confidence, error = _at_alpha(42)
    arrival = np.arange(REQUESTS) + rng.exponential(100, error.shape) * np.where(error, 10, 1)
    order = np.argsort(arrival, axis=1)
    late = Evidence(confidence=confidence, weight=np.ones(error.shape), error=np.take_along_axis(error, order, axis=1))
    broken = violations(
        advance(begin(1, (RUNS,)), late, AT_ALPHA.thresholds, PROMISE.alpha), AT_ALPHA.risk, PROMISE, from_alpha_on=True
    )
    report(f"labels in the order of their arrival: {broken} of {RUNS} violate")
    assert broken > RUNS // 2
