"""How soon errors that set in are noticed, and how rarely nothing is."""

from __future__ import annotations

import numpy as np

from tests.statistics.simulation import report
from trainer.drift import Drift, alarmed, calm, watch

ALPHA, RUNS = 0.01, 2_000


def _first_alarm(drift: Drift, error: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.intp]:
    """Return after how many audits each run's alarm is reached; one more than there are for never."""
    first = np.full(len(error), error.shape[1] + 1)
    for audit in range(error.shape[1]):
        drift = watch(drift, np.ones((len(error), 1)), error[:, audit : audit + 1], ALPHA)
        first = np.where((first > audit + 1) & alarmed(drift), audit + 1, first)
    return first


def test_a_tenth_wrong_is_found_within_a_few_audits() -> None:
    """Alpha 1 %: after 500 quiet audits the error goes from .5 % to 10 %; half of the runs know within 45."""
    rng = np.random.default_rng(61)
    quiet = watch(calm((RUNS,)), np.ones((RUNS, 500)), (rng.random((RUNS, 500)) < 0.005).astype(np.float64), ALPHA)
    untouched = ~alarmed(quiet)
    after = Drift(levels=quiet.levels[untouched], highest=np.ones(int(untouched.sum())))
    first = _first_alarm(after, (rng.random((len(after.levels), 400)) < 0.1).astype(np.float64))
    report(f"drift from .5 % to 10 %: median {np.median(first):.0f} audits, 90 % {np.quantile(first, 0.9):.0f}")
    assert np.median(first) <= 45


def test_there_are_few_false_alarms() -> None:
    """At half of alpha, 1,000 audits raise the alarm in at most 4 % of the runs."""
    rng = np.random.default_rng(62)
    error = (rng.random((RUNS, 1_000)) < ALPHA / 2).astype(np.float64)
    share = float(alarmed(watch(calm((RUNS,)), np.ones(error.shape), error, ALPHA)).mean())
    report(f"false alarms in 1,000 audits at alpha / 2: {share:.4f}")
    assert share <= 0.04


def test_at_exactly_alpha_an_alarm_takes_a_thousand_audits_on_average() -> None:
    """What the theory promises of the mean time to a false alarm; runs are cut at 6,000, which only lowers it."""
    rng = np.random.default_rng(63)
    first = _first_alarm(calm((400,)), (rng.random((400, 6_000)) < ALPHA).astype(np.float64))
    report(f"mean audits to a false alarm at alpha: at least {first.mean():.0f}")
    assert first.mean() >= 1_000
