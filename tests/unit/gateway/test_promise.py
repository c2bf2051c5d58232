"""A policy with an alpha: what was proved decides, what the operator set beside says who may be answered at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import InvalidError
from gateway.certification import Alarm, Certification, Proof, said_of
from gateway.confidence import Scorer
from gateway.policy import Policy
from gateway.rules import Decision, Decisions, Rules, Wish
from gateway.segments import Segment

LABELS = ("a", "b", "c")
SHARES = st.floats(0, 1)
SECONDS = st.integers(0, 20)
POLICIES = st.builds(
    Policy,
    alpha=st.sampled_from([0.01, 0.05, 0.5]),
    threshold=SHARES,
    class_thresholds=st.dictionaries(st.sampled_from(LABELS), SHARES),
    always_person=st.lists(st.sampled_from(LABELS), unique=True).map(tuple),
    audit_share=SHARES,
    allow_model_wish=st.booleans(),
    until_proved=st.sampled_from(["ask", "answer"]),
)
ALARM = Alarm(version="1", segment="", said="drift", second=5)
OTHERS = msgspec.structs.replace(ALARM, version="2", segment="north", said="north")
OUTLIVED = msgspec.structs.replace(OTHERS, outlived=True)
CERTIFICATIONS = st.builds(
    Certification,
    epoch=st.just("1"),
    scorer=st.sampled_from(["margin", "max_softmax"]),
    version=st.sampled_from(["1", "2"]),
    tau=st.none() | SHARES,
    certificate=st.just("m/1"),
    begin_second=SECONDS,
    expire_second=SECONDS,
    share=SHARES,
    alarm=st.sampled_from(["", "", "drift"]),
    alarms=st.sampled_from([(), (), (ALARM,), (OTHERS,), (OUTLIVED,)]),
    alpha=st.sampled_from([0.0, 0.01, 0.05]),
    delta=st.sampled_from([0.0, 0.05, 0.1]),
    eligibility=st.sampled_from(["", Policy().eligibility]),
)
Row = tuple[float, float, int, Wish, float, bool]
ROWS = st.lists(
    st.tuples(
        SHARES,
        SHARES,
        st.integers(0, 2),
        st.sampled_from(Wish),
        st.floats(0, 1, exclude_max=True),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)
POLICY = Policy(alpha=0.05, threshold=0.0, audit_share=0.25)
PROVED = Certification(
    epoch="1",
    scorer="margin",
    versions=("1",),
    version="1",
    tau=0.5,
    certificate="m/1",
    begin_second=10,
    expire_second=20,
    alpha=0.05,
    delta=0.05,
)


def _decide(policy: Policy, proved: Certification | None, rows: list[Row], second: int) -> Decisions:
    confidence, scores, predicted, wishes, draws, earlier = zip(*rows, strict=True)
    return Rules.compile(policy, LABELS, certification=proved, version="1").decide(
        confidence=np.array(confidence, np.float64),
        scores=np.array(scores, np.float64),
        predicted=np.array(predicted, np.intp),
        wishes=np.array(wishes, np.int8),
        draws=np.array(draws, np.float64),
        earlier=np.array(earlier, np.bool_),
        second=second,
    )


def _one(
    *,
    policy: Policy = POLICY,
    proved: Certification | None = PROVED,
    score: float = 0.9,
    confidence: float = 0.95,
    label: int = 0,
    wish: Wish = Wish.NONE,
    xi: float = 0.99,
    earlier: bool = False,
    second: int = 15,
) -> Decisions:
    return _decide(policy, proved, [(confidence, score, label, wish, xi, earlier)], second)


def _said(decisions: Decisions) -> dict[str, tuple[bool, str]]:
    return {verdict.rule: (verdict.defers, verdict.evaluation) for verdict in decisions.verdicts(0)}


@given(POLICIES, st.none() | CERTIFICATIONS, ROWS, SECONDS)
def test_only_what_was_proved_is_answered(
    policy: Policy, proved: Certification | None, rows: list[Row], second: int
) -> None:
    """ANSWERED means eligible and at or above the threshold in force for that version and second; the reverse too."""
    decisions = _decide(policy, proved, rows, second)
    tau = None if proved is None else proved.threshold("1", second)
    share = max(policy.audit_share, 0.0 if proved is None else proved.share)
    if proved is not None and (
        proved.scorer != "margin"
        or proved.alpha > policy.alpha  # type: ignore[operator]  # these policies have one
        or proved.delta > policy.delta
        or proved.eligibility not in {"", policy.eligibility}
        or share == 0
        or (proved.alarm and not proved.alarms)
    ):
        tau = None
    assert decisions.tau == tau
    assert decisions.certificate == ("" if tau is None else "m/1")
    for number, (confidence, score, predicted, wish, _, earlier) in enumerate(rows):
        label = LABELS[predicted]
        eligible = (
            label not in policy.always_person
            and wish is not Wish.PERSON
            and not earlier
            and confidence >= policy.class_thresholds.get(label, 0.0)
        )
        assert decisions.eligible[number] == eligible
        answered = eligible and tau is not None and score >= tau
        assert (decisions.decision(number) is Decision.ANSWERED) == answered
        own = confidence >= policy.class_thresholds.get(label, policy.threshold)
        uncertified = eligible and own and _own_answers(policy, proved, tau)
        assert (decisions.decision(number) is Decision.UNCERTIFIED) == uncertified


def _own_answers(policy: Policy, proved: Certification | None, tau: float | None) -> bool:
    """Whether the operator's own threshold answers."""
    share = max(policy.audit_share, 0.0 if proved is None else proved.share)
    alarm = proved is not None and (proved.alarms not in {(), (OUTLIVED,)} if proved.alarms else bool(proved.alarm))
    return policy.until_proved == "answer" and tau is None and not alarm and share > 0


