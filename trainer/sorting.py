"""How well a version's scores sort right from wrong on held-out examples, for reports; nothing is decided by it. Pure.

The temperature makes probabilities that are shown honest: what answers, and what is proved, is compared with scores as
the model gives them, whatever they are worth.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from scipy.optimize import minimize_scalar

from gateway.confidence import Scorer, confidence, score
from gateway.correctness import Correctness
from gateway.promise import Promise
from trainer.certificate import Evidence, Floats, advance, begin, grid, tau
from trainer.evaluate import Indices
from trainer.selective import calibration_error, coverage_at, measure_selective
from trainer.train import log_sum_exp

# Beyond these no probability that is shown would change.
TEMPERATURE_MIN: Final = 0.05
TEMPERATURE_MAX: Final = 20.0


class Sorting(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of `scorer` over held-out examples, see `trainer.selective.Selective`; lower is better, but for coverage.

    `ece` is of the largest probability as the model gives it, `ece_tempered` of that at `temperature`, which was fitted
    on the same examples. `certified_coverage` is the share that a certificate by these examples alone, all reviewed,
    would answer at `alpha`; both None where nothing is promised.
    """

    scorer: str
    aurc: float
    e_aurc: float
    augrc: float
    ece: float
    ece_tempered: float
    temperature: float
    alpha: float | None = None
    certified_coverage: float | None = None


def sort(
    logits: Floats, labels: Indices, scorer: Scorer, promise: Promise | None, learned: Correctness | None = None
) -> Sorting | None:
    """Return the figures of `logits` (examples x labels) against the true `labels`; None where there is no example.

    Where `learned` was learnt from these very examples, its figures flatter it.
    """
    if not len(labels):
        return None
    scores, predicted = score(logits, "softmax", scorer, learned)
    error = (predicted != labels).astype(np.float64)
    heat = temperature(logits, labels)
    found = measure_selective(scores, error, confidence(logits, "softmax")[0])
    return Sorting(
        scorer=scorer.value,
        aurc=found.aurc,
        e_aurc=found.e_aurc,
        augrc=found.augrc,
        ece=found.ece,
        ece_tempered=calibration_error(confidence(logits / heat, "softmax")[0], error),
        temperature=heat,
        alpha=None if promise is None else promise.alpha,
        certified_coverage=None if promise is None else certified_coverage(scores, error, promise),
    )


def temperature(logits: Floats, labels: Indices) -> float:
    """Return by what `logits` (examples x labels) are to be divided so that `labels` are likeliest (Guo et al., 2017).

    Between 0.05 and 20. Where every example is right no temperature is low enough, and 1 is returned: nothing is known.
    """
    rows = np.arange(len(labels))
    if bool((logits.argmax(axis=1) == labels).all()):
        return 1.0

    def unlikeliness(log_heat: float) -> float:
        cooled = logits / np.exp(log_heat)
        return float((log_sum_exp(cooled) - cooled[rows, labels]).mean())

    found = minimize_scalar(unlikeliness, bounds=(np.log(TEMPERATURE_MIN), np.log(TEMPERATURE_MAX)), method="bounded")
    return float(np.exp(found.x))


def certified_coverage(scores: Floats, error: Floats, promise: Promise) -> float:
    """Return the share of `scores` that a certificate proved by these examples alone would let through.

    They count in an order drawn by lot, the same each time: the order that they were kept in says whence they came.
    """
    order = np.random.default_rng(0).permutation(len(scores))
    chosen = grid(scores)
    evidence = Evidence(confidence=scores[order], weight=np.ones(len(scores)), error=error[order])
    state = advance(begin(len(chosen.thresholds)), evidence, chosen.thresholds, promise.alpha)
    return coverage_at(scores, tau(state, chosen.thresholds, promise.delta, chosen.shares))
