"""Which task can be answered, and which answer fits it. Pure."""

from __future__ import annotations

import math

import pytest

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
    Task,
    canonical,
    check_answer,
    check_task,
)
from fallback.errors import InvalidError

CAT, DOG = LabelOption(label="cat", key="c"), LabelOption(label="dog", key="d")


def _task(kind: AnswerKind) -> Task:
    return Task(question="?", kind=kind, labels=(CAT, DOG))


def _box(**changes: float) -> Boxes:
    edges = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0, **changes}
    return Boxes((Box(label="cat", **edges),))


FITS: list[tuple[AnswerKind, Answer]] = [
    (AnswerKind.LABEL, Label("cat")),
    (AnswerKind.LABELS, Labels(("cat", "dog"))),
    (AnswerKind.LABELS, Labels(())),
    (AnswerKind.BOXES, _box()),
    (AnswerKind.BOXES, Boxes(())),
    (AnswerKind.NUMBER, Number(-1.5)),
    (AnswerKind.JSON, Json('{"a": [1, null]}')),
]


@pytest.mark.parametrize(("kind", "answer"), FITS)
def test_an_answer_fits_a_task_of_its_kind_and_no_other(kind: AnswerKind, answer: Answer) -> None:
    """The error names both kinds."""
    for other in AnswerKind:
        if other is kind:
            check_answer(answer, _task(kind))
        else:
            with pytest.raises(InvalidError, match=f"expects an answer of kind {other.value}, got {kind.value}"):
                check_answer(answer, _task(other))


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_cant_tell_fits_any_task_that_offers_it(kind: AnswerKind) -> None:
    """And none that does not."""
    check_answer(CantTell(), _task(kind))
    with pytest.raises(InvalidError, match="does not offer"):
        check_answer(CantTell(), Task(question="?", kind=kind, labels=(CAT,), cant_tell=False))


@pytest.mark.parametrize(
    ("kind", "answer", "told"),
    [
        (AnswerKind.LABEL, Label("cow"), "answer.label: expected one of cat, dog, got 'cow'"),
        (AnswerKind.LABELS, Labels(("cat", "cat")), "answer.labels: expected each label once"),
        (AnswerKind.LABELS, Labels(("cow",)), "answer.labels: expected one of cat, dog, got 'cow'"),
        (AnswerKind.BOXES, _box(width=0.0), r"answer.boxes\[0\]: expected x, y >= 0 and width, height > 0"),
        (AnswerKind.BOXES, _box(x=-1.0), r"answer.boxes\[0\]: expected"),
        (AnswerKind.BOXES, _box(y=math.nan), r"answer.boxes\[0\]: expected"),
        (AnswerKind.BOXES, Boxes((Box(label="cow", x=0, y=0, width=1, height=1),)), r"answer.boxes\[0\].label"),
        (AnswerKind.BOXES, Boxes(_box().boxes * 1001), "answer.boxes: expected at most 1000 boxes, got 1001"),
        (AnswerKind.NUMBER, Number(math.nan), "answer.number: expected a finite number, got nan"),
        (AnswerKind.JSON, Json("{"), "answer.json: expected a JSON text"),
        (AnswerKind.JSON, Json(f'"{"x" * TEXT_CHARS_MAX}"'), "answer.json: expected at most 65536 characters"),
    ],
)
def test_a_wrong_answer_is_named(kind: AnswerKind, answer: Answer, told: str) -> None:
    """Field, expected, got."""
    with pytest.raises(InvalidError, match=told):
        check_answer(answer, _task(kind))


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Task(question=" "), "task.question: expected a question"),
        (Task(question="?" * (TEXT_CHARS_MAX + 1), labels=(CAT,)), "task.question: expected at most 65536"),
        (Task(question="?", guidelines="x" * (TEXT_CHARS_MAX + 1), labels=(CAT,)), "task.guidelines"),
        (Task(question="?"), "task.labels: a task of kind label needs at least one label"),
        (Task(question="?", kind=AnswerKind.BOXES), "task.labels: a task of kind boxes needs"),
        (Task(question="?", labels=(CAT, CAT)), "task.labels: expected each once, got 'cat'"),
        (
            Task(question="?", labels=(CAT, LabelOption(label="cow", key="c"))),
            "task.keys: expected each once, got 'c'",
        ),
        (Task(question="?", labels=(LabelOption(label="cat", key="?"),)), r"task.labels.key: expected one character"),
        (Task(question="?", labels=(LabelOption(label="cat", key="ca"),)), r"task.labels.key: expected one character"),
        (
            Task(question="?", labels=tuple(LabelOption(label=str(n)) for n in range(1001))),
            "task.labels: expected at most 1000 labels, got 1001",
        ),
    ],
)
def test_a_task_that_nobody_could_answer_is_refused(task: Task, told: str) -> None:
    """Field, expected, got."""
    with pytest.raises(InvalidError, match=told):
        check_task(task)


def test_tasks_that_can_be_answered() -> None:
    """Numbers and JSON need no labels, labels need no keys."""
    check_task(Task(question="How many?", kind=AnswerKind.NUMBER))
    check_task(Task(question="Describe it", kind=AnswerKind.JSON))
    check_task(Task(question="Which?", labels=(LabelOption(label="a"), LabelOption(label="b"))))


@pytest.mark.parametrize(
    "same",
    [
        [Json('{"a":1,"b":[2]}'), Json('{ "b": [2.0],\n"a": 1e0 }'), Json('{"\\u0061":1,"b":[2]}')],
        [Json("18446744073709551617"), Json(" 18446744073709551617")],
        [Json("1e400"), Json("1e400")],
        [Json("[" * 60_000), Json("[" * 60_000)],
        [Labels(("a", "b")), Labels(("b", "a"))],
        [Number(0.0), Number(-0.0)],
    ],
)
def test_answers_that_mean_the_same_are_equal(same: list[Answer]) -> None:
    """However they are spelt; what cannot be read is at least equal to itself."""
    assert len({canonical(answer) for answer in same}) == 1


def test_answers_that_mean_something_else_are_not_equal() -> None:
    """Nor does a JSON text mean what an answer of another kind does."""
    numbers = ("1", "18446744073709551616", "18446744073709551617", "1e400", "2e400")
    texts = map(Json, (*numbers, "true", '"1"', "[1]", "[1,1]", "null"))
    answers: list[Answer] = [*texts, Number(1.0), Label("1"), Labels(("1",)), CantTell()]
    assert len({canonical(answer) for answer in answers}) == len(answers)
