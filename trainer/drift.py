"""When a promise that was proved is no longer kept: an alarm that audits raise, and more audits where inputs change.

Theory of operation. A certificate speaks of requests like those that proved it. While it is in force, each audit of an
automatic answer multiplies, for each stake, M <- max(M, 1) (1 + stake (p / alpha) X), with X as in
`trainer.certificate`. While the risk is at most alpha the factor's mean is at most 1, so M exceeds the sum of what
fresh bets begun at each audit are worth on average: reaching `ALARM` takes 1,000 audits on average, or more, and far
more where the risk is below alpha. Errors beyond alpha multiply quickly. No factor is negative, as p <= q. (Shin,
Ramdas and Rinaldo, E-detectors, 2022.) M counts records in the certificate's order, so an alarm has one place that
anybody can find again.

Errors take labels; confidences are there at once. A histogram of them that differs from the one at the time of
certification says only that something changed, not that it is worse: it raises the audit share, never lowers it, and
never touches tau. For the proof it must come from seconds that the watermark, or at least every gateway, has passed.

A certificate ends at a second fixed beforehand, and the next process begins early enough to be there by then. Both
count the same records for a while; the older one that has proved something stays in force until it ends, the rule being
fixed before (`trainer.terms.in_force`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from scipy.stats import chi2

from fallback.errors import InvalidError
from trainer.certificate import Floats

STAKES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
ALARM: Final = 1_000.0
# By chance alone one look in ten thousand raises the share.
_HISTOGRAM_LEVEL: Final = 1e-4
_COUNT_MIN: Final = 5
_LEVEL_MAX: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """M by stake, shape (..., stakes), and the highest mean over the stakes so far, shape (...)."""

    levels: Floats
    highest: Floats


def calm(streams: tuple[int, ...] = ()) -> Drift:
    """Return the state before the first audit."""
    return Drift(levels=np.ones((*streams, len(STAKES))), highest=np.ones(streams))


def watch(drift: Drift, weight: Floats, error: Floats, alpha: float) -> Drift:
    """Count audits of automatic answers in their order, the last axis: `weight` = p / q, `error` 1 or 0.

    A weight of 0 (not drawn, or below tau) changes nothing.
    """
    levels, highest, stakes = drift.levels, drift.highest, np.array(STAKES)
    for audit in range(error.shape[-1]):
        gain = weight[..., audit, np.newaxis] * (error[..., audit, np.newaxis] - alpha) / alpha
        moved = np.minimum(np.maximum(levels, 1) * (1 + stakes * gain), _LEVEL_MAX)
        levels = np.where(weight[..., audit, np.newaxis] > 0, moved, levels)
        highest = np.maximum(highest, levels.mean(axis=-1))
    return Drift(levels=levels, highest=highest)


def alarmed(drift: Drift) -> np.typing.NDArray[np.bool_]:
    """Return whether the alarm was ever reached; shape (...)."""
    rung: np.typing.NDArray[np.bool_] = drift.highest >= ALARM
    return rung


def histogram_changed(reference: Sequence[int], recent: Sequence[int]) -> float:
    """Return the p-value of both histograms (counts by the same bins) being of one distribution; 1 where too little.

    Pearson's chi-square of two samples; bins that expect fewer than five in either are joined with their neighbours.
    """
    if len(reference) != len(recent):
        raise InvalidError(f"histogram: expected {len(reference)} bins, got {len(recent)}")
    both = _joined(np.array([reference, recent], np.float64))
    if both.shape[1] == 1:
        return 1.0
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0) / both.sum()
    statistic = ((both - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, both.shape[1] - 1))


def raised_share(share: float, reference: Sequence[int], recent: Sequence[int], *, raised: float) -> float:
    """Return the audit share from now on: `raised` where the histogram changed, and never less than `share`."""
    return max(share, raised) if histogram_changed(reference, recent) < _HISTOGRAM_LEVEL else share


def renew_second(*, expire_second: int, audits: int, audits_per_second: float, safety: float = 2.0) -> int:
    """Return when the next process must begin so that `audits` come in time, `safety` times over."""
    if not audits_per_second > 0:
        raise InvalidError(f"audits_per_second: expected a rate above 0, got {audits_per_second}")
    return expire_second - ceil(safety * audits / audits_per_second)


def _joined(counts: Floats) -> Floats:
    """Join neighbouring bins (the last axis) until either sample expects at least `_COUNT_MIN` in each."""
    shares = counts.sum(axis=1, keepdims=True) / max(counts.sum(), 1.0)
    joined: list[Floats] = []
    for column in counts.T:
        if joined and (joined[-1].sum() * shares).min() < _COUNT_MIN:
            joined[-1] = joined[-1] + column
        else:
            joined.append(column)
    if len(joined) > 1 and (joined[-1].sum() * shares).min() < _COUNT_MIN:
        last = joined.pop()
        joined[-1] = joined[-1] + last
    return np.array(joined).T
