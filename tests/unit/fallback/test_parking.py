"""What may be parked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fallback.answer import AnswerKind, Label, Number, Task
from fallback.config import QueueSettings
from fallback.deferral import Callback, Draw, OnExpiry, Parking, Prediction
from fallback.errors import InvalidError
from fallback.parking import boost_ms, check_parking, expiry_of

SETTINGS = QueueSettings(subject_bytes_max=4, inputs_bytes_max=5)
PREDICTION = Prediction(model="m", version="1", answer=Label("3"), confidence=0.5)


def _parking(**changes: Any) -> Parking:
    said: dict[str, Any] = {
        "queue": "digits",
        "client": "shop",
        "idempotency_key": "",
        "input_digest": "",
        "task": Task(question="How many?", kind=AnswerKind.NUMBER),
        "subject": b"",
        "media_type": "",
        "attributes": {},
    }
    return Parking(**{**said, **changes})


def test_bounds_belong_to_what_is_taken() -> None:
    """Exactly as much as a limit says."""
    check_parking(
        _parking(
            subject=b"4444",
            inputs=b"55555",
            idempotency_key="k" * 128,
            priority=9,
            attributes={str(number): "x" for number in range(64)},
            prediction=PREDICTION,
            draw=Draw(request_key="k", q=1.0, xi=0.0),
            callback=Callback(grpc_target="host:1"),
        ),
        SETTINGS,
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queue": "a{b"}, "queue: expected a letter"),
        ({"client": "c" * 257}, "client: expected at most 256 characters, got 257"),
        ({"idempotency_key": "k" * 129}, "idempotency_key: expected at most 128 characters, got 129"),
        ({"media_type": "m" * 129}, "subject.media_type: expected at most 128 characters, got 129"),
        ({"subject": b"55555"}, "subject.content: queue digits takes at most 4 bytes, got 5"),
        ({"inputs": b"666666"}, "inputs: queue digits takes at most 5 bytes, got 6"),
        ({"priority": -1}, "priority: expected 0 to 9, got -1"),
        ({"attributes": {str(n): "" for n in range(65)}}, "subject.attributes: expected at most 64, got 65"),
        ({"attributes": {"k": "v" * 1024}}, "expected at most 1024 characters each, got 1025 under 'k'"),
        ({"review_seconds": 0}, "review_deadline: expected more than 0 and at most 31536000 s, got 0"),
        ({"review_seconds": math.nan}, "review_deadline: expected more than 0"),
        ({"on_expiry": OnExpiry.ANSWER_UNREVIEWED}, "on_expiry: expected ABSTAIN or ESCALATE where no model was asked"),
        ({"reasons": ("r",) * 17}, "reasons: expected at most 16, got 17"),
        ({"callback": Callback()}, "callback: expected exactly one of webhook_url and grpc_target"),
        ({"callback": Callback(webhook_url="a", grpc_target="b")}, "callback: expected exactly one"),
        ({"callback": Callback(webhook_url="x" * 2049)}, "callback: expected at most 2048 characters, got 2049"),
        (
            {"prediction": Prediction(model="m", version="1", answer=Label("3"), confidence=math.nan)},
            "prediction.confidence: expected 0 to 1, got nan",
        ),
        (
            {"prediction": Prediction(model="m", version="1", answer=Number(math.inf), confidence=1)},
            "prediction.answer.number: expected a finite number, got inf",
        ),
        ({"draw": Draw(request_key="k", q=0.0, xi=0.5)}, "draw: expected q in (0, 1]"),
        ({"draw": Draw(request_key="k", q=0.5, xi=1.0)}, "draw: expected q in (0, 1]"),
        ({"tier": "doctor"}, "tier: expected one of queue digits (it has none: leave it out), got 'doctor'"),
        ({"excluded_reviewers": ("a",) * 33}, "excluded_reviewers: expected at most 32 names, got 33"),
        ({"excluded_reviewers": ("",)}, "excluded_reviewers: expected names of 1 to 64 characters, got one of 0"),
        (
            {"excluded_reviewers": ("a" * 65,)},
            "excluded_reviewers: expected names of 1 to 64 characters, got one of 65",
        ),
    ],
)
def test_each_wrong_field_is_named(changes: dict[str, Any], told: str) -> None:
    """Field, expected, got."""
    with pytest.raises(InvalidError) as raised:
        check_parking(_parking(**changes), SETTINGS)
    assert told in raised.value.message


def test_the_clients_wish_for_expiry_comes_before_the_queues() -> None:
    """And without a prediction there is nothing to answer."""
    unreviewed = QueueSettings(on_expiry="answer_unreviewed")
    assert expiry_of(_parking(prediction=PREDICTION), unreviewed) is OnExpiry.ANSWER_UNREVIEWED
    assert expiry_of(_parking(prediction=PREDICTION, on_expiry=OnExpiry.ABSTAIN), unreviewed) is OnExpiry.ABSTAIN
    assert expiry_of(_parking(prediction=PREDICTION), SETTINGS) is OnExpiry.ABSTAIN
    assert expiry_of(_parking(), unreviewed) is OnExpiry.ABSTAIN
    assert expiry_of(_parking(), QueueSettings(on_expiry="escalate")) is OnExpiry.ESCALATE
    assert expiry_of(_parking(on_expiry=OnExpiry.ESCALATE), unreviewed) is OnExpiry.ESCALATE


def test_a_tier_is_one_of_the_queues() -> None:
    """The error says which there are."""
    settings = QueueSettings(tiers=("reader", "doctor"))
    check_parking(_parking(tier="doctor"), settings)
    with pytest.raises(InvalidError, match=r"tier: expected one of queue digits \(reader, doctor\), got 'nurse'"):
        check_parking(_parking(tier="nurse"), settings)


def test_each_step_of_priority_is_worth_the_same_time() -> None:
    """Half an hour each, here."""
    settings = QueueSettings(priority_boost_seconds=1800)
    assert [boost_ms(priority, settings) for priority in (0, 1, 9)] == [0, 1_800_000, 16_200_000]
