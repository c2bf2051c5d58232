"""Confidence is a probability, and its class the one that has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.confidence import Scorer, confidence, score, softmax, tempered
from gateway.correctness import Correctness

Floats = NDArray[np.float64]
SHAPES = st.tuples(st.integers(1, 8), st.integers(1, 6))
SCORES = st_numpy.arrays(np.float64, SHAPES, elements=st.floats(-1e300, 1e300))
ANY = st_numpy.arrays(np.float32, SHAPES, elements=st.floats(width=32))


@given(SCORES)
def test_softmax_gives_probabilities_for_any_finite_scores(scores: Floats) -> None:
    """Each row sums to 1; nothing overflows."""
    found = softmax(scores)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.allclose(found.sum(axis=-1), 1)


@given(st_numpy.arrays(np.float64, SHAPES, elements=st.floats(-50, 50)), st.floats(-1e6, 1e6))
def test_softmax_does_not_change_when_all_scores_shift(scores: Floats, shift: float) -> None:
    """Only differences count."""
    assert np.allclose(softmax(scores), softmax(scores + shift), atol=1e-6)


@given(SCORES)
def test_the_class_is_the_one_with_the_largest_score(scores: Floats) -> None:
    """Whatever the sign: never by absolute value."""
    sure, predicted = confidence(scores, "softmax")
    assert (predicted == scores.argmax(axis=-1)).all()
    assert (sure >= 1 / scores.shape[1] - 1e-9).all()


@given(ANY, st.sampled_from(["none", "softmax"]))
def test_confidence_is_in_the_unit_interval_whatever_a_model_says(scores: Floats, activation: str) -> None:
    """NaN and infinity are no confidence."""
    sure, predicted = confidence(scores, "softmax" if activation == "softmax" else "none")
    assert ((sure >= 0) & (sure <= 1)).all()
    assert ((predicted >= 0) & (predicted < scores.shape[1])).all()
    assert (sure[~np.isfinite(scores).all(axis=-1)] == 0).all()


@given(SCORES)
def test_a_row_does_not_depend_on_its_neighbours(scores: Floats) -> None:
    """Alone as in a batch."""
    sure, predicted = confidence(scores, "softmax")
    for row in range(len(scores)):
        alone = confidence(scores[row : row + 1], "softmax")
        assert (alone[0][0], alone[1][0]) == (sure[row], predicted[row])


NEAR = st.floats(-0.002, 1.002) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.5, 1.0])


@given(st.lists(NEAR, min_size=1, max_size=70), st.sampled_from(["f2", "f4", "f8"]))
def test_one_row_of_probabilities_is_looked_at_as_two_are(row: list[float], kind: str) -> None:
    """To the last bit, whatever is in it: rounding, infinity, NaN in any place."""
    alone, together = (confidence(np.array([row] * count).astype(kind), "none") for count in (1, 2))
    for one, both in zip(alone, together, strict=True):
        assert one.dtype == both.dtype
        np.testing.assert_array_equal(one, both[:1])


@pytest.mark.parametrize(
    ("row", "expected"),
    [([0.2, 0.7, 0.1], 0.7), ([-3.0, 0.5, 0.5], 0.0), ([2.0, -1.0, 0.0], 0.0), ([1.0000001, 0, 0], 1.0)],
)
def test_what_is_no_probability_is_no_confidence(row: list[float], expected: float) -> None:
    """Scores taken for probabilities say nothing; rounding is forgiven."""
    assert confidence(np.array([row]), "none")[0][0] == pytest.approx(expected)


@given(st.integers(2, 6), st.integers(0, 5))
def test_permuting_classes_permutes_the_answer(classes: int, seed: int) -> None:
    """No class is special."""
    generator = np.random.default_rng(seed)
    scores, order = generator.normal(size=(1, classes)), generator.permutation(classes)
    sure, predicted = confidence(scores, "softmax")
    other = confidence(scores[:, order], "softmax")
    assert other[0][0] == pytest.approx(sure[0])
    assert order[other[1][0]] == predicted[0]


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])


def test_the_margin_is_how_far_the_second_is_behind() -> None:
    """The default score; a tie has none."""
    found, predicted = score(PROBABILITIES, "none")
    np.testing.assert_allclose(found, [0.5, 0.0, 1.0])
    assert predicted.tolist() == [0, 0, 0]
    np.testing.assert_allclose(score(np.log(PROBABILITIES[:1]), "softmax")[0], [0.5])
    np.testing.assert_allclose(score(np.array([[0.3]]), "none")[0], [0.3])


def test_max_softmax_is_the_confidence() -> None:
    """The largest probability."""
    found, predicted = score(PROBABILITIES, "none", Scorer.MAX_SOFTMAX)
    expected = confidence(PROBABILITIES, "none")
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(predicted, expected[1])


def test_energy_keeps_its_order_within_zero_and_one() -> None:
    """However large the scores; for probabilities it says nothing and is refused."""
    scores = np.array([[-900.0, -901.0], [-2.0, -1.0], [0.0, 0.0], [40.0, 1.0], [41.0, 1.0], [900.0, 0.0]])
    found, _ = score(scores, "softmax", Scorer.ENERGY)
    assert (np.diff(found) > 0).all()
    assert ((found > 0) & (found < 1)).all()
    with pytest.raises(InvalidError, match="margin or max_softmax"):
        score(PROBABILITIES, "none", Scorer.ENERGY)


def test_a_temperature_changes_how_sure_a_row_is_and_not_which_label_it_names() -> None:
    """At 1 nothing; above it less, below it more; of probabilities as of the logits that they came from."""
    logits = np.random.default_rng(1).normal(scale=3, size=(200, 5))
    given = confidence(logits, "softmax")[0]
    assert tempered(logits, "softmax", 1.0) == pytest.approx(given)
    assert (tempered(logits, "softmax", 2.0) < given).all()
    assert (tempered(logits, "softmax", 0.5) > given).all()
    assert tempered(softmax(logits), "none", 2.0) == pytest.approx(tempered(logits, "softmax", 2.0))
    assert tempered(np.array([[1.0, 0.0]]), "none", 2.0) == pytest.approx([1.0])


@pytest.mark.parametrize("scorer", Scorer)
def test_a_row_that_says_nothing_scores_zero(scorer: Scorer) -> None:
    """NaN and infinity, whatever is asked."""
    learned = Correctness(weights=(1.0, 1.0, 1.0, 1.0))
    found, _ = score(np.array([[np.nan, 1.0], [np.inf, 1.0], [2.0, 1.0]]), "softmax", scorer, learned)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] > 0
