"""Between the wire and values."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from demur.v1 import types_pb2 as pb
from fallback import wire
from fallback.answer import Answer, AnswerKind, Box, Boxes, CantTell, Json, Label, LabelOption, Labels, Number, Task
from fallback.deferral import Callback, OnExpiry
from fallback.errors import InvalidError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LABEL = st.text(st.characters(exclude_categories=["Cs"]), max_size=wire.LABEL_CHARS_MAX)
BOX = st.builds(Box, label=LABEL, x=FINITE, y=FINITE, width=FINITE, height=FINITE)
ANSWERS = st.one_of(
    st.builds(Label, LABEL),
    st.builds(Labels, st.lists(LABEL, unique=True, max_size=5).map(lambda names: tuple(sorted(names)))),
    st.builds(Boxes, st.lists(BOX, max_size=5).map(tuple)),
    st.builds(Number, FINITE),
    st.just(Json('{"a": [1, null]}')),
    st.just(CantTell()),
)


@given(ANSWERS)
def test_an_answer_comes_back_as_it_went(answer: Answer) -> None:
    """Every kind of answer survives the bytes of the wire."""
    bytes_ = wire.answer_to_wire(answer).SerializeToString()
    assert wire.answer_from_wire(pb.Answer.FromString(bytes_)) == answer


@given(st.floats(0, 4e9))
def test_times_keep_their_microseconds(seconds: float) -> None:
    """Unix seconds go and come to the microsecond."""
    assert wire.timestamp_from_wire(wire.timestamp_to_wire(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_a_duration_has_bounds() -> None:
    """Negative and too long are refused by the field's name."""
    assert wire.duration_from_wire("wait", wire.duration_to_wire(1.5)) == 1.5
    for seconds in (-1, 61):
        with pytest.raises(InvalidError, match="wait: expected 0 to 60 s"):
            wire.duration_from_wire("wait", Duration(seconds=seconds), seconds_max=60)


TASK = Task(
    question="Which digit?",
    guidelines="Look twice.",
    kind=AnswerKind.LABEL,
    labels=(LabelOption(label="7", key="7"), LabelOption(label="none")),
    cant_tell=False,
)


def test_a_task_comes_back_as_it_went() -> None:
    """Question, guidelines, kind, labels with keys, can't tell."""
    assert wire.task_from_wire(wire.task_to_wire(TASK)) == TASK


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (pb.Task(question="?"), "task.kind"),
        (pb.Task(question="?", kind="NUMBER", labels=[pb.LabelOption(label="x" * 257)]), "task.labels.label"),
        (pb.Task(question=" ", kind="NUMBER"), "task.question"),
        (pb.Task(question="?", kind="LABEL"), "task.labels"),
        (pb.Task.FromString(b"\n\x01?\x18\x63"), "task.kind"),
    ],
)
def test_a_task_that_nobody_could_answer_is_refused(task: pb.Task, sentence: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidError, match=sentence):
        wire.task_from_wire(task)


@pytest.mark.parametrize(
    "name",
    ["", "digits", "queues/digits", "queues//deferrals/1", "queues/a b/deferrals/1", "queues/a/deferrals/", "x" * 600,
     "queues/a/deferrals/1/2", "queues/a/deferrals/\u00e9", "queues/{a}/deferrals/1"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """The sentence shows what a name looks like."""
    with pytest.raises(InvalidError, match="name: expected queues/<queue>/deferrals/<id>"):
        wire.name_from_wire("name", name)


def test_a_queue_may_be_named_both_ways() -> None:
    """By its own name or as a resource."""
    assert wire.queue_from_wire("queue", "digits") == wire.queue_from_wire("queue", "queues/digits") == "digits"


def test_what_happens_at_expiry_is_one_of_three() -> None:
    """Unspecified is the queue's own setting; a number that the contract does not know is refused."""
    assert wire.on_expiry_from_wire(pb.ON_EXPIRY_UNSPECIFIED) is None
    for wish in OnExpiry:
        assert wire.on_expiry_from_wire(getattr(pb, wish.name)) is wish
    with pytest.raises(InvalidError, match="on_expiry: expected ANSWER_UNREVIEWED, ABSTAIN or ESCALATE, got 9"):
        wire.on_expiry_from_wire(9)  # type: ignore[arg-type]  # proto3 lets any number through


def test_a_callback_comes_back_as_it_went() -> None:
    """Webhook, gRPC target, or none."""
    for callback in (Callback(webhook_url="https://shop.example/hook"), Callback(grpc_target="shop.example:443")):
        assert wire.callback_from_wire(wire.callback_to_wire(callback)) == callback
    assert wire.callback_from_wire(pb.Callback()) is None


@pytest.mark.parametrize(
    ("callback", "field"),
    [
        (pb.Callback(webhook_url=""), r"callback\.webhook_url"),
        (pb.Callback(webhook_url="shop.example"), r"callback\.webhook_url"),
        (pb.Callback(grpc_target=""), r"callback\.grpc_target"),
        (pb.Callback(grpc_target="shop.example"), r"callback\.grpc_target"),
    ],
)
def test_a_wrong_callback_names_its_field(callback: pb.Callback, field: str) -> None:
    """What its text alone can tell is told at once."""
    with pytest.raises(InvalidError, match=f"^{field}: expected"):
        wire.callback_from_wire(callback)


def test_a_subject_has_limits() -> None:
    """Size, media type, attributes: each is named."""
    good = pb.Subject(content=b"123", media_type="image/svg+xml", attributes={"site": "north"})
    assert wire.subject_from_wire(good, bytes_max=3).attributes == {"site": "north"}
    for subject, field in (
        (pb.Subject(content=b"1234", media_type="image/png"), "content"),
        (pb.Subject(content=b"1", media_type="image"), "media_type"),
        (pb.Subject(content=b"1", media_type="text/html; charset=x"), "media_type"),
        (pb.Subject(content=b"1", media_type="image/png", attributes={"k": "v" * 257}), "attributes"),
        (pb.Subject(content=b"1", media_type="image/png", attributes={"": "v"}), "attributes"),
        (pb.Subject(content=b"1", media_type="image/png", attributes={str(n): "" for n in range(65)}), "attributes"),
    ):
        with pytest.raises(InvalidError, match=rf"^subject\.{field}"):
            wire.subject_from_wire(subject, bytes_max=3)


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (pb.Answer(), "answer: "),
        (pb.Answer(label="x" * 257), "answer.label: "),
        (pb.Answer(json="{"), "answer.json: "),
        (pb.Answer(json="[" * 60_000), "answer.json: "),
        (pb.Answer(json='"' + "x" * 65_536 + '"'), "answer.json: "),
    ],
)
def test_an_answer_that_is_none_is_refused(answer: pb.Answer, field: str) -> None:
    """Nesting that no parser follows is refused like any other text that is not JSON."""
    with pytest.raises(InvalidError, match=field):
        wire.answer_from_wire(answer)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_confidence_is_a_probability(confidence: float) -> None:
    """In [0, 1]."""
    with pytest.raises(InvalidError, match="confidence"):
        wire.prediction_from_wire(pb.Prediction(answer=pb.Answer(label="7"), confidence=confidence))
