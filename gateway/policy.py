"""The pure rule of one model: answer or defer, and why.

`Policy` is what an operator writes; `Rules` is a policy made ready for one version's labels; `Rules.decide` judges a
whole batch at once with arrays. What each rule said of a row is put into words only when somebody asks for that row.

The rules: `threshold` (by predicted label where the policy says so), `always_person` (labels that no confidence
excuses), `wish` (the client's), `retry` (the same request was deferred before), `audit` (a share of what is answered
also goes to a person). A wish for the model's answer overrides the threshold where the policy allows it, nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_DRAW_BITS: Final = 53


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator decided; all shares and thresholds in [0, 1].

    `class_thresholds` override `threshold` by predicted label; `always_person` are labels that always go to a person;
    `audit_share` of the answered requests are also checked by one; `allow_model_wish`: a client may have the model's
    answer whatever its confidence, marked as unreviewed.
    """

    threshold: Share = 0.9
    class_thresholds: dict[str, Share] = {}
    always_person: tuple[str, ...] = ()
    audit_share: Share = 0.1
    allow_model_wish: bool = False


class Decision(StrEnum):
    """What a reply is worth, from the strongest to the weakest."""

    ANSWERED = "answered"
    UNCERTIFIED = "uncertified"
    UNREVIEWED = "unreviewed"
    PROVISIONAL = "provisional"
    DEFERRED = "deferred"


STRENGTH: Final = {decision: rank for rank, decision in enumerate(Decision)}


