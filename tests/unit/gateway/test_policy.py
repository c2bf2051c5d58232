"""The rule is pure, the same for a row alone and in a batch, and never laxer than its parts."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Policy, draw
from gateway.rules import Decision, Decisions, Rules, Wish

LABELS = ("a", "b", "c")
SHARES = st.floats(0, 1)
POLICIES = st.builds(
    Policy,
    threshold=SHARES,
    class_thresholds=st.dictionaries(st.sampled_from([*LABELS, "other"]), SHARES),
    always_person=st.lists(st.sampled_from([*LABELS, "other"]), unique=True).map(tuple),
    audit_share=SHARES,
    allow_model_wish=st.booleans(),
)
ROWS = st.lists(
    st.tuples(SHARES, st.integers(0, 2), st.sampled_from(Wish), st.floats(0, 1, exclude_max=True), st.booleans()),
    min_size=1,
    max_size=20,
)
Row = tuple[float, int, Wish, float, bool]


def _decide(policy: Policy, rows: list[Row]) -> Decisions:
    confidence, predicted, wishes, draws, earlier = zip(*rows, strict=True)
    return Rules.compile(policy, LABELS).decide(
        confidence=np.array(confidence, np.float64),
        predicted=np.array(predicted, np.intp),
        wishes=np.array(wishes, np.int8),
        draws=np.array(draws, np.float64),
        earlier=np.array(earlier, np.bool_),
    )


def _one(policy: Policy, confidence: float, *, label: int = 0, wish: Wish = Wish.NONE, xi: float = 1.0) -> Decisions:
    return _decide(policy, [(confidence, label, wish, xi, False)])


@given(POLICIES, ROWS)
def test_a_row_is_judged_alike_alone_and_in_company(policy: Policy, rows: list[Row]) -> None:
    """Batching changes nothing."""
    together = _decide(policy, rows)
    for number, row in enumerate(rows):
        alone = _decide(policy, [row])
        assert together.decision(number) is alone.decision(0)
        assert together.audited[number] == alone.audited[0]
        assert together.verdicts(number) == alone.verdicts(0)


@given(POLICIES, ROWS)
def test_a_plain_row_is_judged_alike_alone_and_in_company(policy: Policy, rows: list[Row]) -> None:
    """Where nobody wishes or repeats anything; whatever is said of it, in a row of its own and twice in a batch."""
    rules = Rules.compile(policy, LABELS)
    for sure, label, _, xi, _ in (*rows, (np.nan, 0, Wish.NONE, 0.0, False)):
        alone, together = (
            rules.decide(
                confidence=np.full(count, sure), predicted=np.full(count, label, np.intp), draws=np.full(count, xi)
            )
            for count in (1, 2)
        )
        for name in ("eligible", "deferred", "unreviewed", "audited", "checked", "earlier", "wishes", "q"):
            one, both = getattr(alone, name), getattr(together, name)
            assert one.dtype == both.dtype
            np.testing.assert_array_equal(np.repeat(one, 2), both)
        assert alone.verdicts(0) == together.verdicts(1)


@given(POLICIES, ROWS)
def test_what_is_answered_was_allowed_and_what_is_deferred_has_a_reason(policy: Policy, rows: list[Row]) -> None:
    """The decision against the rules written out for one row."""
    decisions = _decide(policy, rows)
    for number, (confidence, predicted, wish, xi, earlier) in enumerate(rows):
        label = LABELS[predicted]
        below = confidence < policy.class_thresholds.get(label, policy.threshold)
        granted = wish is Wish.MODEL and policy.allow_model_wish
        strict = label in policy.always_person or wish is Wish.PERSON or earlier
        expected = Decision.ANSWERED
        if strict or (below and not granted):
            expected = Decision.DEFERRED
        elif below:
            expected = Decision.UNREVIEWED
        assert decisions.decision(number) is expected
        assert decisions.audited[number] == (expected is Decision.ANSWERED and xi < policy.audit_share)
        if expected is Decision.DEFERRED:
            assert decisions.reasons(number)


@given(POLICIES, ROWS, st.one_of(st.none(), SHARES), st.booleans())
def test_reasons_are_the_rules_that_defer(
    policy: Policy, rows: list[Row], tau: float | None, uncertified: bool
) -> None:
    """Found without the words, and the same as with them, under a promise or without."""
    decisions = _decide(policy, rows)
    if tau is not None or uncertified:
        promised = replace(decisions.rules, policy=msgspec.structs.replace(policy, alpha=0.1))
        decisions = msgspec.structs.replace(decisions, rules=promised, tau=tau, uncertified=uncertified)
    for number in range(len(rows)):
        assert decisions.reasons(number) == tuple(each.rule for each in decisions.verdicts(number) if each.defers)


@given(POLICIES, ROWS)
def test_raising_the_threshold_never_answers_more(policy: Policy, rows: list[Row]) -> None:
    """A stricter policy defers at least the same rows."""
    stricter = Policy(
        threshold=min(1.0, policy.threshold + 0.1),
        class_thresholds={label: min(1.0, share + 0.1) for label, share in policy.class_thresholds.items()},
        always_person=policy.always_person,
        audit_share=policy.audit_share,
        allow_model_wish=policy.allow_model_wish,
    )
    assert not (_decide(policy, rows).deferred & ~_decide(stricter, rows).deferred).any()


def test_every_rule_says_how_it_was_evaluated() -> None:
    """Sentences with the numbers that were compared."""
    policy = Policy(threshold=0.9, class_thresholds={"b": 0.5}, always_person=("c",), audit_share=0.25)

    def said(decisions: Decisions) -> dict[str, tuple[bool, str]]:
        return {verdict.rule: (verdict.defers, verdict.evaluation) for verdict in decisions.verdicts(0)}

    assert said(_one(policy, 0.62))["threshold"] == (True, "confidence 0.62 < 0.90")
    assert said(_one(policy, 0.899999))["threshold"] == (True, "confidence 0.899999 < 0.900000")
    assert said(_one(policy, 0.9))["threshold"] == (False, "confidence 0.90 >= 0.90")
    assert said(_one(policy, 0.62, label=1))["threshold"] == (False, "confidence 0.62 >= 0.50 for 'b'")
    assert said(_one(policy, 1.0, label=2))["always_person"] == (True, "'c' always goes to a person")
    assert said(_one(policy, 1.0))["always_person"] == (False, "'a' need not go to a person")
    assert said(_one(policy, 1.0, xi=0.125))["audit"] == (True, "draw 0.12 < share 0.25")
    assert said(_one(policy, 1.0, wish=Wish.PERSON))["wish"] == (True, "the client asked for a person")
    assert "audit" not in said(_one(policy, 0.1, xi=0.0))


def test_a_wish_for_the_model_is_granted_only_where_the_policy_allows_it() -> None:
    """Granted it overrides the threshold and marks the answer; ignored it says so; it never lifts always_person."""
    strict, lax = Policy(always_person=("c",)), Policy(always_person=("c",), allow_model_wish=True)
    assert _one(strict, 0.1, wish=Wish.MODEL).decision(0) is Decision.DEFERRED
    assert "ignored: the policy does not allow it" in _one(strict, 0.1, wish=Wish.MODEL).verdicts(0)[2].evaluation
    assert _one(lax, 0.1, wish=Wish.MODEL).decision(0) is Decision.UNREVIEWED
    assert _one(lax, 0.95, wish=Wish.MODEL).decision(0) is Decision.ANSWERED
    assert _one(lax, 0.1, wish=Wish.MODEL, label=2).decision(0) is Decision.DEFERRED


def test_a_confidence_that_is_no_number_goes_to_a_person() -> None:
    """Even with a threshold of 0."""
    assert _one(Policy(threshold=0.0), float("nan")).decision(0) is Decision.DEFERRED


def test_a_row_that_was_deferred_before_stays_deferred() -> None:
    """However sure the model is by now."""
    decisions = _decide(Policy(), [(1.0, 0, Wish.NONE, 0.0, True)])
    assert decisions.decision(0) is Decision.DEFERRED
    assert decisions.reasons(0) == ("retry",)


@given(st.text(), st.text(), st.text())
def test_a_draw_is_in_the_unit_interval_and_the_same_again(model: str, epoch: str, key: str) -> None:
    """A retry is audited if the first try was."""
    found = draw(b"secret", model=model, epoch=epoch, request_key=key)
    assert 0 <= found < 1
    assert found == draw(b"secret", model=model, epoch=epoch, request_key=key)


def test_draws_are_uniform_and_independent_of_where_the_parts_meet() -> None:
    """Over 20,000 keys each tenth holds 10 % within 5 standard deviations; moving a letter draws anew."""
    draws = np.array([draw(b"s", model="m", epoch="1", request_key=str(number)) for number in range(20_000)])
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert np.abs(counts - 2_000).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)
    assert draw(b"s", model="ab", epoch="c", request_key="") != draw(b"s", model="a", epoch="bc", request_key="")
    assert draw(b"s", model="m", epoch="1", request_key="k") != draw(b"t", model="m", epoch="1", request_key="k")


@pytest.mark.parametrize("field", ["threshold", "audit_share"])
def test_shares_outside_the_unit_interval_are_refused_when_read(field: str) -> None:
    """As a manifest or a document is read."""
    import msgspec

    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(f'{{"{field}": 1.5}}', type=Policy)
