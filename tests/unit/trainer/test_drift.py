from __future__ import annotations

import numpy as np
import pytest

from fallback.errors import InvalidError
from trainer.drift import (
    STAKES,
    alarmed,
    calm,
    histogram_changed,
    raised_share,
    renew_second,
    watch,
)


def test_it_is_the_formula() -> None:
    """M <- max(M, 1) (1 + stake (p / alpha) X), averaged over the stakes."""
    rng = np.random.default_rng(1)
    weight, error = rng.choice([0.25, 1.0], 200), (rng.random(200) < 0.1).astype(np.float64)
    levels, highest = [1.0] * len(STAKES), 1.0
    for p_over_q, wrong in zip(weight, error, strict=True):
        levels = [
            max(level, 1) * (1 + stake / 0.05 * p_over_q * (wrong - 0.05))
            for level, stake in zip(levels, STAKES, strict=True)
        ]
        highest = max(highest, sum(levels) / len(levels))
    drift = watch(calm(), weight, error, 0.05)
    np.testing.assert_allclose(drift.levels, levels)
    assert float(drift.highest) == pytest.approx(highest)


def test_an_alarm_stays() -> None:
    """Nothing but errors raises it within a few audits; right answers afterwards do not take it back."""
    drift = watch(calm(), np.ones(8), np.ones(8), 0.01)
    assert alarmed(drift)
    assert alarmed(watch(drift, np.ones(500), np.zeros(500), 0.01))
    assert np.isfinite(watch(calm(), np.ones(500), np.ones(500), 0.001).levels).all()


def test_what_is_not_drawn_says_nothing() -> None:
    """Weight 0."""
    drift = watch(calm(), np.zeros(50), np.ones(50), 0.01)
    np.testing.assert_array_equal(drift.levels, calm().levels)


def test_a_change_of_confidences_is_seen_and_chance_is_not() -> None:
    """20 bins, 2,000 requests: another mean is seen, the same distribution is not, in 300 looks."""
    rng = np.random.default_rng(2)

    def bins(a: float) -> list[int]:
        return [int(number) for number in np.histogram(rng.beta(a, 1, 2_000), 20, (0, 1))[0]]

    assert histogram_changed(bins(5), bins(4)) < 1e-4
    values = [histogram_changed(bins(5), bins(5)) for _ in range(300)]
    assert min(values) > 1e-4
    assert 0.01 < float(np.mean(np.array(values) < 0.05)) < 0.1


def test_it_only_ever_raises_the_audit_share() -> None:
    """A change raises it to what the operator allows, never lowers it; too few requests change nothing."""
    same, other = [100, 100, 100], [10, 100, 190]
    assert raised_share(0.1, same, same, raised=0.5) == 0.1
    assert raised_share(0.1, same, other, raised=0.5) == 0.5
    assert raised_share(0.7, same, other, raised=0.5) == 0.7
    assert raised_share(0.1, [1, 0, 0], [0, 0, 1], raised=0.5) == 0.1
    assert raised_share(0.1, [0, 0, 0], [0, 0, 0], raised=0.5) == 0.1
    with pytest.raises(InvalidError, match="bins"):
        histogram_changed([1], [1, 2])


def test_renewal_begins_in_time() -> None:
    """Twice the time that the audits take, before the end."""
    assert renew_second(expire_second=10_000, audits=869, audits_per_second=1.0) == 10_000 - 1_738
    with pytest.raises(InvalidError, match="audits_per_second"):
        renew_second(expire_second=10_000, audits=869, audits_per_second=0.0)
