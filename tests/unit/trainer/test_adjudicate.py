from __future__ import annotations

import numpy as np
import pytest

from fallback.errors import InvalidError
from gateway.promise import false_error
from trainer.adjudicate import Reach, Share, estimate_miss, judge_reviewers, panel_drawn, panel_due, truth, wrong

SECRET = bytes(32)


def _due(key: str, first: str, *predictions: str) -> bool:
    return panel_due(SECRET, model="m", epoch="1", request_key=key, first=first, predictions=predictions)


def test_a_disagreement_of_any_version_takes_two_more_people() -> None:
    """The version that served and every other under certification."""
    assert all(_due(str(number), "cat", "cat", "dog") for number in range(50))


def test_so_does_a_tenth_of_the_agreements() -> None:
    """Chosen by a hash: the same for whoever asks again, and of no relation to the audit's own draw."""
    chosen = [_due(str(number), "cat", "cat", "cat") for number in range(5_000)]
    assert 0.085 < float(np.mean(chosen)) < 0.115
    assert chosen == [panel_drawn(SECRET, model="m", epoch="1", request_key=str(number)) for number in range(5_000)]


@pytest.mark.parametrize(
    ("reviews", "expected"),
    [
        (["cat"], "cat"),
        ([None], None),
        (["cat", "dog", "cat"], "cat"),
        (["cat", "dog", "dog"], "dog"),
        (["cat", None, "cat"], "cat"),
        (["cat", "dog", "cow"], None),
        (["cat", None, None], None),
        ([None, None, None], None),
    ],
)
def test_one_or_the_majority_of_three_is_the_truth(reviews: list[str | None], expected: str | None) -> None:
    """Without a majority there is none."""
    assert truth(reviews) == expected


def test_another_number_of_reviews_decides_nothing() -> None:
    """Two are not enough where three are due."""
    with pytest.raises(InvalidError, match="1 or 3"):
        truth(["cat", "cat"])


def test_who_was_wrong() -> None:
    """By version; all are where there is no truth. What counts as the same is the task's to say."""
    said = {"8": "dog", "7": "cat"}
    assert wrong("cat", said) == ("8",)
    assert wrong(None, said) == ("7", "8")
    assert wrong("Dog", said, same=lambda one, other: one.lower() == other.lower()) == ("7",)
    assert truth(["1.0", "1.1", "5"], same=lambda one, other: abs(float(one) - float(other)) < 0.5) == "1.0"


def test_the_miss_is_estimated_from_the_agreements_that_were_checked() -> None:
    """With a bound; nothing checked says nothing."""
    share = estimate_miss([False] * 98 + [True] * 2)
    assert (share.count, share.total, share.estimate) == (2, 100, 0.02)
    assert 0.05 < share.upper < 0.07
    assert 0 < share.lower < 0.02
    nothing = estimate_miss([])
    assert (nothing.estimate, nothing.lower, nothing.upper) == (0.0, 0.0, 1.0)
    with pytest.raises(InvalidError, match="count"):
        Share(count=2, total=1)


def test_reviewers_errors_make_right_answers_look_wrong_as_often_as_computed() -> None:
    """By lot: one reviewer errs, and the panel that follows does not put it right, or the panel of a tenth is wrong."""
    rng = np.random.default_rng(81)
    for g in (0.05, 0.2):
        errs = rng.random((400_000, 3)) < g
        panel = errs[:, 0] | (rng.random(400_000) < 0.1)
        # At worst: whoever errs says the same; a right one needs both others after a first who erred.
        looks_wrong = panel & np.where(errs[:, 0], errs[:, 1:].any(axis=1), errs[:, 1:].all(axis=1))
        assert false_error(g) == pytest.approx(float(looks_wrong.mean()), rel=0.05)


@pytest.mark.parametrize(
    ("count", "total", "reach"),
    [(2, 400, Reach.REACHABLE), (3, 40, Reach.DOUBTFUL), (60, 400, Reach.UNREACHABLE), (0, 0, Reach.DOUBTFUL)],
)
def test_gold_items_say_whether_alpha_can_be_reached(count: int, total: int, reach: Reach) -> None:
    """Surely, perhaps, or surely not, with what to do."""
    found = judge_reviewers(Share(count=count, total=total), alpha=0.01)
    assert found.reach == reach
    assert {Reach.UNREACHABLE: "train them", Reach.DOUBTFUL: "add gold", Reach.REACHABLE: "gold"}[reach] in (
        found.advice
    )