@given(POLICIES, st.none() | CERTIFICATIONS, ROWS, SECONDS)
def test_every_row_has_the_chance_of_a_review_that_the_proof_counts_with(
    policy: Policy, proved: Certification | None, rows: list[Row], second: int
) -> None:
    """1 where it is deferred, the share where it is not, never 0 nor below the floor; audited is what the draw says."""
    decisions = _decide(policy, proved, rows, second)
    share = max(policy.audit_share, 0.0 if proved is None else proved.share)
    open_ = decisions.tau is not None or _own_answers(policy, proved, decisions.tau)
    assert decisions.floor == (share if open_ else 1.0)
    assert decisions.all_asked == (not open_)
    assert decisions.deferred.all() or open_
    for number, (*_, xi, _) in enumerate(rows):
        q = decisions.q[number]
        assert q == (1.0 if decisions.deferred[number] else share)
        assert 0 < decisions.floor <= q
        assert decisions.audited[number] == (not decisions.deferred[number] and xi < q)
        assert not (decisions.deferred[number] and decisions.unreviewed[number])
        if decisions.deferred[number]:
            assert decisions.reasons(number)


@given(POLICIES, CERTIFICATIONS, ROWS, SECONDS)
def test_a_row_is_judged_alike_alone_and_in_company(
    policy: Policy, proved: Certification, rows: list[Row], second: int
) -> None:
    """Batching changes nothing."""
    together = _decide(policy, proved, rows, second)
    for number, row in enumerate(rows):
        alone = _decide(policy, proved, [row], second)
        assert together.decision(number) is alone.decision(0)
        assert together.verdicts(number) == alone.verdicts(0)


@given(POLICIES, CERTIFICATIONS, ROWS, SECONDS)
def test_an_alarm_leaves_nothing_answered(policy: Policy, proved: Certification, rows: list[Row], second: int) -> None:
    """Nor granted: everything goes to a person, with certainty. Where nothing is said of what was proved after it."""
    alarmed = msgspec.structs.replace(proved, alarm="drift", alarms=())
    decisions = _decide(policy, alarmed, rows, second)
    assert decisions.deferred.all()
    assert (decisions.q == 1).all()


