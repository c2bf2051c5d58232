from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.confidence import Scorer
from gateway.promise import Promise
from trainer.sorting import certified_coverage, sort, temperature


def _drawn(heat: float, examples: int = 4_000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Labels drawn from a model's own probabilities, and logits that are `heat` times too sure of them."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (examples, 4))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < rng.random((examples, 1))).sum(axis=1)
    return heat * logits, labels


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_a_model_is_too_sure_by(heat: float) -> None:
    """Within what 4,000 labels can say; at it confidence is accuracy."""
    logits, labels = _drawn(heat)
    assert temperature(logits, labels) == pytest.approx(heat, rel=0.05)
    found = sort(logits, labels, Scorer.MARGIN, None)
    assert found is not None
    assert found.ece_tempered < 0.03
    assert (found.ece > 0.08) == (heat != 1.0)


def test_a_model_that_errs_nowhere_has_no_temperature() -> None:
    """The likeliest would be 0: nothing is known."""
    assert temperature(np.eye(3), np.arange(3)) == 1.0
    assert sort(np.empty((0, 3)), np.empty(0, np.int64), Scorer.MARGIN, None) is None


def test_what_held_out_examples_alone_would_certify() -> None:
    """Sure ones are right, the others are not: the sure half is let through, where there are enough of them."""
    scores = np.linspace(0, 1, 4_000)
    error = (np.random.default_rng(3).random(4_000) < np.where(scores < 0.4, 0.3, 0.001)).astype(np.float64)
    found = certified_coverage(scores, error, Promise(alpha=0.02))
    assert 0.5 < found < 0.66
    assert certified_coverage(scores[::100], error[::100], Promise(alpha=0.02)) == 0


def test_the_order_that_examples_came_in_changes_little() -> None:
    """What was imported comes first, and says nothing of how sure it is."""
    logits, labels = _drawn(1.0)
    promise = Promise(alpha=0.2)
    found = sort(logits, labels, Scorer.MAX_SOFTMAX, promise)
    turned = sort(logits[::-1], labels[::-1], Scorer.MAX_SOFTMAX, promise)
    assert found is not None
    assert turned is not None
    assert found.certified_coverage == pytest.approx(turned.certified_coverage, abs=0.07)
    assert (found.aurc, found.augrc) == pytest.approx((turned.aurc, turned.augrc))
