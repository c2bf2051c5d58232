"""The promotion gate: whether a retrained version may take over, as a pure function of both versions' answers.

Both are judged on the same held-out examples, so the comparison is paired: only the examples that one got right and
the other wrong say anything. How likely such a split is by chance alone is the one-sided sign test (the exact form of
McNemar's, 1947), which knows by itself how little three examples of a rare label prove.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from scipy.special import bdtrc

from trainer.evaluate import Flags, Judged, Metrics, measure

_NAMED_MAX: Final = 20


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """What is let through; shares in [0, 1), see TrainerSettings."""

    holdout_min: int
    accuracy_drop_max: float
    recall_drop_max: float
    error_rise_max: float
    significance: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the candidate takes over, and a sentence for each thing that was looked at."""

    promote: bool
    reasons: tuple[str, ...]


def decide(live: Judged, candidate: Judged, names: tuple[str, ...], tolerances: Tolerances) -> Decision:
    """Say whether `candidate` may replace `live`; both judged on the same examples in the same order.

    Refused: too few examples; accuracy lower by more than the tolerance, or lower by no chance; a label's recall lower
    by more than the tolerance and by no chance; the error among automatic answers likewise.
    """
    count = len(live.labels)
    if count < tolerances.holdout_min:
        reason = (
            f"hold-out: expected at least {tolerances.holdout_min} examples to judge by, got {count}; import some with "
            f"`demur train import-examples MODEL FILE.npz --split holdout`"
        )
        return Decision(promote=False, reasons=(reason,))
    old, new = measure(live, names), measure(candidate, names)
    blind = [name for name in names if name not in old.recall]
    verdicts = [
        _accuracy(live, candidate, old, new, tolerances),
        *_recalls(live, candidate, names, tolerances),
        *([(True, f"not judged, for want of a held-out example: {', '.join(blind[:_NAMED_MAX])}")] if blind else []),
        _automatic(live, candidate, old, new, tolerances),
    ]
    return Decision(
        promote=all(passed for passed, _ in verdicts),
        reasons=tuple(sentence for passed, sentence in sorted(verdicts, key=lambda verdict: verdict[0])),
    )


def sign_test(worse: int, better: int) -> float:
    """Return the probability of at least `worse` of `worse + better` fair coin tosses."""
    tosses = worse + better
    return float(bdtrc(worse - 1, tosses, 0.5))


def _accuracy(live: Judged, candidate: Judged, old: Metrics, new: Metrics, tolerances: Tolerances) -> tuple[bool, str]:
    worse, better = _split(live.right, candidate.right)
    drop = old.accuracy - new.accuracy
    chance = sign_test(worse, better)
    passed = drop <= tolerances.accuracy_drop_max and (worse <= better or chance >= tolerances.significance)
    return passed, (
        f"accuracy on {old.count} held-out examples: {old.accuracy:.4f} -> {new.accuracy:.4f}; {better} better, "
        f"{worse} worse (chance of a split this bad: {chance:.3f}, drop let through {tolerances.accuracy_drop_max})"
    )


def _recalls(live: Judged, candidate: Judged, names: tuple[str, ...], tolerances: Tolerances) -> list[tuple[bool, str]]:
    verdicts = []
    for index, name in enumerate(names):
        chosen = live.labels == index
        count = int(chosen.sum())
        worse, better = _split(live.right[chosen], candidate.right[chosen])
        if worse <= better:
            continue
        chance = sign_test(worse, better)
        passed = (worse - better) / count <= tolerances.recall_drop_max or chance >= tolerances.significance
        sentence = (
            f"recall of {name!r}: {int(live.right[chosen].sum())} -> {int(candidate.right[chosen].sum())} of "
            f"{count} (chance of a split this bad: {chance:.3f}, drop let through {tolerances.recall_drop_max})"
        )
        verdicts.append((passed, sentence))
    return verdicts


def _automatic(live: Judged, candidate: Judged, old: Metrics, new: Metrics, tolerances: Tolerances) -> tuple[bool, str]:
    worse, better = _split(~(live.answered & ~live.right), ~(candidate.answered & ~candidate.right))
    chance = sign_test(worse, better)
    rise = new.auto_error - old.auto_error
    passed = rise <= tolerances.error_rise_max or chance >= tolerances.significance
    return passed, (
        f"error among automatic answers: {old.answered_wrong} of {old.answered} -> {new.answered_wrong} of "
        f"{new.answered} (chance of a split this bad: {chance:.3f}, rise let through {tolerances.error_rise_max})"
    )


def _split(old: Flags, new: Flags) -> tuple[int, int]:
    """Return how many examples turned from good to bad and from bad to good."""
    return int(np.count_nonzero(old & ~new)), int(np.count_nonzero(~old & new))