@given(POLICIES, CERTIFICATIONS, ROWS, SECONDS, st.sampled_from([ALARM, OTHERS]))
def test_while_an_alarm_stands_only_a_proof_answers(
    policy: Policy, proved: Certification, rows: list[Row], second: int, alarm: Alarm
) -> None:
    """One that was made after it, as all that are told beside it; no operator's threshold, whatever segment rang."""
    alarmed = msgspec.structs.replace(proved, alarm="drift", alarms=(alarm,))
    decisions = _decide(policy, alarmed, rows, second)
    assert not decisions.uncertified
    assert decisions.deferred.all() or decisions.tau == proved.threshold("1", second) is not None


def test_what_stands_against_a_version_names_its_segments_own_alarm_first() -> None:
    """Else the newest; one that is outlived stands against its own version alone."""
    assert said_of((ALARM, OTHERS), "1", "") == "drift"
    assert said_of((ALARM, OTHERS), "3", "west") == "north"
    assert said_of((ALARM, OUTLIVED), "1", "north") == "drift"
    assert said_of((ALARM, OUTLIVED), "2", "north") == "north"
    assert said_of((OUTLIVED,), "1", "north") == ""


def test_a_threshold_answers_in_its_time_only() -> None:
    """From its first second on, and no more in the one it ends with."""
    found = {second: _one(second=second).decision(0) for second in (9, 10, 19, 20)}
    assert found == {
        9: Decision.DEFERRED,
        10: Decision.ANSWERED,
        19: Decision.ANSWERED,
        20: Decision.DEFERRED,
    }


@pytest.mark.parametrize(
    ("proved", "why"),
    [
        (None, "nothing is proved yet: all go to a person"),
        ({"version": "2"}, "nothing is proved for this version now: all go to a person"),
        ({"tau": None}, "nothing is proved for this version now: all go to a person"),
        ({"alarm": "10 % wrong"}, "an alarm took the certificate back (10 % wrong): all go to a person"),
        ({"scorer": "energy"}, "the proof is of energy, the policy asks for margin: all go to a person"),
        ({"alpha": 0.1}, "the policy promises more than what is proved: all go to a person"),
        ({"delta": 0.1}, "the policy promises more than what is proved: all go to a person"),
        (
            {"eligibility": Policy(always_person=("c",)).eligibility},
            "the policy lets through other requests than those of the proof: all go to a person",
        ),
    ],
)
def test_without_a_fitting_proof_everything_goes_to_a_person_and_is_told_why(
    proved: dict[str, Any] | None, why: str
) -> None:
    """Also what a changed policy leaves of a proof: what it promises now was not proved."""
    decisions = _one(proved=None if proved is None else msgspec.structs.replace(PROVED, **proved), score=1.0)
    assert decisions.decision(0) is Decision.DEFERRED
    assert _said(decisions)["threshold"] == (True, why)
    assert decisions.reasons(0) == ("threshold",)


def test_a_proof_of_more_than_the_policy_asks_for_stays_one() -> None:
    """A promise that was made weaker is kept by what is in force."""
    proved = msgspec.structs.replace(PROVED, alpha=0.01, delta=0.01, eligibility=POLICY.eligibility)
    assert _one(proved=proved).decision(0) is Decision.ANSWERED


