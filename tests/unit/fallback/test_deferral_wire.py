"""A deferral on the wire: what is told, and what is hidden."""

from __future__ import annotations

from typing import Any

import pytest

from demur.v1 import types_pb2 as pb
from fallback.answer import Label, LabelOption, Task
from fallback.deferral import (
    Callback,
    Content,
    Deferral,
    Draw,
    Flag,
    OnExpiry,
    Outcome,
    Prediction,
    Review,
    Skip,
    Source,
    State,
)
from fallback.deferral_wire import deferral_from_wire, deferral_to_wire

TASK = Task(question="Which digit?", labels=(LabelOption(label="7", key="7"), LabelOption(label="none")))


def deferral(**changes: Any) -> Deferral:
    """An audited deferral that says everything."""
    said: dict[str, Any] = {
        "id": "0123",
        "queue": "digits",
        "state": State.OPEN,
        "version": 2,
        "task": TASK,
        "prediction": Prediction(model="digits", version="3", answer=Label("7"), confidence=0.75),
        "draw": None,
        "outcome": None,
        "reviews": (Review(reviewer="ann", answer=Label("7"), create_time=1.0, blind=True, duration_seconds=2.0),),
        "reviews_wanted": 2,
        "create_time": 1_700_000_000.5,
        "expire_time": 1_700_086_400.5,
        "client": "shop",
        "priority": 4,
        "attributes": {"site": "north"},
        "media_type": "image/png",
        "reasons": ("audit",),
        "audit": True,
        "callback": Callback(webhook_url="https://shop.example/"),
        "on_expiry": OnExpiry.ABSTAIN,
        "subject_digest": "ab",
        "inputs_digest": "cd",
    }
    return Deferral(**{**said, **changes})


def test_what_reviewers_said_beside_their_answers_is_told_only_where_asked_for() -> None:
    """Flags and skips there and back; without `show_notes` none."""
    flags = (Flag(reviewer="ann", comment="two digits", create_time=1.5),)
    skips = (Skip(reviewer="bob", reason="", create_time=2.25),)
    noted = deferral(flags=flags, skips=skips)
    back = deferral_from_wire(deferral_to_wire(noted, show_prediction=False, show_notes=True))
    assert (back.flags, back.skips) == (flags, skips)
    hidden = deferral_to_wire(noted, show_prediction=True)
    assert (len(hidden.flags), len(hidden.skips)) == (0, 0)


def test_a_blind_view_hides_all_that_hints_at_the_guess() -> None:
    """No prediction, no reasons, no audit mark; nothing of the guess anywhere in the bytes."""
    hidden = deferral_to_wire(deferral(), show_prediction=False, subject=b"png")
    assert not hidden.HasField("prediction")
    assert list(hidden.reasons) == []
    assert hidden.audit is False
    assert hidden.subject.content == b"png"
    assert b"audit" not in hidden.SerializeToString()
    shown = deferral_to_wire(deferral(), show_prediction=True)
    assert (shown.prediction.confidence, list(shown.reasons), shown.audit) == (0.75, ["audit"], True)
    assert shown.subject.content == b""


def test_the_certificate_in_force_is_told_beside_the_prediction() -> None:
    """Empty where there was none; hidden with the guess."""
    drawn = deferral(draw=Draw(request_key="k", q=1.0, xi=0.5, place="1-g-1", epoch="1", certificate="m/1"))
    assert deferral_to_wire(drawn, show_prediction=True).certificate == "m/1"
    assert deferral_to_wire(drawn, show_prediction=False).certificate == ""
    assert deferral_to_wire(deferral(), show_prediction=True).certificate == ""


def test_the_undo_window_shows_nowhere() -> None:
    """SETTLING reads as OPEN."""
    settling = deferral_to_wire(deferral(state=State.SETTLING), show_prediction=True)
    assert settling.state == pb.Deferral.OPEN
    assert settling.reviews_done == 1


@pytest.mark.parametrize("content", list(Content))
def test_what_became_of_the_content_is_told(content: Content) -> None:
    """Each state has its name in the contract."""
    wired = deferral_to_wire(deferral(content=content), show_prediction=False)
    assert pb.ContentState.Name(wired.content) == {"none": "CONTENT_STATE_UNSPECIFIED"}.get(content, content.name)
    assert deferral_from_wire(wired).content is content


def test_a_deferral_tells_what_the_wire_tells() -> None:
    """Back from the wire it is the same but for what the wire does not carry."""
    outcome = Outcome(source=Source.CONSENSUS, answer=None, reviewed=True, create_time=1_700_000_001.0)
    given_ = deferral(state=State.RESOLVED, outcome=outcome)
    back = deferral_from_wire(deferral_to_wire(given_, show_prediction=True))
    left_out = {"reviews": (), "client": "", "callback": None, "subject_digest": "", "inputs_digest": ""}
    assert back == deferral(state=State.RESOLVED, outcome=outcome, **left_out)
