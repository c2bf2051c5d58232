from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.errors import StoppedError
from trainer.train import Fit, balanced, forward, refit

Floats = NDArray[np.float64]


def clusters(seed: int = 0, count: int = 300) -> tuple[Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    return rng.normal(size=(count, 4)) + 2.0 * np.eye(3, 4)[labels], labels


def fit(
    features: Floats,
    labels: NDArray[np.int64],
    sample_weights: Floats | None = None,
    *,
    start: float = 0.0,
    regularisation: float = 0.02,
) -> Fit:
    return refit(
        features,
        labels,
        np.ones(len(labels)) if sample_weights is None else sample_weights,
        weights=np.full((4, 3), start),
        bias=np.zeros(3),
        regularisation=regularisation,
        iterations_max=500,
    )


def accuracy(found: Fit, features: Floats, labels: NDArray[np.int64]) -> float:
    return float((forward(features, found.weights, found.bias).argmax(axis=1) == labels).mean())


def test_a_known_improvement_is_recovered() -> None:
    """Labels that the old weights get wrong are learned, on examples that were not trained on too."""
    features, labels = clusters()
    found = fit(features, labels)
    other, others = clusters(seed=1)
    assert found.converged
    assert accuracy(found, other, others) > 0.8


def test_without_examples_the_old_weights_stay() -> None:
    """No data, no change, to the last bit."""
    found = fit(np.empty((0, 4)), np.empty(0, np.int64), start=1.5)
    assert (found.weights == 1.5).all()
    assert (found.bias == 0).all()


def test_a_strong_pull_keeps_the_old_weights() -> None:
    """The more the old weights count, the nearer the new ones are to them."""
    features, labels = clusters()
    far = [np.abs(fit(features, labels, regularisation=pull).weights).max() for pull in (0.01, 10.0, 1e6)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-3


def test_a_repeat_gives_the_same_weights() -> None:
    """Training is a function of its input."""
    features, labels = clusters()
    one, other = fit(features, labels), fit(features, labels)
    assert (one.weights == other.weights).all()


def test_order_does_not_matter() -> None:
    """The minimum is one, whatever the order of examples."""
    features, labels = clusters()
    one, other = fit(features, labels), fit(features[::-1], labels[::-1])
    np.testing.assert_allclose(one.weights, other.weights, atol=2e-3)


def test_a_weight_of_two_is_the_example_twice() -> None:
    """Weights count as repeats, the pull of the old weights beside them as well."""
    features, labels = clusters(count=60)
    doubled = np.where(np.arange(60) < 20, 2.0, 1.0)
    one = fit(features, labels, doubled)
    twice = np.concatenate([features, features[:20]]), np.concatenate([labels, labels[:20]])
    # The mean squared length of features, which scales the pull, is over examples, not weights.
    ratio = float(np.square(features).sum(axis=1).mean() / np.square(twice[0]).sum(axis=1).mean())
    other = fit(*twice, regularisation=0.02 * ratio)
    np.testing.assert_allclose(one.weights, other.weights, atol=5e-3)


def test_the_scale_of_features_does_not_change_what_is_learned() -> None:
    """The pull is measured in examples: features ten times as large give the same probabilities."""
    features, labels = clusters()
    one = fit(features, labels, regularisation=5.0)
    ten = fit(features * 10, labels, regularisation=5.0)
    # The bias has no scale of its own, so it is not exactly the same.
    difference = np.abs(forward(features, one.weights, one.bias) - forward(features * 10, ten.weights, ten.bias))
    assert difference.max() < 0.05


def test_balanced_weights_give_each_label_the_same_say() -> None:
    """A label with one example weighs as much as one with three; labels that do not occur do not count."""
    weights = balanced(np.array([0, 0, 0, 2]), 4)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2.0])
    assert weights.sum() == pytest.approx(4)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1e4))
def test_probabilities_are_probabilities(seed: int, scale: float) -> None:
    """However large the logits, rows are finite, in [0, 1] and sum to one."""
    rng = np.random.default_rng(seed)
    found = forward(rng.normal(size=(5, 4)) * scale, rng.normal(size=(4, 3)) * scale, rng.normal(size=3))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("features", "labels", "weights", "sentence"),
    [
        (np.zeros((2, 5)), np.zeros(2, np.int64), np.ones(2), r"expected shape \[examples, 4\], got \[2, 5\]"),
        (np.zeros((2, 4)), np.array([0, 3]), np.ones(2), "expected 2 indices below 3"),
        (np.zeros((2, 4)), np.zeros(2, np.int64), np.zeros(2), "one positive number"),
        (np.full((2, 4), np.nan), np.zeros(2, np.int64), np.ones(2), "NaN"),
    ],
)
def test_input_of_the_wrong_shape_is_refused(
    features: Floats, labels: NDArray[np.int64], weights: Floats, sentence: str
) -> None:
    """Each sentence says what was expected."""
    with pytest.raises(ValueError, match=sentence):
        fit(features, labels, weights)


def test_features_that_are_all_zero_move_the_bias_a_little() -> None:
    """One label and nothing to tell it by: the answer is finite, and what pulls it back still does."""
    fit = refit(
        np.zeros((5, 3)),
        np.ones(5, np.int64),
        np.ones(5),
        weights=np.zeros((3, 2)),
        bias=np.zeros(2),
        regularisation=1.0,
        iterations_max=500,
    )
    assert not fit.weights.any()
    assert 0.1 < fit.bias[1] < 2


def test_a_fit_that_is_asked_to_stop_does() -> None:
    """At its next step, whatever was raised."""

    def stop() -> None:
        raise StoppedError("now")

    with pytest.raises(StoppedError):
        refit(
            np.ones((2, 1)),
            np.array([0, 1]),
            np.ones(2),
            weights=np.zeros((1, 2)),
            bias=np.zeros(2),
            regularisation=1.0,
            iterations_max=5,
            go_on=stop,
        )