def test_until_it_is_proved_the_own_threshold_may_answer() -> None:
    """UNCERTIFIED, audited by the share, with the words of the own threshold; a proof, or an alarm, ends it."""
    policy = msgspec.structs.replace(POLICY, threshold=0.9, class_thresholds={"b": 0.99}, until_proved="answer")
    unproved = msgspec.structs.replace(PROVED, tau=None)
    for proved in (None, unproved):
        sure = _one(policy=policy, proved=proved, xi=0.2, score=0.0)
        assert (sure.decision(0), sure.q[0], sure.floor, sure.certificate) == (Decision.UNCERTIFIED, 0.25, 0.25, "")
        assert sure.audited[0]
        assert sure.eligible[0]
    why = "uncertified: nothing is proved for this version now"
    sure = _one(policy=policy, proved=unproved)
    assert _said(sure)["threshold"] == (False, f"confidence 0.95 >= 0.90; {why}")
    unsure = _one(policy=policy, proved=unproved, confidence=0.8, score=1.0)
    assert (unsure.decision(0), unsure.q[0], unsure.floor) == (Decision.DEFERRED, 1.0, 0.25)
    assert _said(unsure)["threshold"] == (True, f"confidence 0.80 < 0.90; {why}")
    single = _one(policy=policy, proved=unproved, label=1)
    assert (single.decision(0), single.eligible[0]) == (Decision.DEFERRED, False)
    assert single.reasons(0) == ("threshold", "class_threshold")
    nan = _one(policy=msgspec.structs.replace(policy, threshold=0.0), proved=unproved, confidence=float("nan"))
    assert nan.decision(0) is Decision.DEFERRED
    assert _one(policy=policy).decision(0) is Decision.ANSWERED
    assert _one(policy=policy, score=0.1).decision(0) is Decision.DEFERRED
    assert _one(policy=policy, proved=msgspec.structs.replace(PROVED, alarm="drift")).all_asked
    assert _one(policy=msgspec.structs.replace(policy, until_proved="ask"), proved=unproved).all_asked


def test_verdicts_name_the_score_that_was_compared() -> None:
    """With its scorer and the certificate; thresholds of single labels stay the operator's, of the confidence."""
    policy = msgspec.structs.replace(POLICY, class_thresholds={"b": 0.8}, always_person=("c",))
    said: Callable[..., dict[str, tuple[bool, str]]] = lambda **row: _said(_one(policy=policy, **row))  # noqa: E731 - one line
    assert said()["threshold"] == (False, "margin 0.90 >= 0.50, proved by m/1")
    assert said(score=0.499)["threshold"] == (True, "margin 0.499 < 0.500, proved by m/1")
    assert "class_threshold" not in said()
    assert said(label=1)["class_threshold"] == (False, "confidence 0.95 >= 0.80 for 'b'")
    assert said(label=1, confidence=0.7)["class_threshold"] == (True, "confidence 0.70 < 0.80 for 'b'")
    assert said(label=2)["always_person"] == (True, "'c' always goes to a person")
    assert said(xi=0.1)["audit"] == (True, "draw 0.10 < share 0.25")
    sure = msgspec.structs.replace(policy, scorer="max_softmax")
    proved = msgspec.structs.replace(PROVED, scorer="max_softmax")
    assert _said(_one(policy=sure, proved=proved))["threshold"] == (False, "confidence 0.90 >= 0.50, proved by m/1")


def test_a_granted_wish_is_audited_like_an_answer() -> None:
    """UNREVIEWED and drawn by the same share, so that no row is without a chance; granted only under a proof."""
    policy = msgspec.structs.replace(POLICY, allow_model_wish=True)
    below = _one(policy=policy, score=0.1, wish=Wish.MODEL, xi=0.2)
    assert (below.decision(0), below.q[0]) == (Decision.UNREVIEWED, 0.25)
    assert below.audited[0]
    assert below.eligible[0]
    assert _said(below)["audit"] == (True, "draw 0.20 < share 0.25")
    assert _one(policy=policy, wish=Wish.MODEL).decision(0) is Decision.ANSWERED
    early = _one(policy=policy, score=0.1, wish=Wish.MODEL, second=9)
    assert (early.decision(0), early.q[0]) == (Decision.DEFERRED, 1.0)
    assert "ignored: while nothing is proved" in _said(early)["wish"][1]
    assert _one(policy=policy, score=0.1, wish=Wish.MODEL, earlier=True).decision(0) is Decision.DEFERRED


