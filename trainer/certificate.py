"""The certificate: which confidence is enough, proved from people's answers while they come in.

Theory of operation. The operator promises that at most a share alpha of the automatic answers is wrong, with
confidence 1 - delta. A request t of the population has a confidence c_t, an error E_t (1 where the prediction was not
the truth, else 0), a probability q_t > 0 with which it was to be reviewed blind, and the draw xi_t in {0, 1} that came
of it; p_t <= q_t is the lowest probability that was in force. For a threshold theta and a stake kappa in (0, 1)

    X_t = 1{c_t >= theta} (xi_t / q_t) (E_t - alpha)         F_t = 1 - kappa p_t / (1 - alpha) X_t
    K_t = mean over kappa of F_1 F_2 ... F_t                 theta is certified once sup over t of K_t >= 1 / delta

*No bet wins on average where the promise fails.* Say that the risk r = P(E = 1 | c >= theta) is at least alpha. What
was before t decides the rule that q_t follows (1 below tau, the audit share above) and p_t. Given that past, (c_t, E_t)
is a new request, and xi_t given c_t is a coin of probability q_t that knows nothing of E_t. So xi_t / q_t has mean 1
given (c_t, E_t), and E[X_t | past] = P(c >= theta) (r - alpha) >= 0, whatever the rule. As kappa, p_t >= 0, the mean of
F_t given the past is at most 1. *No factor is negative*: X_t <= (1 - alpha) / q_t, so F_t >= 1 - kappa p_t / q_t >= 1 -
kappa > 0. So each product, and their mean K, is a non-negative supermartingale that begins at 1, and Ville's inequality
says P(sup over t of K_t >= 1 / delta) <= delta. That the supremum is over all t is what allows to look after every
label, to stop when it suffices, and to let what was certified set tau and so the next q. It needs three things of its
surroundings, and gets them: requests are exchangeable within an epoch; p_t and the rule for q_t follow from records
before t alone, in an order fixed before any label is known (`trainer.watermark`); the draw is a hash under a secret.

*An error that is only assumed* (no label in time) makes a factor smaller, as does a record that never came and counts
as an error at every confidence with p / q = 1: both keep K below the process of the proof.

*A walk that begins at several places.* The grid is frozen before the first record counts and goes from the strictest
threshold to the loosest. With it each has a share of delta, most of them none. A threshold is certified at its own
share and, if the one before is certified, at what that one was certified at besides; where it is not, what it had is
lost. Let theta be one whose risk is above alpha, and theta' the nearest such before it. While theta' is not certified,
theta has no more than the shares from behind theta' up to itself; to be certified at that level its own process must
reach 1 / level, which has at most that probability. Over all such theta these levels add up to delta at most, so with
probability 1 - delta none is ever certified. (The fallback procedure of Wiens and Dmitrienko, 2005; with all of delta
at the strictest it is a fixed sequence.) That risk rises as the threshold falls is not needed. `grid` puts 95 % of
delta where 40 % of the requests get through, for a walk from there to the loosest, and the rest on stricter ones in
equal parts: they see few audits, and a walk that had to begin with them would keep every model waiting.

*What is kept.* ln F depends on its record alone and an unsampled record has F = 1: the sums of logarithms, thresholds x
stakes, add up over any cut of the ledger. The supremum does not: it is found by going through the records in their
order, beginning from the sums so far. Whoever looks less often finds a smaller supremum, never a false one.

The same records certify a challenger: c_t and E_t are its own, q_t and xi_t those of the request as it was served.
After Waudby-Smith and Ramdas (Estimating means of bounded random variables by betting, 2024) and Howard et al. (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.promise import HEAD_COVERAGES, HEAD_SHARE, RISK_MAX, STAKES, WALK_COVERAGE, Promise

Floats = NDArray[np.float64]
Shares: TypeAlias = tuple[float, ...]

_WALK: Final = 20
_COVERAGES: Final = np.concatenate([HEAD_COVERAGES, np.linspace(WALK_COVERAGE, 1.0, _WALK)])
_SHARES: Final = np.array(
    [HEAD_SHARE / len(HEAD_COVERAGES)] * len(HEAD_COVERAGES) + [1 - HEAD_SHARE] + [0] * (_WALK - 1)
)
# Of so many records at a time are the factors in memory, and multiplied from the exact sum on.
_STRIDE: Final = 256
# Sums of logarithms beyond this are as good as proved; a stride later their powers must still be numbers.
_LOG_MAX: Final = 500.0
# Nobody needs to know more exactly how much more than proved a threshold is.
_PEAK_MAX: Final = 490.0
_BOUND_STEPS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Sampled records in their order, which is the last axis; axes before it are independent streams.

    `confidence` of the version judged (infinite: counts at every threshold), `weight` = p / q in (0, 1] where a blind
    review was drawn, and 0 where none was or the record is not of the population; `error` is 1 or 0.
    """

    confidence: Floats
    weight: Floats
    error: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """A process so far: `logs` (..., stakes, thresholds), sums of ln F, and `peaks` (..., thresholds), ln sup K.

    A peak above 490 stands as 490.
    """

    logs: Floats
    peaks: Floats


