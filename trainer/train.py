"""The refit: a multinomial logistic regression on fixed features, pulled towards the weights that are live.

Minimised over the change D = (dW, db) of the last layer, which starts at zero:

    sum_i w_i * cross_entropy(y_i, softmax(f_i (W + dW) + b + db))  +  k / 2 * s2 * |D|^2

s2 is the mean squared length of the features, so that `k` means the same whatever their scale: as many examples as
speak for the old weights. The function is strictly convex, so the answer is one and does not depend on the order of
examples; it is found with L-BFGS (Liu and Nocedal, 1989) as SciPy has it. With no examples the answer is D = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """New `weights` (features x labels) and `bias` (labels), and how the optimiser ended."""

    weights: Floats
    bias: Floats
    iterations: int
    converged: bool


def refit(
    features: Floats,
    labels: Indices,
    sample_weights: Floats,
    *,
    weights: Floats,
    bias: Floats,
    regularisation: float,
    iterations_max: int,
    go_on: Callable[[], None] = lambda: None,
) -> Fit:
    """Fit the last layer to examples, starting from and pulled towards `weights` and `bias`.

    `features` (examples x features), `labels` (examples) as indices, `sample_weights` (examples) > 0. `go_on` is called
    at every step; what it raises ends the fit.
    """
    if not len(features):
        return Fit(weights=weights, bias=bias, iterations=0, converged=True)
    _check(features, labels, sample_weights, weights)
    size, count = weights.shape
    start = features @ weights + bias
    rows = np.arange(len(labels))
    total = sample_weights.sum()
    # Features that are all zero teach the bias alone; it is pulled as a feature of length 1 would be.
    pull = regularisation * (float(np.square(features).sum(axis=1).mean()) or 1.0) / total

    def loss(change: Floats) -> tuple[float, Floats]:
        go_on()
        moved = change[: size * count].reshape(size, count)
        logits = start + features @ moved + change[size * count :]
        spread = log_sum_exp(logits)
        value = sample_weights @ (spread - logits[rows, labels]) / total
        excess = np.exp(logits - spread[:, None])
        excess[rows, labels] -= 1.0
        excess *= (sample_weights / total)[:, None]
        slope = np.concatenate([(features.T @ excess).ravel(), excess.sum(axis=0)])
        return value + pull / 2 * float(change @ change), slope + pull * change

    found = minimize(
        loss, np.zeros(size * count + count), jac=True, method="L-BFGS-B", options={"maxiter": iterations_max}
    )
    moved = found.x[: size * count].reshape(size, count)
    return Fit(
        weights=weights + moved,
        bias=bias + found.x[size * count :],
        iterations=int(found.nit),
        converged=bool(found.success),
    )


def balanced(labels: Indices, count: int) -> Floats:
    """Return a weight for each example such that every label that occurs weighs the same in all; they sum to len."""
    seen = np.bincount(labels, minlength=count)
    present = np.count_nonzero(seen)
    return np.asarray(len(labels) / (present * seen[labels].astype(np.float64)))


def forward(features: Floats, weights: Floats, bias: Floats) -> Floats:
    """Return probabilities (examples x labels)."""
    logits = features @ weights + bias
    return np.exp(logits - log_sum_exp(logits)[:, None])


def log_sum_exp(logits: Floats) -> Floats:
    """Return log(sum(exp(logits))) over the last axis without overflow."""
    highest = logits.max(axis=1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))


def _check(features: Floats, labels: Indices, sample_weights: Floats, weights: Floats) -> None:
    size, count = weights.shape
    if features.shape != (len(features), size):
        raise ValueError(f"features: expected shape [examples, {size}], got {list(features.shape)}")
    if labels.shape != (len(features),) or labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"labels: expected {len(features)} indices below {count}, got shape {list(labels.shape)}")
    if sample_weights.shape != labels.shape or not (sample_weights > 0).all():
        raise ValueError("sample_weights: expected one positive number for each example")
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers, got NaN or infinity")
