"""How sure a model is: the largest class probability, and which class has it; and scores to certify by. Pure."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Final, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.correctness import Correctness, correctness

# How far from [0, 1] rounding may bring a probability.
SLACK: Final = 1e-3
# A row of up to so many scores is looked through as a list.
_LISTED_MAX: Final = 64

Activation = Literal["none", "softmax"]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(x) / sum(exp(x)) over the last axis; shape (rows, classes), each row summing to 1.

    The row's largest score is subtracted first, so that no finite score overflows.
    """
    shifted: NDArray[np.float64] = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def confidence(scores: NDArray[Any], activation: Activation) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return each row's confidence in [0, 1] and the index of the class that has it.

    `scores` has shape (rows, classes), classes >= 1: probabilities for activation "none", any finite scores for
    "softmax". A row that holds NaN or infinity, or for "none" anything outside [0, 1] by more than rounding, says
    nothing: its confidence is 0.
    """
    if len(scores) == 1 and activation == "none" and scores.dtype.kind == "f" and scores.size <= _LISTED_MAX:
        found = _surest(scores.tolist()[0])
        if found is not None:
            return np.array(found[:1]), np.array(found[1:])
    values = scores.astype(np.float64)
    if activation == "none" and values.size:
        largest = np.maximum.reduce(values, axis=-1)
        low, high = np.minimum.reduce(values, axis=None), np.maximum.reduce(largest)
        # As a rule all are probabilities, and each row is usable. NaN is neither above nor below.
        if low >= -SLACK and high <= 1 + SLACK:
            if high > 1 or low < 0:
                largest = np.clip(largest, 0.0, 1.0)
            return largest, values.argmax(axis=-1)
    usable: NDArray[np.bool_] = np.all(np.isfinite(values), axis=-1)
    if activation == "none":
        with np.errstate(invalid="ignore"):
            usable &= np.all((values >= -SLACK) & (values <= 1 + SLACK), axis=-1)
    values = np.where(usable[:, np.newaxis], values, 0.0)
    # Of the scores, not of the probabilities: these may tie where those do not.
    predicted = values.argmax(axis=-1)
    if activation == "softmax":
        values = softmax(values)
    largest = np.take_along_axis(values, predicted[:, np.newaxis], axis=-1)[:, 0]
    return np.where(usable, np.clip(largest, 0.0, 1.0), 0.0), predicted


def _surest(row: list[float]) -> tuple[float, int] | None:
    """Return the largest probability of a row and where it stands; None where the row holds anything else.

    It is what `confidence` finds, in less time than one step of numpy's takes.
    """
    largest = max(row)
    # A sum is NaN where one number is, which `max` may overlook.
    if min(row) < -SLACK or largest > 1 + SLACK or math.isnan(sum(row)):
        return None
    return largest if 0 <= largest <= 1 else min(max(largest, 0.0), 1.0), row.index(largest)


def tempered(scores: NDArray[Any], activation: Activation, temperature: float) -> NDArray[np.float64]:
    """Return each row's confidence at a temperature, by which logits are divided (Guo et al., 2017): for showing only.

    Takes the same as `confidence`; of probabilities the logits are their logarithms.
    """
    if activation == "none":
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.log(np.clip(scores.astype(np.float64), 1e-12, 1.0))
    return confidence(scores / temperature, "softmax")[0]


class Scorer(StrEnum):
    """What a threshold is compared with.

    `MARGIN`: the largest probability less the second; `MAX_SOFTMAX`: the largest; `ENERGY`: ln sum exp of the scores,
    brought into (0, 1) without changing its order, for models whose scores are no probabilities; `LEARNED`: what was
    learnt of when the version is right (`gateway.correctness`).
    """

    MARGIN = "margin"
    MAX_SOFTMAX = "max_softmax"
    ENERGY = "energy"
    LEARNED = "learned"


def score(
    scores: NDArray[Any],
    activation: Activation,
    scorer: Scorer = Scorer.MARGIN,
    learned: Correctness | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return each row's score in [0, 1], higher is surer, and the index of the predicted class.

    Takes the same as `confidence`, and gives 0 to the same unusable rows. Raises InvalidError for the energy of
    probabilities, whose sum is always 1, and for a learned score where nothing was `learned`.
    """
    largest, predicted = confidence(scores, activation)
    match scorer:
        case Scorer.MAX_SOFTMAX:
            return largest, predicted
        case Scorer.MARGIN:
            found = _margin(scores.astype(np.float64), activation, predicted)
        case Scorer.ENERGY:
            if activation == "none":
                raise InvalidError("scorer: expected margin or max_softmax for a model that gives probabilities")
            found = _energy(scores.astype(np.float64))
        case Scorer.LEARNED:
            if learned is None:
                raise InvalidError("scorer: expected a version whose manifest says what was learned, [correctness]")
            values = scores.astype(np.float64)
            values = np.where(np.isfinite(values), values, 0.0)
            found = correctness(softmax(values) if activation == "softmax" else values, predicted, learned)
        case _:
            assert_never(scorer)
    # A usable row's largest probability is above 0, except where all of them are 0.
    return np.where(largest > 0, found, 0.0), predicted


def _margin(values: NDArray[np.float64], activation: Activation, predicted: NDArray[np.intp]) -> NDArray[np.float64]:
    values = np.where(np.isfinite(values), values, 0.0)
    if activation == "softmax":
        values = softmax(values)
    largest = np.take_along_axis(values, predicted[:, np.newaxis], axis=-1)[:, 0]
    np.put_along_axis(values, predicted[:, np.newaxis], -np.inf, axis=-1)
    # With one class only, nothing comes second.
    second = np.maximum(values.max(axis=-1), 0.0)
    margin: NDArray[np.float64] = np.clip(largest - second, 0.0, 1.0)
    return margin


def _energy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    energy: NDArray[np.float64] = np.logaddexp.reduce(np.where(np.isfinite(values), values, 0.0), axis=-1)
    # x / (1 + |x|) has room for every energy; a logistic curve would make all large ones equal.
    squeezed: NDArray[np.float64] = 0.5 + 0.5 * energy / (1 + np.abs(energy))
    return squeezed
