from __future__ import annotations

import numpy as np

from gateway.policy import Policy
from gateway.rules import Rules
from trainer.evaluate import Recall, judge, measure, select

NAMES = ("a", "b")
PROBABILITIES = np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.97, 0.03]])
LABELS = np.array([0, 1, 1, 1])


def test_what_is_counted() -> None:
    """Four examples by hand: two right, two answered, one of these wrong."""
    metrics = measure(judge(PROBABILITIES, LABELS, Rules.compile(Policy(threshold=0.9), NAMES)), NAMES)
    assert (metrics.count, metrics.right, metrics.accuracy) == (4, 2, 0.5)
    assert (metrics.answered, metrics.answered_wrong) == (2, 1)
    assert (metrics.deferred_share, metrics.auto_error) == (0.5, 0.5)
    assert metrics.recall == {"a": Recall(right=1, count=1), "b": Recall(right=1, count=3)}
    assert metrics.confidence_mean == np.mean([0.95, 0.6, 0.8, 0.97])


def test_the_live_policy_decides_what_is_answered() -> None:
    """Thresholds by label and labels that always go to a person count as they do in the gateway."""
    policy = Policy(threshold=0.9, class_thresholds={"b": 0.7}, always_person=("a",))
    judged = judge(PROBABILITIES, LABELS, Rules.compile(policy, NAMES))
    assert judged.answered.tolist() == [False, False, True, False]


def test_nothing_to_judge_by_is_all_zero() -> None:
    """No division by zero."""
    rules = Rules.compile(Policy(), NAMES)
    metrics = measure(judge(np.empty((0, 2)), np.empty(0, np.int64), rules), NAMES)
    assert (metrics.count, metrics.accuracy, metrics.auto_error, metrics.recall) == (0, 0.0, 0.0, {})


def test_a_part_can_be_looked_at_alone() -> None:
    """`select` keeps examples together with what was said of them."""
    judged = judge(PROBABILITIES, LABELS, Rules.compile(Policy(), NAMES))
    assert measure(select(judged, LABELS == 1), NAMES).count == 3
