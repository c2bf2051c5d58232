"""Answers that people overturned: what is one, and what several gateways make of it together."""

from __future__ import annotations

import msgspec

from fallback.answer import Answer, CantTell, Label
from fallback.deferral import Deferral, OnExpiry, Outcome, Prediction, Source, State
from gateway.amendments import AMENDMENTS_MAX, BYTES_MAX, Amendment, Amendments, amendment_of, joined
from gateway.kept import KeptAnswer
from tests.live_gateway import TASK


def _deferral(said: Answer | None, *, audit: bool = True, state: State = State.RESOLVED) -> Deferral:
    return Deferral(
        id="d",
        queue="m",
        state=state,
        version=2,
        task=TASK,
        prediction=Prediction(model="m", version="1", answer=Label("a"), confidence=0.9),
        draw=None,
        outcome=Outcome(source=Source.PERSON, answer=said, reviewed=True, create_time=7.0),
        reviews=(),
        reviews_wanted=1,
        create_time=1.0,
        expire_time=9.0,
        client="shop",
        priority=0,
        attributes={},
        media_type="",
        reasons=("audit",),
        audit=audit,
        callback=None,
        on_expiry=OnExpiry.ABSTAIN,
        subject_digest="",
        inputs_digest="",
    )


def _near(confidence: float, request: str = "r", time: float = 1.0) -> KeptAnswer:
    return KeptAnswer(client="shop", request=request, row=0, confidence=confidence, time=time)


def _amendment(number: int, *nearest: KeptAnswer) -> Amendment:
    return Amendment(
        deferral=f"queues/m/deferrals/{number}",
        version="1",
        client="shop",
        predicted="a",
        answer=Label("b"),
        confidence=0.9,
        time=float(number),
        nearest=nearest,
    )


def test_only_an_audit_that_people_overturned_amends_an_answer() -> None:
    """Not one they agree with, cannot tell, or did not come to; and no deferred request, which had no answer yet."""
    found = amendment_of(_deferral(Label("b")))
    assert found is not None
    assert (found.deferral, found.client, found.predicted, found.answer) == (
        "queues/m/deferrals/d",
        "shop",
        "a",
        Label("b"),
    )
    for other in (
        _deferral(Label("a")),
        _deferral(CantTell()),
        _deferral(None),
        _deferral(Label("b"), audit=False),
        _deferral(Label("b"), state=State.EXPIRED),
    ):
        assert amendment_of(other) is None


def test_of_one_amended_answer_the_nearest_of_all_gateways_stay() -> None:
    """Whichever came first, each once; told twice changes nothing."""
    here = _amendment(1, _near(0.9, "x"), _near(0.7, "y"))
    there = _amendment(1, _near(0.89, "z"), _near(0.5, "w"))
    known = joined(joined(Amendments(), here, nearest_max=3), there, nearest_max=3)
    assert [near.request for near in known.amendments[0].nearest] == ["x", "z", "y"]
    assert known == joined(joined(Amendments(), there, nearest_max=3), here, nearest_max=3)
    assert joined(known, here, nearest_max=3) == known


def test_the_oldest_go_where_there_are_many_or_they_weigh_much() -> None:
    """A document is read by everybody, again and again."""
    known = Amendments()
    for number in range(AMENDMENTS_MAX + 3):
        known = joined(known, _amendment(number), nearest_max=3)
    assert [one.time for one in known.amendments] == [float(n) for n in reversed(range(3, AMENDMENTS_MAX + 3))]
    heavy = [_near(0.9, f"{number:0256}") for number in range(100)]
    for number in range(20, 20 + AMENDMENTS_MAX):
        known = joined(known, _amendment(number, *heavy), nearest_max=100)
    assert len(msgspec.json.encode(known)) <= BYTES_MAX
    assert known.amendments[0].time == 19.0 + AMENDMENTS_MAX
