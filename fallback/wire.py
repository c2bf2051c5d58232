"""Between the wire's messages and this package's values, both ways; what comes in is judged here, field by field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, assert_never

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from demur.v1 import types_pb2 as pb
from fallback.address import check_target, check_url
from fallback.answer import (
    TEXT_CHARS_MAX,
    Answer,
    AnswerKind,
    Box,
    Boxes,
    CantTell,
    Json,
    Label,
    LabelOption,
    Labels,
    Number,
    Subject,
    Task,
    check_json,
    check_task,
)
from fallback.deferral import Callback, OnExpiry, Outcome, Prediction, Source
from fallback.errors import InvalidError
from fallback.queue_settings import QUEUE_NAME

LABEL_CHARS_MAX: Final = 256
ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_CHARS_MAX: Final = 256
COMMENT_CHARS_MAX: Final = 10_000
TOKEN_CHARS_MAX: Final = 1_024
REQUEST_ID_CHARS_MAX: Final = 128
NAME_CHARS_MAX: Final = 512
DURATION_SECONDS_MAX: Final = 10 * 365 * 86_400.0
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_NANOS: Final = 10**9


def timestamp_to_wire(seconds: float) -> Timestamp:
    """Return Unix `seconds`, to the microsecond."""
    nanos = round(seconds * 10**6) * 1_000
    return Timestamp(seconds=nanos // _NANOS, nanos=nanos % _NANOS)


def timestamp_from_wire(wire: Timestamp) -> float:
    """Return Unix seconds."""
    return wire.seconds + wire.nanos / _NANOS


def duration_to_wire(seconds: float) -> Duration:
    """Return `seconds` >= 0, to the microsecond."""
    nanos = round(max(0.0, seconds) * 10**6) * 1_000
    return Duration(seconds=nanos // _NANOS, nanos=nanos % _NANOS)


def duration_from_wire(field: str, wire: Duration, *, seconds_max: float = DURATION_SECONDS_MAX) -> float:
    """Return seconds in [0, `seconds_max`]; raises InvalidError naming `field`."""
    seconds = wire.seconds + wire.nanos / _NANOS
    if not 0 <= seconds <= seconds_max:
        raise InvalidError(f"{field}: expected 0 to {seconds_max:g} s, got {seconds:g} s")
    return seconds


def expected_wait_from_wire(wire: Any) -> float | None:
    """Return the seconds of a reply's `expected_wait`; None where it says nothing."""
    return duration_from_wire("expected_wait", wire.expected_wait) if wire.HasField("expected_wait") else None


def text_from_wire(field: str, text: str, *, chars_max: int, needed: bool = False) -> str:
    """Return `text` of at most `chars_max` characters, not empty where `needed`; raises InvalidError naming `field`."""
    if len(text) > chars_max:
        raise InvalidError(f"{field}: expected at most {chars_max} characters, got {len(text)}")
    if needed and not text:
        raise InvalidError(f"{field}: expected one, got an empty text")
    return text


def queue_from_wire(field: str, name: str) -> str:
    """Return the queue's own name from `<queue>` or `queues/<queue>`; raises InvalidError naming `field`."""
    queue = name.removeprefix("queues/")
    if not QUEUE_NAME.fullmatch(queue):
        raise InvalidError(f"{field}: expected the name of a queue, e.g. queues/digits, got {name[:NAME_CHARS_MAX]!r}")
    return queue


def name_from_wire(field: str, name: str) -> tuple[str, str]:
    """Return queue and id from `queues/<queue>/deferrals/<id>`; raises InvalidError naming `field`."""
    parts = name.split("/") if len(name) <= NAME_CHARS_MAX else []
    match parts:
        case ["queues", queue, "deferrals", deferral_id] if (
            QUEUE_NAME.fullmatch(queue) and deferral_id.isascii() and deferral_id
        ):
            return queue, deferral_id
    raise InvalidError(f"{field}: expected queues/<queue>/deferrals/<id>, got {name[:100]!r}")


