"""What a model's probabilities are worth on examples whose label is known."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.rules import Rules

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Of `count` examples of one label, `right` were given it."""

    right: int
    count: int


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and shares over `count` examples. `auto_error` is the share of wrong ones among automatic answers."""

    count: int
    right: int
    accuracy: float
    answered: int
    answered_wrong: int
    deferred_share: float
    auto_error: float
    confidence_mean: float
    recall: dict[str, Recall]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Example by example: whether the answer was right, and whether it would have gone out unasked."""

    labels: Indices
    right: Flags
    answered: Flags
    confidence: Floats


def judge(probabilities: Floats, labels: Indices, rules: Rules) -> Judged:
    """Compare `probabilities` (examples x labels) with the true `labels` (examples), under the live policy's rules."""
    answer = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(labels)), answer]
    deferred = rules.decide(confidence=confidence, predicted=answer).deferred
    return Judged(labels=labels, right=answer == labels, answered=~deferred, confidence=confidence)


def measure(judged: Judged, names: tuple[str, ...]) -> Metrics:
    """Count; all zero where there is no example."""
    count, right, answered = len(judged.labels), int(judged.right.sum()), int(judged.answered.sum())
    wrong = int((judged.answered & ~judged.right).sum())
    seen = np.bincount(judged.labels, minlength=len(names))
    hit = np.bincount(judged.labels[judged.right], minlength=len(names))
    return Metrics(
        count=count,
        right=right,
        accuracy=right / count if count else 0.0,
        answered=answered,
        answered_wrong=wrong,
        deferred_share=1 - answered / count if count else 0.0,
        auto_error=wrong / answered if answered else 0.0,
        confidence_mean=float(judged.confidence.mean()) if count else 0.0,
        recall={name: Recall(right=int(hit[i]), count=int(seen[i])) for i, name in enumerate(names) if seen[i]},
    )


def select(judged: Judged, chosen: Flags) -> Judged:
    """Return the examples that are `chosen`."""
    return Judged(
        labels=judged.labels[chosen],
        right=judged.right[chosen],
        answered=judged.answered[chosen],
        confidence=judged.confidence[chosen],
    )
