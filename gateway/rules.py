"""The pure rule of one model: answer or defer, and why.

`Policy` is what an operator writes; `Rules` is a policy made ready for one version's labels; `Rules.decide` judges a
whole batch at once with arrays. What each rule said of a row is put into words only when somebody asks for that row.

The rules: `threshold` (by predicted label where the policy says so), `always_person` (labels that no confidence
excuses), `wish` (the client's), `retry` (the same request was deferred before), `audit` (a share of what is answered
also goes to a person). A wish for the model's answer overrides the threshold where the policy allows it, nothing else.

Where the policy has an `alpha`, the operator says how many of the answers may be wrong, and the threshold is the one
that was proved (`gateway.certification`): `threshold` compares the scorer's score with it, and all that the operator
set beside (`class_threshold`, `always_person`, `wish` for a person, `retry`) only says which requests are *eligible*.
A row is answered if it is eligible and reaches the proved threshold; while there is none, everything goes to a person,
a wish for the model's answer too: the probability of a review, of which the proof is made, is then 1 for all. Where
that is more than people can look at, the operator may have the own threshold answer meanwhile (`until_proved`): such
answers are marked uncertified and audited, and their share is the probability of a review. An alarm ends that too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway import uniform
from gateway.certification import Certification, Proof
from gateway.confidence import Scorer
from gateway.policy import Policy
from gateway.segments import REST, segment_of
from gateway.verdict import Verdict, compared


class Decision(StrEnum):
    """What a reply is worth, from the strongest to the weakest."""

    ANSWERED = "answered"
    UNCERTIFIED = "uncertified"
    UNREVIEWED = "unreviewed"
    PROVISIONAL = "provisional"
    DEFERRED = "deferred"


_SAID: Final = {
    Scorer.MAX_SOFTMAX: "confidence",
    Scorer.MARGIN: "margin",
    Scorer.ENERGY: "energy",
    Scorer.LEARNED: "correctness",
}
STRENGTH: Final = {decision: rank for rank, decision in enumerate(Decision)}


class Wish(IntEnum):
    """What the client asked for; the values fit an array."""

    NONE = 0
    PERSON = 1
    MODEL = 2


class Decisions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The decisions over one batch: an array of one entry a row for each question, and the words on demand.

    `deferred`: goes to a person instead of an answer. `unreviewed`: answered against the threshold, by wish.
    `audited`: answered, and a person also checks it. No row is both deferred and one of the other two; one that is
    unreviewed is audited only where an alpha is set. `uncertified`: all that is answered is so by the operator's own
    threshold, while nothing is proved of what was promised.

    `scores` are what was compared with the threshold, `eligible` whether nothing but the threshold kept a row back,
    `checked` whether it might have been audited. `floor` is the lowest probability of a review that any row had under
    the rules in force, `share` that of what is answered. `tau` is the proved threshold in force and `certificate` its
    name; None and empty where there is none. `shown` is how sure people are told that the model is; None: as it says.
    """

    rules: Rules
    confidence: NDArray[np.float64]
    scores: NDArray[np.float64]
    predicted: NDArray[np.intp]
    wishes: NDArray[np.int8]
    draws: NDArray[np.float64]
    earlier: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    deferred: NDArray[np.bool_]
    unreviewed: NDArray[np.bool_]
    audited: NDArray[np.bool_]
    checked: NDArray[np.bool_]
    floor: float
    share: float
    tau: float | None
    certificate: str
    uncertified: bool
    shown: NDArray[np.float64] | None = None

    @property
    def q(self) -> NDArray[np.float64]:
        """The probability with which each row was to get a review."""
        return np.where(self.deferred, 1.0, np.where(self.checked, self.share, 0.0))

    @property
    def all_asked(self) -> bool:
        """Whether every request of this moment goes to a person, since nothing is proved."""
        return self.rules.policy.alpha is not None and self.tau is None and not self.uncertified

    def decision(self, row: int) -> Decision:
        """Return what the reply for one row is worth."""
        if self.deferred[row]:
            return Decision.DEFERRED
        if self.unreviewed[row]:
            return Decision.UNREVIEWED
        return Decision.UNCERTIFIED if self.uncertified else Decision.ANSWERED

    def insists(self, row: int) -> bool:
        """Return whether the label predicted for one row always goes to a person."""
        return bool(self.rules.always[self.predicted[row]])

    def reasons(self, row: int) -> tuple[str, ...]:
        """Return the names of the rules that sent a row to a person: those of `verdicts` that defer, without words."""
        rules, policy, label, said = self.rules, self.rules.policy, self.predicted[row], []
        unsure = not self.confidence[row] >= (rules.own if self.uncertified else rules.thresholds)[label]
        plain = policy.alpha is None or self.uncertified
        if unsure if plain else self.tau is None or not self.scores[row] >= self.tau:
            said.append("threshold")
        if unsure and policy.alpha is not None and rules.labels[label] in policy.class_thresholds:
            said.append("class_threshold")
        always = bool(policy.always_person) and rules.always[label]
        wished = int(self.wishes[row]) == Wish.PERSON
        others = (("always_person", always), ("wish", wished), ("retry", self.earlier[row]))
        said += [rule for rule, defers in others if defers]
        unanswered = self.deferred[row] or (self.unreviewed[row] and policy.alpha is None)
        return tuple(said) if unanswered or self.draws[row] >= self.share else (*said, "audit")

    def verdicts(self, row: int) -> tuple[Verdict, ...]:
        """Return what every rule that has a say said of one row."""
        said = [
            self._threshold(row) if self.rules.policy.alpha is None else self._proved(row),
            self._class_threshold(row),
            self._always_person(row),
            self._wish(row),
            self._retry(row),
            self._audit(row),
        ]
        return tuple(verdict for verdict in said if verdict is not None)

    def _proved(self, row: int) -> Verdict:
        if self.uncertified:
            own = self._threshold(row)
            return replace(own, evaluation=f"{own.evaluation}; uncertified: {self.rules.unproved()}")
        if self.tau is None:
            return Verdict(rule="threshold", defers=True, evaluation=f"{self.rules.unproved()}: all go to a person")
        below, comparison = compared(float(self.scores[row]), self.tau)
        evaluation = f"{_SAID[self.rules.scorer]} {comparison}, proved by {self.certificate}"
        return Verdict(rule="threshold", defers=below, evaluation=evaluation)

    def _class_threshold(self, row: int) -> Verdict | None:
        label = self.rules.labels[self.predicted[row]]
        if self.rules.policy.alpha is None or label not in self.rules.policy.class_thresholds:
            return None
        return replace(self._threshold(row), rule="class_threshold")

    def _threshold(self, row: int) -> Verdict:
        bounds = self.rules.own if self.uncertified else self.rules.thresholds
        confidence, threshold = float(self.confidence[row]), float(bounds[self.predicted[row]])
        label = self.rules.labels[self.predicted[row]]
        whose = f" for {label!r}" if label in self.rules.policy.class_thresholds else ""
        below, comparison = compared(confidence, threshold)
        return Verdict(rule="threshold", defers=below, evaluation=f"confidence {comparison}{whose}")

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
                elif self.rules.policy.alpha is not None and self.tau is None:
                    said = "ignored: while nothing is proved it is not granted"
                return Verdict(rule="wish", defers=False, evaluation=f"the client asked for the model; {said}")
            case _:
                return None

    def _retry(self, row: int) -> Verdict | None:
        if not self.earlier[row]:
            return None
        return Verdict(rule="retry", defers=True, evaluation="the same request was deferred before")

    def _audit(self, row: int) -> Verdict | None:
        if self.deferred[row] or (self.unreviewed[row] and self.rules.policy.alpha is None):
            return None
        drawn, comparison = compared(float(self.draws[row]), self.share, what="share ")
        return Verdict(rule="audit", defers=drawn, evaluation=f"draw {comparison}")


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A policy made ready for one version's labels; `thresholds`, `own` and `always` have one entry a label.

    With an alpha, `thresholds` are those of single labels, 0 for the others, and `certification` says what is proved,
    `proof` of this `segment`, whose rules these are. `own` are the operator's thresholds, with the policy's for labels
    that have none of their own. `apart` are the rules of the policy's segments, by name, where these are the rest's.
    """

    policy: Policy
    labels: tuple[str, ...]
    thresholds: NDArray[np.float64]
    own: NDArray[np.float64]
    always: NDArray[np.bool_]
    certification: Certification | None
    proof: Proof | None
    version: str
    segment: str
    apart: Mapping[str, Rules]
    # Why the proof is none for this policy; empty where it is one.
    unfit: str

    @classmethod
    def compile(
        cls,
        policy: Policy,
        labels: Sequence[str],
        *,
        certification: Certification | None = None,
        version: str = "",
        segment: str = REST,
    ) -> Rules:
        """Make `policy` ready for the `labels` of `version` and a `segment`; what it says of others has no effect."""
        own = np.array([policy.class_thresholds.get(label, policy.threshold) for label in labels], np.float64)
        single = np.array([policy.class_thresholds.get(label, 0.0) for label in labels], np.float64)
        always = [label in policy.always_person for label in labels]
        proof = None if certification is None else certification.proof(segment, version)
        apart = {
            each.name: cls.compile(policy, labels, certification=certification, version=version, segment=each.name)
            for each in (policy.segments if segment == REST else ())
        }
        return cls(
            policy=policy,
            labels=tuple(labels),
            thresholds=own if policy.alpha is None else single,
            own=own,
            always=np.array(always, np.bool_),
            certification=certification,
            proof=proof,
            version=version,
            segment=segment,
            apart=apart,
            unfit=_unfit(policy, certification, proof, segment),
        )

    def segment_of(self, attributes: Mapping[str, str]) -> str:
        """Return which segment a request with these attributes is in."""
        return segment_of(self.policy.segments, attributes)

    def of(self, segment: str) -> Rules:
        """Return the rules of a segment."""
        return self.apart.get(segment, self)

    @property
    def scorer(self) -> Scorer:
        """What `decide` is to be given as `scores`."""
        return self.policy.scored_by

    @property
    def alarm(self) -> str:
        """What keeps everything that nothing is proved of with people; empty where nothing does."""
        return "" if self.certification is None else self.certification.alarm_of(self.version, self.segment)

    @property
    def sampled(self) -> bool:
        """Whether what goes to a person or is audited is evidence, and recorded before the reply."""
        return self.policy.alpha is not None and self.certification is not None

    @property
    def share(self) -> float:
        """The share of what is answered that a person also checks."""
        share = self.policy.audit_share
        if self.policy.alpha is not None and self.certification is not None:
            share = max(share, self.certification.share)
        return share

    def tau(self, second: int) -> float | None:
        """Return the proved threshold in force at `second`; None: there is none, or not for what the policy asks."""
        # Without audits nothing would keep what was proved true.
        if self.proof is None or self.unfit or self.share <= 0:
            return None
        return self.proof.threshold(self.version, second)

    def uncertified(self, second: int) -> bool:
        """Whether the operator's own threshold answers at `second`: nothing is proved, and nothing gave alarm.

        Without audits nothing would ever be proved, so then it does not.
        """
        if self.policy.alpha is None or self.policy.until_proved != "answer" or self.share <= 0:
            return False
        return self.tau(second) is None and not self.alarm

    def unproved(self) -> str:
        """Return why there is no threshold."""
        whose = f" of segment {self.segment}" if self.segment else ""
        if self.alarm:
            return f"an alarm took the certificate back ({self.alarm})"
        if self.proof is None:
            return f"nothing is proved{whose} yet"
        return self.unfit or "nothing is proved for this version now"

    def decide(
        self,
        *,
        confidence: NDArray[np.float64],
        predicted: NDArray[np.intp],
        scores: NDArray[np.float64] | None = None,
        wishes: NDArray[np.int8] | None = None,
        draws: NDArray[np.float64] | None = None,
        earlier: NDArray[np.bool_] | None = None,
        second: int = 0,
    ) -> Decisions:
        """Judge a batch of n rows: confidence in [0, 1], index of the predicted label, `Wish`, draw in [0, 1).

        `scores` are those of `scorer`; None: the confidence, where that is the scorer. No wishes: NONE for all. No
        draws: nothing is audited. `earlier`: rows that were deferred before, which stay so. `second` since 1970: when.
        """
        if scores is None:
            if self.scorer is not Scorer.MAX_SOFTMAX:
                raise InvalidError(f"scores: expected those of {self.scorer}, got none")
            scores = confidence
        promised, tau, share, rows = self.policy.alpha is not None, self.tau(second), self.share, len(confidence)
        uncertified = self.uncertified(second)
        # >= and not its opposite, so that a confidence that is no number goes to a person.
        sure = uniform.reach(confidence, self.thresholds, predicted)
        eligible = sure if promised else uniform.true(rows)
        if promised:
            if uncertified:
                sure = confidence >= self.own[predicted]
            else:
                sure = np.zeros(rows, np.bool_) if tau is None else scores >= tau
        unreviewed = uniform.false(rows)
        # As a rule nobody wishes or repeats anything, and no label always goes to a person.
        if wishes is None and earlier is None and not self.policy.always_person:
            answered = eligible & sure if promised else sure
            deferred = uniform.opposite(answered)
        else:
            held = self.always[predicted]
            if earlier is not None:
                held = held | earlier
            asked = held if wishes is None else held | (wishes == Wish.PERSON)
            eligible = eligible & ~asked
            answered = eligible & sure
            if wishes is not None and self.policy.allow_model_wish and not (promised and tau is None):
                unreviewed = (wishes == Wish.MODEL) & ~held & ~answered
            deferred = ~answered & ~unreviewed
        checked = ~deferred if promised else answered
        draws = np.ones(rows, np.float64) if draws is None else draws
        return Decisions(
            rules=self,
            confidence=confidence,
            scores=scores,
            predicted=predicted,
            wishes=uniform.zero(rows) if wishes is None else wishes,
            draws=draws,
            earlier=uniform.false(rows) if earlier is None else earlier,
            eligible=eligible,
            deferred=deferred,
            unreviewed=unreviewed,
            audited=uniform.both(checked, uniform.below(draws, share)),
            checked=checked,
            floor=self._floor(asked=tau is None and not uncertified),
            share=share,
            tau=tau,
            certificate=self.proof.certificate if self.proof is not None and tau is not None else "",
            uncertified=uncertified,
        )

    def _floor(self, *, asked: bool) -> float:
        """Return the lowest probability of a review that any request has; `asked`: no threshold answers."""
        if self.policy.alpha is not None:
            return 1.0 if asked else self.share
        return 0.0 if self.policy.allow_model_wish else self.share


def _unfit(policy: Policy, certification: Certification | None, proof: Proof | None, segment: str) -> str:
    """Say why what is proved is no proof of what the policy promises of a segment; empty where it is one."""
    promise = policy.promise(segment)
    if promise is None or certification is None or proof is None:
        return "no proof was asked for, or none is there"
    if certification.scorer != policy.scored_by:
        return f"the proof is of {certification.scorer}, the policy asks for {policy.scored_by}"
    return proof.unfit(promise, policy.eligibility)
