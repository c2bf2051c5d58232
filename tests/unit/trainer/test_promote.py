from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluate import Judged
from trainer.promote import Tolerances, decide, sign_test

NAMES = ("a", "b")
TOLERANCES = Tolerances(
    holdout_min=30, accuracy_drop_max=0.005, recall_drop_max=0.02, error_rise_max=0.005, significance=0.05
)


def judged(wrong: dict[int, int], *, counts: tuple[int, int] = (400, 40), wrong_answered: int = 0) -> Judged:
    """`counts` examples of each label, the first `wrong[label]` of each answered wrongly.

    Wrong ones are deferred, but for `wrong_answered` of label 0; right ones are answered.
    """
    labels = np.repeat([0, 1], counts)
    right = np.ones(len(labels), dtype=np.bool_)
    for label, many in wrong.items():
        right[np.flatnonzero(labels == label)[:many]] = False
    answered = right.copy()
    answered[np.flatnonzero(~right)[:wrong_answered]] = True
    return Judged(labels=labels, right=right, answered=answered, confidence=np.full(len(labels), 0.9))


@pytest.mark.parametrize(
    ("name", "live", "candidate", "promote"),
    [
        ("better", judged({0: 40}), judged({0: 20}), True),
        ("the same", judged({0: 40}), judged({0: 40}), True),
        ("worse by what is let through", judged({0: 40}), judged({0: 42}), True),
        ("worse by more", judged({0: 40}), judged({0: 43}), False),
        ("a rare label worse by chance", judged({0: 40}), judged({0: 20, 1: 4}), True),
        ("a rare label worse by no chance", judged({0: 40}), judged({0: 20, 1: 5}), False),
        ("more wrong answers by chance", judged({0: 40}), judged({0: 20}, wrong_answered=4), True),
        ("more wrong answers by no chance", judged({0: 40}), judged({0: 20}, wrong_answered=5), False),
    ],
)
def test_the_gate(name: str, live: Judged, candidate: Judged, promote: bool) -> None:
    """One line a rule, at its edge."""
    decision = decide(live, candidate, NAMES, TOLERANCES)
    assert decision.promote is promote, f"{name}: {decision.reasons}"


def test_too_small_a_holdout_decides_nothing() -> None:
    """However good it looks, and the sentence says what to do."""
    few = judged({0: 5}, counts=(20, 9)), judged({}, counts=(20, 9))
    decision = decide(*few, NAMES, TOLERANCES)
    assert not decision.promote
    assert "expected at least 30 examples to judge by, got 29" in decision.reasons[0]
    assert "import-examples" in decision.reasons[0]


def test_what_failed_comes_first_among_the_reasons() -> None:
    """The reader sees why before everything else that was looked at."""
    decision = decide(judged({0: 40}), judged({0: 20, 1: 5}), NAMES, TOLERANCES)
    assert decision.reasons[0].startswith("recall of 'b': 40 -> 35 of 40 (chance of a split this bad: 0.031")
    assert any(reason.startswith("accuracy on 440") for reason in decision.reasons)


def test_a_large_fall_within_the_tolerance_still_needs_to_be_chance() -> None:
    """On a large hold-out even a small drop is no chance, and is refused."""
    big = (100_000, 10)
    decision = decide(judged({0: 100}, counts=big), judged({0: 400}, counts=big), NAMES, TOLERANCES)
    assert not decision.promote


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_tail(worse: int, better: int) -> None:
    """P(at least `worse` of n fair tosses), against the definition and its symmetry."""
    tosses = worse + better
    expected = math.fsum(math.comb(tosses, k) * 0.5**tosses for k in range(worse, tosses + 1))
    assert sign_test(worse, better) == pytest.approx(expected)
    both = sign_test(worse, better) + sign_test(better, worse)
    assert both == pytest.approx(1 + math.comb(tosses, worse) * 0.5**tosses)


def test_the_sign_test_of_many_examples_does_not_overflow() -> None:
    """A hold-out of thousands is nothing unusual."""
    assert sign_test(3000, 3000) == pytest.approx(0.5, abs=0.01)


def test_a_label_without_held_out_examples_is_named() -> None:
    """Nothing is known of it, and the report does not pretend."""
    decision = decide(judged({0: 4}, counts=(40, 0)), judged({}, counts=(40, 0)), NAMES, TOLERANCES)
    assert decision.promote
    assert "not judged, for want of a held-out example: b" in decision.reasons
