"""How well a score sorts right from wrong: what is risked at each coverage, and the figures made of it. Pure.

Errors among equal scores are spread evenly over them, as if their order were drawn by lot, so that no figure depends
on the order in which examples came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fallback.errors import InvalidError
from trainer.certificate import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Selective:
    """Figures over labelled examples; lower is better, except for coverage.

    `aurc`: mean risk over all coverages; `e_aurc`: by how much that exceeds the best order's; `augrc`: mean share of
    all examples that is both let through and wrong (Traub et al., 2024); `ece`: mean distance of confidence from
    accuracy over 15 equal bins, NaN for a score that is no probability.
    """

    error: float
    aurc: float
    e_aurc: float
    augrc: float
    ece: float


def risk_coverage(score: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Return coverage (rising, 1/n to 1) and the share of wrong ones among so many of the highest scores."""
    errors = _errors(score, error)
    numbers = np.arange(1, len(errors) + 1)
    return numbers / len(errors), errors / numbers


def measure_selective(score: Floats, error: Floats, probability: Floats | None = None) -> Selective:
    """Return the figures of `score` against `error` (1: wrong); `probability` is what to compare with the accuracy.

    Raises InvalidError where there is no example.
    """
    _, risk = risk_coverage(score, error)
    _, best = risk_coverage(-error, error)
    numbers = np.arange(1, len(risk) + 1)
    return Selective(
        error=float(risk[-1]),
        aurc=float(risk.mean()),
        e_aurc=float(risk.mean() - best.mean()),
        augrc=float((risk * numbers / len(risk)).mean()),
        ece=float("nan") if probability is None else calibration_error(probability, error),
    )


def calibration_error(probability: Floats, error: Floats, *, bins: int = 15) -> float:
    """Return the expected calibration error: |accuracy - mean probability| by bin, weighted by the bin's share."""
    place = np.minimum((probability * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(place, weights=(1 - error) - probability, minlength=bins)
    return float(np.abs(gaps).sum() / len(error))


def coverage_at(score: Floats, threshold: float | None) -> float:
    """Return the share of scores that `threshold` lets through; None lets nothing through."""
    return 0.0 if threshold is None else float((score >= threshold).mean())


def oracle_coverage(score: Floats, error: Floats, alpha: float) -> float:
    """Return the coverage of the loosest threshold whose risk is at most `alpha`, for one who knows all labels."""
    descending = np.sort(score)[::-1]
    # A threshold lets all equal scores through, so only their last place counts.
    last = np.append(descending[1:] != descending[:-1], True)
    _, risk = risk_coverage(score, error)
    held = np.flatnonzero(last & (risk <= alpha))
    return float(held[-1] + 1) / len(score) if len(held) else 0.0


def _errors(score: Floats, error: Floats) -> Floats:
    """Return how many of the k highest scores are wrong, k = 1 to n."""
    if not len(score) or len(score) != len(error):
        raise InvalidError(f"examples: expected as many scores as errors, got {len(score)} and {len(error)}")
    _, group, sizes = np.unique(-score, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=error)
    return np.cumsum(np.repeat(wrong / sizes, sizes))
