"""The tables' shape, and what an ending tells. Pure."""

from __future__ import annotations

import pytest

from fallback.answer import CantTell, Json, Label, Task
from fallback.deferral import (
    DEFERRAL_TABLE,
    SLOT_TABLE,
    TERMINAL,
    Callback,
    Deferral,
    Event,
    GoldMark,
    OnExpiry,
    Prediction,
    Review,
    SlotEvent,
    SlotState,
    State,
    overdue,
    telling,
    tier_name,
    tried,
)

PREDICTION = Prediction(model="m", version="1", answer=Label("3"), confidence=0.5)


def _deferral(**changes: object) -> Deferral:
    said: dict[str, object] = {
        "id": "1",
        "queue": "q",
        "state": State.OPEN,
        "version": 1,
        "task": Task(question="?"),
        "prediction": PREDICTION,
        "draw": None,
        "outcome": None,
        "reviews": (),
        "reviews_wanted": 1,
        "create_time": 0.0,
        "expire_time": 1.0,
        "client": "c",
        "priority": 0,
        "attributes": {},
        "media_type": "",
        "reasons": (),
        "audit": False,
        "callback": Callback(grpc_target="host:1"),
        "on_expiry": OnExpiry.ABSTAIN,
        "subject_digest": "",
        "inputs_digest": "",
    }
    return Deferral(**{**said, **changes})  # type: ignore[arg-type]  # built from a table of defaults


def test_every_state_of_the_tables_is_reached_and_the_last_ones_are_left_by_nothing() -> None:
    """No edge leads out of a terminal state, and every other state has one."""
    reached = {state for states in DEFERRAL_TABLE.values() for state in states} | {State.OPEN}
    assert reached == set(State)
    assert {state for state, _ in DEFERRAL_TABLE} == set(State) - TERMINAL
    assert set(SLOT_TABLE.values()) == {state for state, _ in SLOT_TABLE} == set(SlotState)
    assert {event for _, event in DEFERRAL_TABLE} == set(Event)
    assert {event for _, event in SLOT_TABLE} == set(SlotEvent)


def test_every_tier_has_a_name_of_its_own() -> None:
    """Also one that the setting no longer names; the only one of a queue without tiers has none."""
    assert [tier_name(("reader", "doctor"), number) for number in range(4)] == ["reader", "doctor", "tier 3", "tier 4"]
    assert [tier_name((), number) for number in range(2)] == ["", "tier 2"]


def test_nobody_came_in_time() -> None:
    """The model's answer where the client takes it unreviewed, none otherwise or where no model was asked."""
    assert overdue(PREDICTION, OnExpiry.ANSWER_UNREVIEWED) == Label("3")
    assert overdue(PREDICTION, OnExpiry.ABSTAIN) is None
    assert overdue(None, OnExpiry.ANSWER_UNREVIEWED) is None
    assert overdue(PREDICTION, OnExpiry.ESCALATE) is None


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_deferral_tells_how_it_ended(state: State) -> None:
    """Whatever the answer; without a callback nothing."""
    assert telling(_deferral(), state, None) == f"deferral.{state.value}"
    assert telling(_deferral(callback=None), state, Label("3")) == ""


def test_an_audit_tells_only_of_an_answer_that_overturns() -> None:
    """Agreement, no answer, "can't tell", expiry and cancellation are no news to a client that was answered."""
    audit = _deferral(audit=True)
    assert telling(audit, State.RESOLVED, Label("7")) == "answer.amended"
    for state, answer in (
        (State.RESOLVED, Label("3")),
        (State.RESOLVED, None),
        (State.RESOLVED, CantTell()),
        (State.EXPIRED, Label("7")),
        (State.CANCELLED, None),
    ):
        assert telling(audit, state, answer) == ""


def test_an_answer_that_is_spelt_otherwise_overturns_nothing() -> None:
    """Nor is who gives it wrong about a gold item."""
    guess = Prediction(model="m", version="1", answer=Json('{"a":1,"b":2}'), confidence=0.5)
    audit = _deferral(audit=True, prediction=guess)
    same = Json('{"b": 2, "a": 1}')
    assert telling(audit, State.RESOLVED, same) == ""
    assert telling(audit, State.RESOLVED, Json("{}")) == "answer.amended"
    review = Review(reviewer="ann", answer=same, create_time=0.0, blind=True, duration_seconds=1.0)
    assert tried(_deferral(reviews=(review,)), GoldMark(id="g", answer=guess.answer)) == 'gold [["g ann","right"]]'


def test_a_name_holds_its_queue() -> None:
    """queues/<queue>/deferrals/<id>."""
    assert _deferral(id="abc").name == "queues/q/deferrals/abc"
