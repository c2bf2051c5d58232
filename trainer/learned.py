"""Learns a score of how likely a version's answers are right, from the examples that it was not trained on. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.optimize import minimize

from gateway.confidence import softmax
from gateway.correctness import FEATURES, Correctness, features
from trainer.certificate import Floats
from trainer.evaluate import Indices

# Of fewer examples nothing is learnt.
EXAMPLES_MIN: Final = 30
# How much a number that is not 0 must explain, in examples; labels that are rarely predicted stay near 0.
_RIDGE: Final = 1.0
# Numbers as long as they matter, so that the same examples give the same manifest everywhere.
_DIGITS: Final = 6


def learn(logits: Floats, labels: Indices) -> Correctness | None:
    """Return the score that fits `logits` (examples x labels) and the true `labels` best; None where there are too few.

    Logistic regression of being right, with a ridge of one example on every number but the bias.
    """
    if len(labels) < EXAMPLES_MIN:
        return None
    count, predicted = logits.shape[1], logits.argmax(axis=1)
    right = (predicted == labels).astype(np.float64)
    table = np.hstack([features(softmax(logits)), np.eye(count)[predicted], np.ones((len(labels), 1))])
    penalty = np.full(table.shape[1], _RIDGE)
    penalty[-1] = 1e-3

    def loss(numbers: Floats) -> tuple[float, Floats]:
        odds = table @ numbers
        told = np.logaddexp(0, odds) - right * odds
        slope = table.T @ (1 / (1 + np.exp(-odds)) - right) + penalty * numbers
        return float(told.sum() + 0.5 * (penalty * numbers**2).sum()), slope

    found = minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x.round(_DIGITS).tolist()
    weights, by_label, bias = found[: len(FEATURES)], found[len(FEATURES) : -1], found[-1]
    return Correctness(weights=tuple(weights), by_label=tuple(by_label), bias=bias)
