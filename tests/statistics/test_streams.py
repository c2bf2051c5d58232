"""Real scores of real models: how much is answered automatically, and how often the promise is broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from gateway.confidence import score
from gateway.promise import Promise
from tests.statistics.simulation import BLOCK, Floats, report, scores_file, simulate
from trainer.certificate import grid
from trainer.selective import coverage_at, oracle_coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of some runs: how many violate, coverage at the end and over the whole stream, reviews; medians."""

    runs: int
    violate: int
    final: float
    stream: float
    reviews: float


def _certify(
    confidence: Floats, error: Floats, promise: Promise, *, runs: int, requests: int, audit_share: float, seed: int
) -> Told:
    """Draw requests with replacement from the examples, whose own risk is the hidden truth."""
    rng = np.random.default_rng(seed)
    found = grid(confidence[rng.integers(0, len(confidence), 2_000)])
    thresholds = found.thresholds
    chosen = rng.integers(0, len(confidence), (runs, requests))
    end = simulate(
        confidence[chosen], error[chosen], thresholds, promise, rng, audit_share=audit_share, shares=found.shares
    )
    risk = np.array([0.0] + [float(error[confidence >= threshold].mean()) for threshold in thresholds])
    coverage = np.array([0.0] + [coverage_at(confidence, threshold) for threshold in thresholds])
    steps = np.concatenate([[np.inf], thresholds])
    answered = confidence[chosen] >= np.repeat(steps[end.in_force], BLOCK, axis=1)
    return Told(
        runs=runs,
        violate=int((risk[end.in_force] > promise.alpha).any(axis=1).sum()),
        final=float(np.median(coverage[end.in_force[:, -1]])),
        stream=float(np.median(answered.mean(axis=1))),
        reviews=float(np.median(end.reviews)),
    )


def test_a_small_model_of_digits_keeps_five_per_cent() -> None:
    """Cross-validated probabilities of a linear discriminant on eight principal components: at most 4 of 20 violate."""
    images, labels = load_digits(return_X_y=True)
    model = make_pipeline(PCA(8, random_state=0), LinearDiscriminantAnalysis())
    probabilities = cross_val_predict(model, images, labels, cv=5, method="predict_proba")
    confidence, predicted = score(probabilities, "none")
    error = (predicted != labels).astype(np.float64)
    told = _certify(confidence, error, Promise(alpha=0.05), runs=20, requests=8_000, audit_share=0.3, seed=51)
    report(f"digits, error {error.mean():.3f}, oracle {oracle_coverage(confidence, error, 0.05):.3f}: {told}")
    assert error.mean() > 0.05
    assert told.violate <= 4
    assert told.final > 0.5


@pytest.mark.parametrize(("alpha", "final_min"), [(0.01, 0.69), (0.02, 0.77)])
def test_cifar_10_keeps_its_promise_and_is_answered_for_the_most_part(alpha: float, final_min: float) -> None:
    """20,000 requests, 60 runs, one automatic answer in five audited: at most 6 violate, coverage near the oracle's."""
    scores, labels = scores_file("cifar10_pyx.npy"), scores_file("cifar10_labels.npy")
    if scores is None or labels is None:
        pytest.skip("the CIFAR-10 scores (shared/data/cifar10_pyx.npy) are not beside this repository")
    confidence, predicted = score(np.load(scores), "none")
    error = (predicted != np.load(labels)).astype(np.float64)
    told = _certify(confidence, error, Promise(alpha=alpha), runs=60, requests=20_000, audit_share=0.2, seed=52)
    report(f"CIFAR-10, alpha {alpha}, oracle {oracle_coverage(confidence, error, alpha):.3f}: {told}")
    assert told.violate <= 6
    assert told.final >= final_min
