from __future__ import annotations

import numpy as np
import pytest

from fallback.errors import InvalidError
from gateway.confidence import Scorer, score
from tests.statistics.simulation import report, scores_file
from trainer.selective import (
    calibration_error,
    coverage_at,
    measure_selective,
    oracle_coverage,
    risk_coverage,
)

SCORE = np.array([0.9, 0.8, 0.7, 0.6])
ERROR = np.array([0.0, 1.0, 0.0, 1.0])


def test_four_examples_by_hand() -> None:
    """Risk by coverage, and the figures made of it."""
    coverage, risk = risk_coverage(SCORE, ERROR)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    figures = measure_selective(SCORE, ERROR)
    assert figures.error == 0.5
    assert figures.aurc == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert figures.e_aurc == pytest.approx(figures.aurc - (1 / 3 + 1 / 2) / 4)
    assert figures.augrc == pytest.approx((0 + 1 + 1 + 2) / 4 / 4)
    assert np.isnan(figures.ece)


def test_the_best_order_has_no_excess() -> None:
    """All right ones first."""
    assert measure_selective(SCORE, np.array([0.0, 0.0, 1.0, 1.0])).e_aurc == 0


def test_ties_do_not_depend_on_the_order_of_examples() -> None:
    """Equal scores share their errors."""
    rng = np.random.default_rng(3)
    tied, error = np.round(rng.random(200), 1), (rng.random(200) < 0.3).astype(np.float64)
    order = rng.permutation(200)
    assert measure_selective(tied, error).aurc == pytest.approx(measure_selective(tied[order], error[order]).aurc)
    np.testing.assert_allclose(risk_coverage(np.ones(4), ERROR)[1], 0.5)


def test_calibration_by_hand() -> None:
    """Two bins: .9 and .8 of which half is right, .2 which is wrong."""
    found = calibration_error(np.array([0.9, 0.8, 0.2]), np.array([0.0, 1.0, 1.0]), bins=2)
    assert found == pytest.approx((0.7 + 0.2) / 3)
    assert calibration_error(np.array([1.0]), np.array([0.0])) == 0


def test_coverage_of_a_threshold_and_of_the_oracle() -> None:
    """The oracle stops before the risk exceeds alpha, and lets equal scores through together or not at all."""
    assert coverage_at(SCORE, 0.7) == 0.75
    assert coverage_at(SCORE, None) == 0
    assert oracle_coverage(SCORE, ERROR, 0.34) == 0.75
    assert oracle_coverage(SCORE, ERROR, 0.0) == 0.25
    assert oracle_coverage(np.array([0.9, 0.9]), np.array([0.0, 1.0]), 0.1) == 0


def test_nothing_to_go_by_is_refused() -> None:
    """So are unequal numbers."""
    with pytest.raises(InvalidError, match="examples"):
        measure_selective(np.array([]), np.array([]))
    with pytest.raises(InvalidError, match="examples"):
        risk_coverage(SCORE, ERROR[:2])


def test_known_figures_of_cifar_10() -> None:
    """AURC x 1000 = 8.49 and .776 coverage for the oracle at 1 %, by the largest probability."""
    scores, labels = scores_file("cifar10_pyx.npy"), scores_file("cifar10_labels.npy")
    if scores is None or labels is None:
        pytest.skip("the CIFAR-10 scores (shared/data/cifar10_pyx.npy) are not beside this repository")
    probabilities, truth = np.load(scores), np.load(labels)
    for scorer in (Scorer.MAX_SOFTMAX, Scorer.MARGIN):
        found, predicted = score(probabilities, "none", scorer)
        error = (predicted != truth).astype(np.float64)
        figures = measure_selective(found, error, probabilities.max(axis=1).clip(0, 1))
        oracle = oracle_coverage(found, error, 0.01)
        report(f"CIFAR-10 by {scorer.value}: {figures}, oracle coverage at 1 % {oracle:.4f}")
        if scorer is Scorer.MAX_SOFTMAX:
            assert figures.aurc * 1000 == pytest.approx(8.49, abs=0.01)
            assert oracle == pytest.approx(0.776, abs=0.001)
