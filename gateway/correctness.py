"""A learned score: how likely an answer is right, by a logistic curve over what the model's probabilities say. Pure.

It is learnt from answers that people judged (`trainer.learned`), stands in the manifest of one version, and so never
changes while something is proved of that version. A certificate holds whatever it is worth: a bad one sorts badly, and
less is proved.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEATURES: Final = ("margin", "largest", "ratio", "entropy")
# Of odds and ratios; beyond it nothing more is told.
_LOG_MAX: Final = 20.0
_Finite = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class Correctness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a learned score is made of: a weight for each of `features`, and one number added, both in log odds.

    `by_label` is added by predicted label, one for each of the model's; empty: nothing.
    """

    weights: tuple[_Finite, _Finite, _Finite, _Finite]
    bias: _Finite = 0.0
    by_label: tuple[_Finite, ...] = ()


def features(probabilities: Floats) -> Floats:
    """Return what `FEATURES` name, of each row of `probabilities` (rows x classes): shape (rows, 4).

    The margin of the two largest, the largest's log odds and log ratio to the second, each over 20 and cut off there,
    and the entropy over its most.
    """
    values = np.clip(probabilities, 1e-12, 1.0)
    classes = values.shape[1]
    # With one class only, nothing comes second.
    top = np.partition(values, -2, axis=1)[:, -2:] if classes > 1 else np.hstack([np.full_like(values, 1e-12), values])
    second, largest = top[:, 0], top[:, 1]
    odds = np.log(largest) - np.log(np.maximum(1 - largest, 1e-12))
    ratio = np.log(largest) - np.log(second)
    entropy = -(values * np.log(values)).sum(axis=1) / np.log(max(2, classes))
    return np.stack(
        [
            largest - second,
            np.clip(odds, -_LOG_MAX, _LOG_MAX) / _LOG_MAX,
            np.clip(ratio, 0, _LOG_MAX) / _LOG_MAX,
            entropy,
        ],
        axis=1,
    )


def correctness(probabilities: Floats, predicted: NDArray[np.intp], learned: Correctness) -> Floats:
    """Return how likely each row's answer is right, in (0, 1)."""
    odds = features(probabilities) @ np.array(learned.weights) + learned.bias
    if learned.by_label:
        odds = odds + np.array(learned.by_label)[predicted]
    found: Floats = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return found