def begin(thresholds: int, streams: tuple[int, ...] = ()) -> State:
    """Return the state before the first record: K = 1 everywhere."""
    return State(logs=np.zeros((*streams, len(STAKES), thresholds)), peaks=np.zeros((*streams, thresholds)))


def advance(state: State, evidence: Evidence, thresholds: Floats, alpha: float | Floats) -> State:
    """Count `evidence`, which comes after all that `state` holds; `thresholds` from the strictest to the loosest.

    Where `alpha` is an array (streams, 1), each stream is tested against its own.
    """
    logs, peaks = state.logs, state.peaks
    gain = evidence.weight * (evidence.error - alpha) / (1 - alpha)
    gains = -gain[..., np.newaxis] * np.array(STAKES)
    for first in range(0, gain.shape[-1], _STRIDE):
        part = gains[..., first : first + _STRIDE, :]
        counts = (evidence.confidence[..., first : first + _STRIDE, np.newaxis] >= thresholds).astype(np.float64)
        peaks = np.maximum(peaks, np.minimum(np.log(_highest(logs, part, counts)), _PEAK_MAX))
        logs = logs + np.swapaxes(np.log1p(part), -1, -2) @ counts
    return State(logs=logs, peaks=peaks)


def _highest(logs: Floats, gains: Floats, counts: Floats) -> Floats:
    """Return the highest K after any of some records: `gains` is F - 1 (..., records, stakes), `counts` their 1{c}."""
    powers = np.exp(np.minimum(logs, _LOG_MAX))
    # Far below any peak, and above 0, of which there is no logarithm.
    best = np.full(powers.sum(axis=-2).shape, np.finfo(np.float64).tiny)
    for record in range(gains.shape[-2]):
        # Not a power of the new sums for each record: that takes three times as long.
        powers = powers * (1 + counts[..., record, np.newaxis, :] * gains[..., record, :, np.newaxis])
        best = np.maximum(best, powers.sum(axis=-2))
    return best / len(STAKES)


def log_evidence(state: State) -> Floats:
    """Return ln K as it stands now, which may be below its peak; shape (..., thresholds); above 490: 490."""
    values: Floats = np.logaddexp.reduce(state.logs, axis=-2) - log(len(STAKES))
    return np.minimum(values, _PEAK_MAX)


