"""What a person is asked and what a person or a model answers, with the pure rule of which answers fit which task."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import assert_never

import msgspec

from fallback.errors import InvalidError

LABELS_MAX = 1_000
BOXES_MAX = 1_000
TEXT_CHARS_MAX = 65_536


class AnswerKind(StrEnum):
    """The kinds of answer a task may ask for."""

    LABEL = "label"
    LABELS = "labels"
    BOXES = "boxes"
    NUMBER = "number"
    JSON = "json"


class LabelOption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label a reviewer may choose, and the key that chooses it (one character, or empty)."""

    label: str
    key: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person is asked."""

    question: str
    kind: AnswerKind = AnswerKind.LABEL
    labels: tuple[LabelOption, ...] = ()
    guidelines: str = ""
    cant_tell: bool = True

    def label_names(self) -> frozenset[str]:
        """Return the labels on offer."""
        return frozenset(option.label for option in self.labels)


class Label(msgspec.Struct, frozen=True, tag="label"):
    """One label."""

    label: str


class Labels(msgspec.Struct, frozen=True, tag="labels"):
    """A set of labels, sorted."""

    labels: tuple[str, ...]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """An axis-aligned box in pixels of the subject, origin at the upper left."""

    label: str
    x: float
    y: float
    width: float
    height: float


class Boxes(msgspec.Struct, frozen=True, tag="boxes"):
    """Boxes with their labels."""

    boxes: tuple[Box, ...]


class Number(msgspec.Struct, frozen=True, tag="number"):
    """A finite number."""

    number: float


class Json(msgspec.Struct, frozen=True, tag="json"):
    """A JSON text."""

    json: str


class CantTell(msgspec.Struct, frozen=True, tag="cant_tell"):
    """The person looked and cannot say."""


Answer = Label | Labels | Boxes | Number | Json | CantTell


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is shown of an input."""

    content: bytes
    media_type: str
    attributes: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls. Comes from the edge's credentials, never from a request's field."""

    name: str
    roles: frozenset[str] = frozenset()
    # The tiers of reviewers that they may answer for; None: every one.
    skills: frozenset[str] | None = None


def check_task(task: Task) -> None:
    """Raise InvalidError, naming the field, for a task that nobody could answer."""
    if not task.question.strip():
        raise InvalidError("task.question: expected a question, got an empty text")
    for field, text in (("question", task.question), ("guidelines", task.guidelines)):
        if len(text) > TEXT_CHARS_MAX:
            raise InvalidError(f"task.{field}: expected at most {TEXT_CHARS_MAX} characters, got {len(text)}")
    names = [option.label for option in task.labels]
    keys = [option.key for option in task.labels if option.key]
    if len(names) > LABELS_MAX:
        raise InvalidError(f"task.labels: expected at most {LABELS_MAX} labels, got {len(names)}")
    for field, values in (("labels", names), ("keys", keys)):
        if len(set(values)) < len(values):
            twice = sorted(value for value, count in Counter(values).items() if count > 1)
            raise InvalidError(f"task.{field}: expected each once, got {twice[0]!r} more than once")
    long = [key for key in keys if len(key) != 1 or key == "?"]
    if long:
        raise InvalidError(f"task.labels.key: expected one character other than '?', got {long[0]!r}")
    if task.kind in {AnswerKind.LABEL, AnswerKind.LABELS, AnswerKind.BOXES} and not names:
        raise InvalidError(f"task.labels: a task of kind {task.kind.value} needs at least one label, got none")


def check_answer(answer: Answer, task: Task) -> None:
    """Raise InvalidError, naming the field, expected and got, unless `answer` fits `task`."""
    if isinstance(answer, CantTell):
        if not task.cant_tell:
            raise InvalidError('answer.cant_tell: this task does not offer "can\'t tell"')
        return
    got = _kind(answer)
    if got is not task.kind:
        raise InvalidError(f"answer: this task expects an answer of kind {task.kind.value}, got {got.value}")
    match answer:
        case Label(label=label):
            _check_labels("answer.label", [label], task)
        case Labels(labels=labels):
            _check_labels("answer.labels", list(labels), task)
        case Boxes(boxes=boxes):
            _check_boxes(boxes, task)
        case Number(number=number):
            if not isfinite(number):
                raise InvalidError(f"answer.number: expected a finite number, got {number}")
        case Json(json=text):
            check_json("answer.json", text)
        case _:
            assert_never(answer)


def _kind(answer: Label | Labels | Boxes | Number | Json) -> AnswerKind:
    match answer:
        case Label():
            return AnswerKind.LABEL
        case Labels():
            return AnswerKind.LABELS
        case Boxes():
            return AnswerKind.BOXES
        case Number():
            return AnswerKind.NUMBER
        case Json():
            return AnswerKind.JSON
        case _:
            assert_never(answer)


def _check_labels(field: str, labels: list[str], task: Task) -> None:
    if len(set(labels)) != len(labels):
        raise InvalidError(f"{field}: expected each label once, got {labels}")
    names = task.label_names()
    for label in labels:
        if label not in names:
            offered = ", ".join(option.label for option in task.labels[:20])
            raise InvalidError(f"{field}: expected one of {offered}, got {label[:100]!r}")


def _check_boxes(boxes: tuple[Box, ...], task: Task) -> None:
    if len(boxes) > BOXES_MAX:
        raise InvalidError(f"answer.boxes: expected at most {BOXES_MAX} boxes, got {len(boxes)}")
    for number, box in enumerate(boxes):
        _check_labels(f"answer.boxes[{number}].label", [box.label], task)
        edges = (box.x, box.y, box.width, box.height)
        if not all(map(isfinite, edges)) or min(box.width, box.height) <= 0 or min(box.x, box.y) < 0:
            raise InvalidError(
                f"answer.boxes[{number}]: expected x, y >= 0 and width, height > 0, got {list(edges)}",
            )


def check_json(field: str, text: str) -> None:
    """Raise InvalidError, naming `field`, unless `text` is JSON that would come back from storage as it went in."""
    if len(text) > TEXT_CHARS_MAX:
        raise InvalidError(f"{field}: expected at most {TEXT_CHARS_MAX} characters, got {len(text)}")
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"{field}: expected a JSON text, got: {error}") from error


def canonical(answer: Answer) -> bytes:
    """Return what answers that mean the same share, and no others: what is compared wherever answers are, never stored.

    Labels have no order. Of JSON the values count, not how they are spelt: not spaces, the order of fields, escapes,
    nor 1.0 for 1. One that cannot be read so (numbers beyond a float, nested too deep) equals its own text alone.
    """
    match answer:
        case Labels(labels=labels):
            answer = Labels(labels=tuple(sorted(labels)))
        case Number(number=number):
            # No zero is less than another.
            answer = Number(number + 0.0)
        case Json(json=text):
            try:
                value = json.loads(text, parse_float=_value, parse_constant=_value)
                return b"json " + json.dumps(value, sort_keys=True).encode()
            except (ValueError, RecursionError):
                pass
    return msgspec.json.encode(answer, order="sorted")


def _value(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:40]} is beyond a float")
    return int(number) if number.is_integer() else number