def answer_to_wire(answer: Answer) -> pb.Answer:
    """Return `answer` as it stands on the wire."""
    match answer:
        case Label(label=label):
            return pb.Answer(label=label)
        case Labels(labels=labels):
            return pb.Answer(labels=pb.Labels(labels=labels))
        case Boxes(boxes=boxes):
            return pb.Answer(boxes=pb.Boxes(boxes=[pb.Box(**msgspec.structs.asdict(box)) for box in boxes]))
        case Number(number=number):
            return pb.Answer(number=number)
        case Json(json=text):
            return pb.Answer(json=text)
        case CantTell():
            return pb.Answer(cant_tell=pb.CantTell())
        case _:
            assert_never(answer)


def answer_from_wire(wire: pb.Answer, *, field: str = "answer") -> Answer:
    """Return the answer; raises InvalidError naming `field`. Whether it fits its task is `check_answer`'s to say."""
    kind = wire.WhichOneof("value")
    match kind:
        case "label":
            return Label(text_from_wire(f"{field}.label", wire.label, chars_max=LABEL_CHARS_MAX))
        case "labels":
            return Labels(tuple(sorted(wire.labels.labels)))
        case "boxes":
            return Boxes(tuple(_box(box) for box in wire.boxes.boxes))
        case "number":
            return Number(wire.number)
        case "json":
            return _json(f"{field}.json", wire.json)
        case "cant_tell":
            return CantTell()
        case None:
            raise InvalidError(f"{field}: expected one of label, labels, boxes, number, json, cant_tell, got none")
        case _:
            assert_never(kind)


def _box(wire: pb.Box) -> Box:
    return Box(label=wire.label, x=wire.x, y=wire.y, width=wire.width, height=wire.height)


def _json(field: str, text: str) -> Json:
    text_from_wire(field, text, chars_max=TEXT_CHARS_MAX)
    check_json(field, text)
    return Json(text)


def task_to_wire(task: Task) -> pb.Task:
    """Return `task` as it stands on the wire."""
    return pb.Task(
        question=task.question,
        guidelines=task.guidelines,
        kind=task.kind.name,
        labels=[pb.LabelOption(label=option.label, key=option.key) for option in task.labels],
        cant_tell=task.cant_tell,
    )


def task_from_wire(wire: pb.Task, *, field: str = "task") -> Task:
    """Return the task; raises InvalidError naming what nobody could answer."""
    if wire.kind == pb.ANSWER_KIND_UNSPECIFIED or wire.kind not in pb.AnswerKind.values():
        kinds = ", ".join(kind.name for kind in AnswerKind)
        raise InvalidError(f"{field}.kind: expected one of {kinds}, got {wire.kind}")
    for option in wire.labels:
        text_from_wire(f"{field}.labels.label", option.label, chars_max=LABEL_CHARS_MAX, needed=True)
    task = Task(
        question=wire.question,
        kind=AnswerKind[pb.AnswerKind.Name(wire.kind)],
        labels=tuple(LabelOption(label=option.label, key=option.key) for option in wire.labels),
        guidelines=wire.guidelines,
        cant_tell=wire.cant_tell,
    )
    check_task(task)
    return task


def prediction_to_wire(prediction: Prediction) -> pb.Prediction:
    """Return `prediction` as it stands on the wire."""
    return pb.Prediction(
        model=prediction.model,
        version=prediction.version,
        answer=answer_to_wire(prediction.answer),
        confidence=prediction.confidence,
        shown_confidence=prediction.shown,
    )


def prediction_from_wire(wire: pb.Prediction) -> Prediction:
    """Return the prediction; raises InvalidError naming the field."""
    if not (math.isfinite(wire.confidence) and 0 <= wire.confidence <= 1):
        raise InvalidError(f"prediction.confidence: expected a number in [0, 1], got {wire.confidence}")
    return Prediction(
        model=wire.model,
        version=wire.version,
        answer=answer_from_wire(wire.answer, field="prediction.answer"),
        confidence=wire.confidence,
        shown=wire.shown_confidence if wire.HasField("shown_confidence") else None,
    )


