"""What Redis keeps of a deferral."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback import records
from fallback.answer import Box, Boxes, CantTell, Json, Label, LabelOption, Labels, Number, Task
from fallback.blobs import Reference
from fallback.deferral import (
    Callback,
    Draw,
    OnExpiry,
    Outcome,
    Parking,
    Prediction,
    Review,
    SecondOpinion,
    Source,
    State,
)

TASK = Task(question="?", labels=(LabelOption(label="3", key="3"),))
texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
answers = st.one_of(
    texts.map(Label),
    st.lists(texts, max_size=3).map(lambda labels: Labels(tuple(labels))),
    numbers.map(Number),
    texts.map(Json),
    st.just(CantTell()),
    st.builds(Box, label=texts, x=numbers, y=numbers, width=numbers, height=numbers).map(lambda box: Boxes((box,))),
)


def _parking(**changes: Any) -> Parking:
    said: dict[str, Any] = {
        "queue": "q",
        "client": "c",
        "idempotency_key": "",
        "input_digest": "",
        "task": TASK,
        "subject": b"s",
        "media_type": "text/plain",
        "attributes": {},
    }
    return Parking(**{**said, **changes})


def _fields(parking: Parking, **more: str) -> dict[str, str]:
    return {
        "body": records.encode_body(parking, OnExpiry.ABSTAIN, (1, 3)).decode(),
        "state": "open",
        "version": "1",
        "slots": "1",
        "create_ms": "1500",
        "expire_ms": "2500",
        **more,
    }


@given(
    client=texts,
    attributes=st.dictionaries(texts, texts, max_size=3),
    answer=answers,
    confidence=st.floats(0, 1),
    shown=st.none() | st.floats(0, 1),
    xi=st.floats(0, 1, exclude_max=True),
)
def test_what_never_changes_comes_back_as_it_was(
    client: str, attributes: dict[str, str], answer: Any, confidence: float, shown: float | None, xi: float
) -> None:
    """Any text, any answer, any number."""
    parking = _parking(
        client=client,
        attributes=attributes,
        prediction=Prediction(model="m", version="1", answer=answer, confidence=confidence, shown=shown),
        draw=Draw(request_key="k", q=0.1, xi=xi),
        callback=Callback(grpc_target="host:1"),
        reasons=("audit",),
        audit=True,
        priority=3,
        second_opinion=SecondOpinion(predictions=(answer, Label("7")), always=True),
    )
    found = records.decode("q", "1", _fields(parking), TASK).deferral
    for name in (
        "client",
        "attributes",
        "prediction",
        "draw",
        "callback",
        "reasons",
        "audit",
        "priority",
        "second_opinion",
    ):
        assert getattr(found, name) == getattr(parking, name), name
    assert (found.create_time, found.expire_time) == (1.5, 2.5)
    assert found.subject_digest == hashlib.sha256(b"s").hexdigest()
    assert found.inputs_digest == ""


def _slot(number: int, created: int) -> dict[str, str]:
    said = {
        "state": "filled",
        "holder": f"r{number}",
        "how": "assisted" if number else "blind",
        "since": "1000",
        "answer": msgspec.json.encode(Label(str(number))).decode(),
        "comment": "",
        "create_ms": str(created),
    }
    return {f"s{number}.{key}": value for key, value in said.items()}


def test_reviews_are_in_the_order_they_were_given() -> None:
    """Whatever slots they stand in; only FILLED ones count."""
    fields = _fields(_parking(), **_slot(0, 3000), **_slot(1, 2000), **{"slots": "3", "s2.state": "held"})
    record = records.decode("q", "1", fields, TASK)
    assert record.deferral.reviews == (
        Review(reviewer="r1", answer=Label("1"), create_time=2.0, blind=False, duration_seconds=1.0),
        Review(reviewer="r0", answer=Label("0"), create_time=3.0, blind=True, duration_seconds=2.0),
    )
    assert (record.deferral.reviews_wanted, record.full) == (3, False)


def test_an_outcome_has_the_servers_time() -> None:
    """And says how it came about."""
    verdict = records.Verdict(source=Source.EXPIRY, answer=Label("3"), reviewed=False)
    fields = _fields(
        _parking(), state="expired", outcome=records.encode_verdict(verdict).decode(), outcome_ms="9000", event="e"
    )
    record = records.decode("q", "1", fields, TASK)
    assert record.deferral.state is State.EXPIRED
    assert record.deferral.outcome == Outcome(source=Source.EXPIRY, answer=Label("3"), reviewed=False, create_time=9.0)
    assert (record.event, record.attempt, record.reason) == ("e", 0, "")


def test_the_undo_window_shows_nowhere() -> None:
    """SETTLING reads as OPEN, and its outcome is none yet."""
    verdict = records.Verdict(source=Source.PERSON, answer=Label("3"), reviewed=True)
    fields = _fields(_parking(), state="settling", outcome=records.encode_verdict(verdict).decode(), event="e")
    record = records.decode("q", "1", fields, TASK)
    assert (record.deferral.state, record.deferral.outcome, record.settling) == (State.OPEN, None, True)


@pytest.mark.parametrize(("subject", "inputs", "kept"), [(b"s", b"i", 2), (b"s", b"", 1), (b"", b"", 0)])
def test_only_content_that_is_there_is_stored(subject: bytes, inputs: bytes, kept: int) -> None:
    """Nothing is no key."""
    assert len(records.content_keys("q", "1", _parking(subject=subject, inputs=inputs))) == kept


def test_large_content_is_known_by_its_reference_and_small_by_its_digest() -> None:
    """The digest is the same; where it lies, and its size, stand before it."""
    parking = _parking(subject=b"s", inputs=b"i")
    digest = base64.b64encode(hashlib.sha256(b"s").digest()).decode().rstrip("=")
    large = {"subject": Reference(place="folder", size_bytes=1, digest=digest)}
    fields = _fields(parking, body=records.encode_body(parking, OnExpiry.ABSTAIN, (1, 3), large).decode())
    record = records.decode("q", "1", fields, TASK)
    assert (Reference.read(record.stored[0]), Reference.read(record.stored[1])) == (large["subject"], None)
    assert record.deferral.subject_digest == hashlib.sha256(b"s").hexdigest()
    assert record.deferral.inputs_digest == hashlib.sha256(b"i").hexdigest()
    assert list(records.content_keys("q", "1", parking, large)) == ["inputs"]


def test_equal_tasks_are_one_task() -> None:
    """Whoever made them; another question is another task."""
    digest, encoded = records.encode_task(TASK)
    assert records.encode_task(msgspec.json.decode(encoded, type=Task)) == (digest, encoded)
    assert records.encode_task(Task(question="??", labels=TASK.labels))[0] != digest
