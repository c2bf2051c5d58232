"""Many runs of a certified stream at once: the library's own arithmetic, with arrays in place of requests.

A run's requests come in order; tau, and with it who is asked, follows from what was certified before. Axes: run,
request.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.promise import Promise
from trainer.certificate import Evidence, Shares, State, advance, begin, certified

Floats = NDArray[np.float64]
Counts = NDArray[np.intp]

# A tau is taken into force every so many requests; each label counts at once, though.
BLOCK = 10


def report(sentence: str) -> None:
    """Tell a figure as measured; `pytest -s` shows it."""
    sys.stdout.write(f"{sentence}\n")


def scores_file(name: str) -> Path | None:
    """Return a file of the score streams that lie beside the repository, None where there are none."""
    root = Path(__file__).parents[2]
    places = (folder / "shared" / "data" / name for folder in root.parents[:2])
    return next((place for place in places if place.exists()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """Confidences that are uniform, thresholds at given coverages, and the risk above each of them."""

    coverage: Floats
    risk: Floats

    @property
    def thresholds(self) -> Floats:
        """Strictest first."""
        return 1 - self.coverage

    def stream(self, rng: np.random.Generator, runs: int, requests: int) -> tuple[Floats, Floats]:
        """Return confidences and errors, whose share from each threshold on is `risk`."""
        confidence = rng.random((runs, requests))
        wrong = np.diff(self.risk * self.coverage, prepend=0) / np.diff(self.coverage, prepend=0)
        assert ((wrong >= 0) & (wrong <= 1)).all()
        band = np.searchsorted(self.coverage, 1 - confidence).clip(max=len(wrong) - 1)
        return confidence, (rng.random((runs, requests)) < wrong[band]).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The state at the end, how many thresholds were in force by block, and how many reviews it took (by run)."""

    state: State
    in_force: Counts
    reviews: Counts


def simulate(
    confidence: Floats,
    error: Floats,
    thresholds: Floats,
    promise: Promise,
    rng: np.random.Generator,
    *,
    audit_share: float,
    blind_share: float = 1.0,
    ignore_q: bool = False,
    shares: Shares = (),
) -> Outcome:
    """Certify runs x requests; below tau a share `blind_share` is reviewed blind, above `audit_share`.

    `shares` of delta are the thresholds' own; none: the strictest has all.
    """
    runs, requests = confidence.shape
    state = begin(len(thresholds), (runs,))
    steps = np.concatenate([[np.inf], thresholds])
    in_force, reviews = [], np.zeros(runs, np.intp)
    for first in range(0, requests, BLOCK):
        c, e = confidence[:, first : first + BLOCK], error[:, first : first + BLOCK]
        held = certified(state, promise.delta, shares)
        q = np.where(c >= steps[held][:, np.newaxis], audit_share, blind_share)
        floor = np.where(held > 0, min(audit_share, blind_share), blind_share)[:, np.newaxis]
        drawn = rng.random(c.shape) < q
        weight = np.where(drawn, 1.0 if ignore_q else floor / q, 0.0)
        state = advance(state, Evidence(confidence=c, weight=weight, error=e), thresholds, promise.alpha)
        in_force.append(held)
        reviews += drawn.sum(axis=1)
    return Outcome(state=state, in_force=np.array(in_force).T, reviews=reviews)


def violations(state: State, risk: Floats, promise: Promise, *, from_alpha_on: bool = False) -> int:
    """Return how many runs certified any threshold whose risk is above alpha (or exactly alpha)."""
    false = risk >= promise.alpha if from_alpha_on else risk > promise.alpha
    reached = np.concatenate([[False], np.logical_or.accumulate(false)])
    return int(reached[certified(state, promise.delta)].sum())