class Wish(IntEnum):
    """What the client asked for; the values fit an array."""

    NONE = 0
    PERSON = 1
    MODEL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said of one row, and how it was evaluated, e.g. "confidence 0.62 < 0.90"."""

    rule: str
    defers: bool
    evaluation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """The decisions over one batch: an array of one entry a row for each question, and the words on demand.

    `deferred`: goes to a person instead of an answer. `unreviewed`: answered against the threshold, by wish.
    `audited`: answered, and a person also checks it. No row is both deferred and one of the other two.
    """

    rules: Rules
    confidence: NDArray[np.float64]
    predicted: NDArray[np.intp]
    wishes: NDArray[np.int8]
    draws: NDArray[np.float64]
    earlier: NDArray[np.bool_]
    deferred: NDArray[np.bool_]
    unreviewed: NDArray[np.bool_]
    audited: NDArray[np.bool_]

    def decision(self, row: int) -> Decision:
        """Return what the reply for one row is worth."""
        if self.deferred[row]:
            return Decision.DEFERRED
        return Decision.UNREVIEWED if self.unreviewed[row] else Decision.ANSWERED

    def insists(self, row: int) -> bool:
        """Return whether the label predicted for one row always goes to a person."""
        return bool(self.rules.always[self.predicted[row]])

    def reasons(self, row: int) -> tuple[str, ...]:
        """Return the names of the rules that sent a row to a person."""
        return tuple(verdict.rule for verdict in self.verdicts(row) if verdict.defers)

    def verdicts(self, row: int) -> tuple[Verdict, ...]:
        """Return what every rule that has a say said of one row."""
        said = [self._threshold(row), self._always_person(row), self._wish(row), self._retry(row), self._audit(row)]
        return tuple(verdict for verdict in said if verdict is not None)

    def _threshold(self, row: int) -> Verdict:
        confidence, threshold = float(self.confidence[row]), float(self.rules.thresholds[self.predicted[row]])
        label = self.rules.labels[self.predicted[row]]
        whose = f" for {label!r}" if label in self.rules.policy.class_thresholds else ""
        below = confidence < threshold
        sign = "<" if below else ">="
        shown = _apart(confidence, threshold)
        return Verdict(rule="threshold", defers=below, evaluation=f"confidence {shown[0]} {sign} {shown[1]}{whose}")

    def _always_person(self, row: int) -> Verdict | None:
        if not self.rules.policy.always_person:
            return None
        label, always = self.rules.labels[self.predicted[row]], bool(self.rules.always[self.predicted[row]])
        said = "always goes" if always else "need not go"
        return Verdict(rule="always_person", defers=always, evaluation=f"{label!r} {said} to a person")

    def _wish(self, row: int) -> Verdict | None:
        match Wish(int(self.wishes[row])):
            case Wish.PERSON:
                return Verdict(rule="wish", defers=True, evaluation="the client asked for a person")
            case Wish.MODEL:
                said = "granted: the threshold does not count"
                if not self.rules.policy.allow_model_wish:
                    said = "ignored: the policy does not allow it"
                elif self.rules.always[self.predicted[row]]:
                    said = "ignored: always_person stands above it"
                return Verdict(rule="wish", defers=False, evaluation=f"the client asked for the model; {said}")
            case _:
                return None

    def _retry(self, row: int) -> Verdict | None:
        if not self.earlier[row]:
            return None
        return Verdict(rule="retry", defers=True, evaluation="the same request was deferred before")

    def _audit(self, row: int) -> Verdict | None:
        if self.deferred[row] or self.unreviewed[row]:
            return None
        share, draw, drawn = self.rules.policy.audit_share, float(self.draws[row]), bool(self.audited[row])
        sign = "<" if drawn else ">="
        shown = _apart(draw, share)
        return Verdict(rule="audit", defers=drawn, evaluation=f"draw {shown[0]} {sign} share {shown[1]}")


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A policy made ready for one version's labels; `thresholds` and `always` have one entry a label."""

    policy: Policy
    labels: tuple[str, ...]
    thresholds: NDArray[np.float64]
    always: NDArray[np.bool_]

    @classmethod
    def compile(cls, policy: Policy, labels: Sequence[str]) -> Rules:
        """Make `policy` ready for `labels`; what it says of other labels has no effect."""
        thresholds = [policy.class_thresholds.get(label, policy.threshold) for label in labels]
        always = [label in policy.always_person for label in labels]
        return cls(policy, tuple(labels), np.array(thresholds, np.float64), np.array(always, np.bool_))

    def decide(
        self,
        *,
        confidence: NDArray[np.float64],
        predicted: NDArray[np.intp],
        wishes: NDArray[np.int8] | None = None,
        draws: NDArray[np.float64] | None = None,
        earlier: NDArray[np.bool_] | None = None,
    ) -> Decisions:
        """Judge a batch of n rows: confidence in [0, 1], index of the predicted label, `Wish`, draw in [0, 1).

        No wishes: NONE for all. No draws: nothing is audited. `earlier`: rows that were deferred before, which stay so.
        """
        wishes = np.zeros(len(confidence), np.int8) if wishes is None else wishes
        draws = np.ones(len(confidence), np.float64) if draws is None else draws
        earlier = np.zeros(len(confidence), np.bool_) if earlier is None else earlier
        # Not >=, rather than <, so that a confidence that is no number goes to a person.
        below = ~(confidence >= self.thresholds[predicted])
        always = self.always[predicted]
        person = wishes == Wish.PERSON
        granted = (wishes == Wish.MODEL) & self.policy.allow_model_wish & ~always
        deferred = (below & ~granted) | always | person | earlier
        unreviewed = below & granted & ~earlier
        audited = ~deferred & ~unreviewed & (draws < self.policy.audit_share)
        return Decisions(
            rules=self,
            confidence=confidence,
            predicted=predicted,
            wishes=wishes,
            draws=draws,
            earlier=earlier,
            deferred=deferred,
            unreviewed=unreviewed,
            audited=audited,
        )


def draw(secret: bytes, *, model: str, epoch: str, request_key: str) -> float:
    """Return the number in [0, 1) that decides whether a request is audited; the same for a retry with the same key.

    HMAC-SHA-256 over the length-prefixed parts: whoever does not know `secret` can neither foresee nor steer it.
    """
    parts = (part.encode() for part in (model, epoch, request_key))
    message = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    digest = hmac.digest(secret, message, hashlib.sha256)
    return (int.from_bytes(digest[:8], "big") >> (64 - _DRAW_BITS)) / (1 << _DRAW_BITS)


def _apart(value: float, bound: float) -> tuple[str, str]:
    """Show two numbers with as few digits, two at least, as tell them apart."""
    for digits in range(2, 17):
        shown = f"{value:.{digits}f}", f"{bound:.{digits}f}"
        if shown[0] != shown[1]:
            break
    else:
        shown = f"{value:.2f}", f"{bound:.2f}"
    return shown