def walk(state: State, delta: float, shares: Shares = ()) -> tuple[NDArray[np.bool_], Floats]:
    """Return which thresholds are certified, and the ln K that each takes; both (..., thresholds).

    `shares` of `delta` are the thresholds' own, the strictest's above 0; none: the strictest has all of it. Where a
    threshold waits for the one before, what it takes is told as if that one were certified as it stands.
    """
    shares = shares or _strictest(state.peaks.shape[-1])
    held, needed = np.zeros(state.peaks.shape, np.bool_), np.empty(state.peaks.shape)
    here, level = np.zeros(state.peaks.shape[:-1], np.bool_), np.zeros(state.peaks.shape[:-1])
    for place, share in enumerate(shares):
        level = np.where(here | (share == 0), level, 0.0) + delta * share
        needed[..., place] = -np.log(level)
        here = (here | (share > 0)) & (state.peaks[..., place] >= needed[..., place])
        held[..., place] = here
    return held, needed


def _strictest(thresholds: int) -> Shares:
    return (1.0, *[0.0] * (thresholds - 1))


def certified(state: State, delta: float, shares: Shares = ()) -> NDArray[np.intp]:
    """Return the place of the loosest certified threshold, counted from 1 at the strictest; 0: none; shape (...)."""
    held, _ = walk(state, delta, shares)
    places: NDArray[np.intp] = (held * np.arange(1, held.shape[-1] + 1)).max(axis=-1)
    return places


def tau(state: State, thresholds: Floats, delta: float, shares: Shares = ()) -> float | None:
    """Return the loosest certified threshold of one stream; None while there is none."""
    place = int(certified(state, delta, shares))
    return float(thresholds[place - 1]) if place else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Thresholds to certify, strictest first, and which share of delta each has to itself."""

    thresholds: Floats
    shares: Shares


def grid(confidences: Floats) -> Grid:
    """Return what to certify, from unlabelled `confidences`; raises InvalidError for none.

    The strictest lets 5 % of them through, the loosest all; fewer thresholds where confidences tie, which share what
    they have.
    """
    if not len(confidences) or not np.isfinite(confidences).all():
        raise InvalidError(f"grid: expected finite confidences, got {len(confidences)} values")
    descending = np.sort(confidences)[::-1]
    places = [ceil(share * len(descending) - 1e-9) - 1 for share in _COVERAGES]
    negative, place = np.unique(-descending[places], return_inverse=True)
    shares = np.bincount(place, weights=_SHARES)
    return Grid(thresholds=-negative.astype(np.float64), shares=tuple((shares / max(1.0, shares.sum())).tolist()))


def error_bound(evidence: Evidence, tau: float, promise: Promise) -> float:
    """Return an upper bound on the share of wrong answers from `tau` on, of one stream; 1 where there is too little.

    By turning the test round: the smallest alpha of a fine scale such that it and all above it are rejected at
    `promise.delta`. It holds at all times at once, for a `tau` that was fixed beforehand.
    """
    return bound(narrow(begin_bound(), evidence, tau, promise), promise)


def begin_bound() -> State:
    """Return the state of an `error_bound` before the first record; `narrow` goes on from it."""
    return begin(1, (_BOUND_STEPS,))


def narrow(state: State, evidence: Evidence, tau: float, promise: Promise) -> State:
    """Count `evidence` of one stream, which comes after all that `state` holds, against every alpha of the scale."""
    alphas = _alphas(promise)[:, np.newaxis]
    chosen = (evidence.confidence >= tau) & (evidence.weight > 0)
    for first in range(0, int(chosen.sum()), _STRIDE):
        part = [
            column[chosen][None, first : first + _STRIDE]
            for column in (evidence.confidence, evidence.weight, evidence.error)
        ]
        state = advance(state, Evidence(confidence=part[0], weight=part[1], error=part[2]), np.array([tau]), alphas)
    return state


def bound(state: State, promise: Promise) -> float:
    """Return the bound that a state of `narrow` has come to."""
    rejected = int(np.logical_and.accumulate(state.peaks[:, 0] >= log(1 / promise.delta)).sum())
    return float(_alphas(promise)[rejected - 1]) if rejected else 1.0


def _alphas(promise: Promise) -> Floats:
    """Return the scale, from the largest."""
    return np.geomspace(RISK_MAX, promise.alpha / 20, _BOUND_STEPS)
