"""The scores that are streamed, and what only whoever holds their labels knows: the true risk of a threshold. Pure.

The file stands for the world: requests are drawn from its rows with replacement, so that what a threshold really lets
through, and how much of that is wrong, can be counted over all rows. Nothing of it reaches the system that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.confidence import SLACK, Activation, score

ROWS_MAX: Final = 1_000_000
CLASSES_MAX: Final = 1_000

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`values` (rows, classes) as the model gives them, `labels` (rows) below classes.

    `activation` makes probabilities of them; `margins` (rows) in [0, 1] is what a threshold is compared with, and
    `wrong` whether the predicted class is not the label.
    """

    values: NDArray[np.float32]
    labels: Rows
    activation: Activation
    margins: NDArray[np.float64]
    wrong: NDArray[np.bool_]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels' names, in the order of the scores."""
        return tuple(map(str, range(self.values.shape[1])))

    def coverage(self, tau: float) -> float:
        """Return the share of the rows that `tau` lets through."""
        return float(np.mean(self.margins >= tau))

    def risk(self, tau: float) -> float:
        """Return the share of wrong ones among the rows that `tau` lets through; 0 where it lets none."""
        through = self.margins >= tau
        return float(np.mean(self.wrong[through])) if through.any() else 0.0

    def oracle(self, alpha: float) -> float:
        """Return the largest share of the rows that any threshold lets through at a risk of `alpha` or less."""
        order = np.argsort(-self.margins, kind="stable")
        margins, errors = self.margins[order], np.cumsum(self.wrong[order])
        count = np.arange(1, len(order) + 1)
        # Between rows that tie there is no threshold.
        ends = np.append(margins[1:] < margins[:-1], [True])
        good = count[ends & (errors <= alpha * count)]
        return float(good.max()) / len(order) if good.size else 0.0

    def draw(self, requests: int, seed: int) -> Rows:
        """Return the row of each of `requests` requests, drawn with replacement."""
        return np.random.default_rng(seed).integers(len(self.labels), size=requests).astype(np.intp)


def make(values: NDArray[Any], labels: NDArray[Any], activation: Activation | None = None) -> Scores:
    """Judge what two files hold; raises InvalidError naming the option, what was expected and got.

    No activation: "none" where the values are probabilities, else "softmax".
    """
    if values.ndim != 2 or not (1 <= len(values) <= ROWS_MAX and 2 <= values.shape[1] <= CLASSES_MAX):  # noqa: PLR2004 - rows, classes
        raise InvalidError(
            f"--scores: expected an array (1 to {ROWS_MAX} rows, 2 to {CLASSES_MAX} classes), got one of shape "
            f"{values.shape}"
        )
    if not (np.issubdtype(values.dtype, np.floating) and np.all(np.isfinite(values))):
        raise InvalidError(f"--scores: expected finite floating-point numbers, got {values.dtype} or some that are not")
    if labels.shape != (len(values),) or not np.issubdtype(labels.dtype, np.integer):
        raise InvalidError(
            f"--labels: expected {len(values)} whole numbers, one a row of the scores, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise InvalidError(
            f"--labels: expected numbers from 0 to {values.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    # As they go over the wire and through the model.
    given = values.astype(np.float32)
    if activation is None:
        activation = "none" if _probabilities(given) else "softmax"
    margins, predicted = score(given, activation)
    truth = labels.astype(np.intp)
    return Scores(values=given, labels=truth, activation=activation, margins=margins, wrong=predicted != truth)


def load(scores: Path, labels: Path) -> Scores:
    """Read two .npy files: scores (rows, classes), probabilities or logits, and the label of each row."""
    return make(_read("--scores", scores), _read("--labels", labels))


def _read(option: str, path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidError(f"{option} {path}: expected an .npy file, got {error}") from error
    if not isinstance(found, np.ndarray):
        raise InvalidError(f"{option} {path}: expected an .npy file, got {type(found).__name__}")
    return found


def _probabilities(values: NDArray[np.float32]) -> bool:
    inside = np.all((values >= -SLACK) & (values <= 1 + SLACK))
    return bool(inside and np.all(np.abs(values.sum(axis=1) - 1) <= SLACK))