def test_each_segment_is_judged_by_its_own_proof() -> None:
    """By its own threshold and certificate; where nothing is proved of a segment it goes to people."""
    segments = (
        Segment(name="north", attributes={"region": "north"}, alpha=0.01),
        Segment(name="night", attributes={"shift": "night"}),
    )
    policy = msgspec.structs.replace(POLICY, segments=segments)
    north = Proof(
        version="1", tau=0.8, certificate="m/north", begin_second=10, expire_second=20, alpha=0.01, delta=0.05
    )
    proved = msgspec.structs.replace(PROVED, segments={"north": north})
    rules = Rules.compile(policy, LABELS, certification=proved, version="1")

    def judged(**attributes: str) -> Decisions:
        return rules.of(rules.segment_of(attributes)).decide(
            confidence=np.array([0.95, 0.95]),
            scores=np.array([0.6, 0.9]),
            predicted=np.array([0, 0]),
            draws=np.ones(2),
            second=15,
        )

    assert judged().deferred.tolist() == [False, False]
    assert (judged(region="north").deferred.tolist(), judged(region="north").certificate) == ([True, False], "m/north")
    night = judged(shift="night", colour="blue")
    assert (night.deferred.tolist(), night.certificate, night.floor) == ([True, True], "", 1.0)
    assert night.verdicts(0)[0].evaluation == "nothing is proved of segment night yet: all go to a person"
    assert judged(region="north", shift="night").certificate == "m/north", "the first that fits"
    more = msgspec.structs.replace(north, alpha=0.02)
    loose = Rules.compile(
        policy, LABELS, certification=msgspec.structs.replace(PROVED, segments={"north": more}), version="1"
    )
    assert loose.of("north").tau(15) is None, "it promises more than what is proved"
    assert policy.eligibility != POLICY.eligibility
    alarmed = msgspec.structs.replace(proved, alarm="drift")
    assert Rules.compile(policy, LABELS, certification=alarmed, version="1").of("north").tau(15) is None


def test_the_share_in_force_is_the_larger_one() -> None:
    """What the certifier asks for never lowers the operator's."""
    more = msgspec.structs.replace(PROVED, share=0.5)
    assert _one(proved=more, xi=0.4).audited[0]
    assert not _one(xi=0.4).audited[0]
    assert _one(proved=msgspec.structs.replace(PROVED, share=0.01), xi=0.2).audited[0]


def test_the_operators_own_threshold_counts_only_without_a_promise() -> None:
    """And the confidence is then what it is compared with, whatever the scorer."""
    plain = Policy(threshold=0.9, scorer="margin")
    assert plain.scored_by is Scorer.MAX_SOFTMAX
    assert _one(policy=plain, score=0.0).decision(0) is Decision.ANSWERED
    assert _one(policy=msgspec.structs.replace(POLICY, threshold=1.0)).decision(0) is Decision.ANSWERED


def test_a_score_is_never_replaced_by_the_confidence() -> None:
    """The threshold is in the scale of the margin; the confidence would pass too easily."""
    rules = Rules.compile(POLICY, LABELS, certification=PROVED, version="1")
    with pytest.raises(InvalidError, match="scores: expected those of margin, got none"):
        rules.decide(confidence=np.ones(1), predicted=np.zeros(1, np.intp), second=15)


def test_a_score_that_is_no_number_goes_to_a_person() -> None:
    """Even where the threshold is 0."""
    proved = msgspec.structs.replace(PROVED, tau=0.0)
    assert _one(proved=proved, score=float("nan")).decision(0) is Decision.DEFERRED
    assert _one(proved=proved, confidence=float("nan")).decision(0) is Decision.DEFERRED


@pytest.mark.parametrize("field", ["alpha", "delta"])
@pytest.mark.parametrize("wrong", ["0", "0.6", "-0.1"])
def test_a_promise_outside_its_range_is_refused_when_read(field: str, wrong: str) -> None:
    """As a manifest or a document is read."""
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(f'{{"{field}": {wrong}}}', type=Policy)
