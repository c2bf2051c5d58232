"""A manifest is strict, survives being written, and says which field is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fallback.answer import AnswerKind, LabelOption, Task
from fallback.errors import InvalidError
from gateway import manifest as manifests
from gateway.correctness import Correctness
from gateway.manifest import Golden, Manifest, Output, Preprocess, TensorSpec, Training
from gateway.policy import Policy
from gateway.segments import Segment

_NORTH = Segment(name="north", attributes={"region": "north"})
TASK = Task(question="Which?", labels=(LabelOption(label="a", key="1"), LabelOption(label="b")))
FULL = Manifest(
    model="m",
    version="3",
    create_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    labels=("a", "b"),
    task=TASK,
    queue="q",
    on_deferral="wait",
    output=Output(tensor="y", activation="softmax"),
    preprocess=Preprocess(kind="image", input="x", width=8, height=8, mode="RGB", mean=(0.5,), std=(0.1, 0.2, 0.3)),
    policy=Policy(
        threshold=0.8,
        class_thresholds={"a": 0.95},
        always_person=("b",),
        alpha=0.01,
        delta=0.1,
        scorer="energy",
        reviews_per_hour_max=12.5,
        expire_days=7.0,
        lifetime=True,
    ),
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 8, 8)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    training=Training(enabled=False),
    provenance={"git commit": "ü"},
    golden=(Golden(inputs={"x": [[1.0]]}, label="a"),),
    files={"model.onnx": "0" * 64},
)


def test_what_is_written_is_read_back_equal() -> None:
    """Every field, and the smallest manifest."""
    assert manifests.parse(manifests.render(FULL)) == FULL
    assert manifests.parse(manifests.render(Manifest())) == Manifest()
    manifests.check(FULL)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lables = ['a']", "did you mean `labels`?"),
        ("[preproces]\nkind = 'image'", "did you mean `preprocess`?"),
        ("[policy]\ntreshold = 0.5", "did you mean `threshold`?"),
        ("on_deferral = 'maybe'", "'maybe'"),
        ("batch_rows_max = 0", "batch_rows_max"),
        ("[policy]\nthreshold = 2.0", "threshold"),
        ("[policy]\nalpha = 0.6", "alpha"),
        ("[policy]\nscorer = 'luck'", "'luck'"),
        ("[policy]\nexpire_days = 0", "expire_days"),
        ("= 1", "manifest.toml: expected TOML"),
        ("labels = 3", "labels"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, sentence: str) -> None:
    """With the nearest right key for a misspelt one."""
    with pytest.raises(InvalidError) as caught:
        manifests.parse(text)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ("a", "a", "b")}, "labels: expected each once, got 'a'"),
        ({"labels": ("a", "")}, "labels[1]: expected 1 to 256 characters, got 0"),
        ({"on_deferral": None}, "on_deferral: expected provisional, wait or refuse"),
        ({"labels": (), "policy": Policy()}, "labels: expected the model's labels in the order of its output"),
        ({"task": None}, "task: expected what a person is asked"),
        ({"labels": ("a", "b", "c")}, "task.labels: expected all of the model's labels, got none that is 'c'"),
        ({"queue": "a/b"}, "queue: expected 1 to 63"),
        ({"preprocess": Preprocess(kind="image")}, "needs width and height in pixels, got 0 x 0"),
        ({"preprocess": Preprocess(kind="json", std=(0.0,))}, "no std of 0"),
        ({"preprocess": Preprocess(kind="image", width=1, height=1, mean=(1, 2))}, "preprocess.mean: expected 1 or 1"),
        ({"policy": Policy(always_person=("z",))}, "policy: expected labels of the model (a, b), got 'z'"),
        ({"policy": Policy(segments=(_NORTH,))}, "policy.segments: expected an alpha beside them"),
        ({"policy": Policy(alpha=0.1, segments=(_NORTH,) * 2)}, "expected each name once, got 'north' more than once"),
        (
            {"policy": Policy(alpha=0.1, segments=(Segment(name="a b", attributes={"k": "v"}),))},
            "policy.segments[0].name: expected 1 to 63 of",
        ),
        (
            {"policy": Policy(alpha=0.1, segments=(Segment(name="north", attributes={}),))},
            "policy.segments[0].attributes: expected 1 to 8, got 0",
        ),
        (
            {"task": None, "on_deferral": None, "policy": Policy(alpha=0.01)},
            "policy.alpha: expected a model with labels and a task",
        ),
        ({"policy": Policy(alpha=0.01, audit_share=0)}, "policy.audit_share: expected above 0 where alpha is set"),
        ({"output": Output(tensor="y")}, "policy.scorer: expected margin, max_softmax or learned for a model that"),
        ({"policy": Policy(alpha=0.01, scorer="learned")}, "energy for a version whose manifest has no [correctness]"),
        (
            {"correctness": Correctness(weights=(1.0, 1.0, 1.0, 1.0), by_label=(1.0,))},
            "correctness.by_label: expected none or 2, one a label, got 1",
        ),
        ({"task": Task(question=" ")}, "task.question"),
        ({"golden": FULL.golden * 65}, "golden: expected at most 64, got 65"),
    ],
)
def test_a_manifest_that_could_not_be_served_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """Field, expected and got."""
    with pytest.raises(InvalidError) as caught:
        manifests.check(msgspec.structs.replace(FULL, **changes))
    assert sentence in caught.value.message


def test_a_task_of_another_kind_need_not_know_the_labels() -> None:
    """Numbers and boxes are not among a model's labels."""
    task = Task(question="How many?", kind=AnswerKind.NUMBER)
    manifests.check(msgspec.structs.replace(FULL, task=task))


def test_deferrals_wait_in_the_models_own_queue_unless_another_is_named() -> None:
    """The queue defaults to the model's name."""
    assert FULL.review_queue == "q"
    assert msgspec.structs.replace(FULL, queue="").review_queue == "m"


def test_a_manifest_is_bounded() -> None:
    """A megabyte is plenty."""
    with pytest.raises(InvalidError, match="expected at most 1048576 bytes"):
        manifests.parse("#" * (1024 * 1024 + 1))