def outcome_to_wire(outcome: Outcome) -> pb.Outcome:
    """Return `outcome` as it stands on the wire."""
    return pb.Outcome(
        source=outcome.source.name,
        answer=None if outcome.answer is None else answer_to_wire(outcome.answer),
        reviewed=outcome.reviewed,
        create_time=timestamp_to_wire(outcome.create_time),
    )


def outcome_from_wire(wire: pb.Outcome) -> Outcome:
    """Return the outcome; raises InvalidError naming the field."""
    if wire.source == pb.Outcome.SOURCE_UNSPECIFIED or wire.source not in pb.Outcome.Source.values():
        raise InvalidError(
            f"outcome.source: expected one of {', '.join(each.name for each in Source)}, got {wire.source}"
        )
    return Outcome(
        source=Source[pb.Outcome.Source.Name(wire.source)],
        answer=answer_from_wire(wire.answer, field="outcome.answer") if wire.HasField("answer") else None,
        reviewed=wire.reviewed,
        create_time=timestamp_from_wire(wire.create_time),
    )


def subject_from_wire(wire: pb.Subject, *, bytes_max: int, field: str = "subject") -> Subject:
    """Return the subject; raises InvalidError naming the field that is over a limit or is not what it says."""
    if len(wire.content) > bytes_max:
        raise InvalidError(f"{field}.content: expected at most {bytes_max} bytes, got {len(wire.content)}")
    if not _MEDIA_TYPE.fullmatch(wire.media_type):
        raise InvalidError(f"{field}.media_type: expected e.g. image/png, got {wire.media_type[:100]!r}")
    attributes = attributes_from_wire(wire.attributes, field=f"{field}.attributes")
    return Subject(content=wire.content, media_type=wire.media_type, attributes=attributes)


def attributes_from_wire(wire: Mapping[str, str], *, field: str = "attributes") -> dict[str, str]:
    """Return at most 64 attributes of at most 256 characters each; raises InvalidError naming `field`."""
    if len(wire) > ATTRIBUTES_MAX:
        raise InvalidError(f"{field}: expected at most {ATTRIBUTES_MAX}, got {len(wire)}")
    for key, value in wire.items():
        text_from_wire(f"{field}.key", key, chars_max=ATTRIBUTE_CHARS_MAX, needed=True)
        text_from_wire(f"{field}[{key}]", value, chars_max=ATTRIBUTE_CHARS_MAX)
    return dict(wire)


def on_expiry_from_wire(wire: pb.OnExpiry) -> OnExpiry | None:
    """Return what to do at expiry, None for the queue's own setting; raises InvalidError for what is none of them."""
    match wire:
        case pb.ON_EXPIRY_UNSPECIFIED:
            return None
        case pb.ANSWER_UNREVIEWED:
            return OnExpiry.ANSWER_UNREVIEWED
        case pb.ABSTAIN:
            return OnExpiry.ABSTAIN
        case pb.ESCALATE:
            return OnExpiry.ESCALATE
    raise InvalidError(f"on_expiry: expected ANSWER_UNREVIEWED, ABSTAIN or ESCALATE, got {wire}")


def callback_to_wire(callback: Callback) -> pb.Callback:
    """Return `callback` as it stands on the wire."""
    if callback.webhook_url:
        return pb.Callback(webhook_url=callback.webhook_url)
    return pb.Callback(grpc_target=callback.grpc_target)


def callback_from_wire(wire: pb.Callback, *, field: str = "callback") -> Callback | None:
    """Return where to call back, None where nothing is set.

    Raises InvalidError naming the field for what can be told from the text alone: scheme, host, port, length. Whether
    an address may be called is judged when it is called.
    """
    target = wire.WhichOneof("target")
    match target:
        case None:
            return None
        case "webhook_url":
            return Callback(webhook_url=check_url(f"{field}.webhook_url", wire.webhook_url))
        case "grpc_target":
            return Callback(grpc_target=check_target(f"{field}.grpc_target", wire.grpc_target))
        case _:
            assert_never(target)
