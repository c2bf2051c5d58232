"""How sure a model is: the largest class probability, and which class has it. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

# How far from [0, 1] rounding may bring a probability.
SLACK: Final = 1e-3

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
    values = scores.astype(np.float64)
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
