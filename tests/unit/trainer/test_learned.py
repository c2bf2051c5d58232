"""A score that is learnt from judged answers, and what the gateway makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from fallback.errors import InvalidError
from gateway.confidence import Scorer, score, softmax
from gateway.correctness import FEATURES, Correctness, correctness, features
from trainer.learned import EXAMPLES_MIN, learn
from trainer.selective import measure_selective


def _examples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes, of which whoever says the last one is right by chance, however sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(size=(count, 3)) + 2.5 * np.eye(3)[labels]
    vain = rng.random(count) < 0.25
    logits[vain] = np.array([0.0, 0.0, 6.0]) + rng.normal(size=(int(vain.sum()), 3))
    return logits, labels


def test_it_sorts_right_from_wrong_better_than_the_margin_where_there_is_something_to_learn() -> None:
    """On examples that it has not seen: a label that the model is vainly sure of comes last."""
    learned = learn(*_examples(1_500, 1))
    assert learned is not None
    logits, labels = _examples(4_000, 2)
    found, predicted = score(logits, "softmax", Scorer.LEARNED, learned)
    margin, same = score(logits, "softmax", Scorer.MARGIN)
    assert (predicted == same).all()
    error = (predicted != labels).astype(np.float64)
    assert measure_selective(found, error).aurc < 0.6 * measure_selective(margin, error).aurc
    assert abs(found.mean() - (1 - error.mean())) < 0.03


def test_the_same_examples_give_the_same_score() -> None:
    """Numbers of a few digits, in a manifest that may be made again elsewhere; of too few examples nothing."""
    logits, labels = _examples(200, 3)
    assert learn(logits, labels) == learn(logits, labels)
    assert learn(logits[: EXAMPLES_MIN - 1], labels[: EXAMPLES_MIN - 1]) is None
    always = learn(logits, logits.argmax(axis=1))
    assert always is not None
    assert score(logits, "softmax", Scorer.LEARNED, always)[0].min() > 0.8, "right every time, and still finite"


def test_scores_are_probabilities_of_whatever_a_model_gives() -> None:
    """Rows that say nothing score 0, as with every scorer; a single class and certainty are no trouble."""
    learned = Correctness(weights=(1.0, 1.0, 1.0, -1.0), bias=0.5)
    odd = np.array([[0.0, 0.0, 1.0], [0.2, 0.3, 0.5], [np.nan, 0.5, 0.5], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    found, _ = score(odd, "none", Scorer.LEARNED, learned)
    assert ((found >= 0) & (found <= 1)).all()
    assert found[0] > found[1] > 0
    assert found[2:].tolist() == [0, 0, 0]
    assert correctness(np.ones((2, 1)), np.zeros(2, np.intp), learned).tolist() == pytest.approx([0.97, 0.97], abs=0.02)
    rows = features(softmax(np.random.default_rng(1).normal(scale=30, size=(500, 5))))
    assert rows.shape == (500, len(FEATURES))
    assert (np.abs(rows) <= 1.0 + 1e-9).all()


def test_without_what_was_learnt_there_is_no_such_score() -> None:
    """The sentence says what to do about it."""
    with pytest.raises(InvalidError, match=r"whose manifest says what was learned, \[correctness\]"):
        score(np.ones((1, 2)), "none", Scorer.LEARNED)
