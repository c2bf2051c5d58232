"""What is let in, and the sentence each thing is refused with; every trial is a real process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fallback.answer import LabelOption, Task
from gateway import admission
from gateway.admission import AdmissionError, Limits
from gateway.batching import Batching, Padding
from gateway.manifest import Golden, Manifest, Output, Preprocess, TensorSpec
from tests import onnx_files
from tests.onnx_files import (
    external,
    greedy,
    linear,
    lookup,
    looping,
    nan_maker,
    places,
    swelling,
    tokens_of,
    two_headed,
)

Save = Callable[[Any], Path]
ABC = ("a", "b", "c")
MIB = 1024 * 1024
LIMITS = Limits(seconds=30)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return lambda model: onnx_files.save(model, tmp_path / "any.onnx")


def _manifest(**changes: Any) -> Manifest:
    return msgspec.structs.replace(Manifest(model="m", labels=ABC), **changes)


def _refused(path: Path, manifest: Manifest | None = None, *, limits: Limits = LIMITS) -> str:
    with pytest.raises(AdmissionError) as caught:
        admission.admit(path, manifest or _manifest(), limits=limits)
    return caught.value.message


def test_the_manifest_is_completed_with_what_the_file_knows(save: Save) -> None:
    """Names, datatypes, shapes, the rows' axis and the answer's output are read off the model."""
    admitted = admission.admit(save(linear()), _manifest(), limits=LIMITS)
    assert admitted.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    assert admitted.outputs == (TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),)
    assert admitted.batched
    assert admitted.output.tensor == "y"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"this is no model", "this is not an ONNX file, or it is cut off"),
        (b"\x00" * 100, "this is not an ONNX file, or it is cut off"),
        (linear().SerializeToString()[:-40], "cut off"),
        (linear().SerializeToString()[:20], "cut off"),
    ],
)
def test_a_broken_or_truncated_file_is_refused(save: Save, content: bytes, sentence: str) -> None:
    """The sentence says so, and shows none of the parser's own words."""
    assert sentence in _refused(save(content))


def test_external_data_is_refused_by_name(save: Save) -> None:
    """An absolute path, one that climbs out, and a plain second file: each is named with what is wrong about it."""
    absolute = _refused(save(external("/etc/passwd")))
    assert "tensor 'weights' keeps its data outside the model, at '/etc/passwd' (an absolute path)" in absolute
    assert "C:\\\\secrets' (an absolute path)" in _refused(save(external("C:\\secrets")))
    assert "'../w.bin' (outside its folder)" in _refused(save(external("../w.bin")))
    assert "'w.bin' (a second file)" in _refused(save(external("w.bin")))


def test_a_custom_operator_is_refused_by_name(save: Save) -> None:
    """No library of the publisher's is ever loaded."""
    assert "operator 'Softmax' of the domain 'my.ops'" in _refused(save(linear(domain="my.ops")))


def test_labels_must_fit_the_output(save: Save) -> None:
    """One label a value."""
    message = _refused(save(linear()), _manifest(labels=("a", "b")))
    assert message == "labels: output 'y' has 3 values a row, one a label; got 2 labels"


def test_a_row_has_one_value_a_label_over_all_its_axes(save: Save) -> None:
    """Three scores for each of many tokens are not three labels."""
    assert "labels: output 'y' has 24 values a row, one a label; got 3 labels" in _refused(save(tokens_of(8)))


def test_what_has_one_size_only_cannot_be_padded(save: Save) -> None:
    """Nothing would be filled up."""
    message = _refused(save(linear()), _manifest(batching=Batching(padding=Padding(axis=1, sizes=(8,)))))
    assert message == "batching.padding: expected an input whose axis 1 may have any size, got none"


def test_text_has_no_preprocessing(save: Save) -> None:
    """Numbers cannot become the text that the model takes."""
    message = _refused(save(lookup()), _manifest(preprocess=Preprocess(kind="json")))
    assert message == "preprocess: makes numbers of a json; input 'x' expects BYTES"


def test_the_largest_batch_is_tried_under_the_limits(save: Save) -> None:
    """Or the gateway that warms up with it would be what runs out of memory."""
    path, limits = save(swelling(floats_a_row=2**24 // 2)), Limits(seconds=30, memory_bytes_max=2048 * MIB)
    admission.admit(path, _manifest(batching=Batching(max_batch_size=2)), limits=limits)
    message = _refused(path, _manifest(batching=Batching(max_batch_size=100)), limits=limits)
    assert "memory" in message.lower() or "alloc" in message.lower(), message


def test_scores_are_not_taken_for_probabilities(save: Save) -> None:
    """A model of scores published as probabilities would be sure of everything."""
    path = save(linear(softmax=False, seed=3))
    assert 'expected activation = "softmax"' in _refused(path)
    assert admission.admit(path, _manifest(output=Output(activation="softmax")), limits=LIMITS).output.tensor == "y"


def test_a_model_that_answers_nan_is_refused(save: Save) -> None:
    """Broken weights show at the door."""
    assert "output 'y' holds NaN or infinity" in _refused(save(nan_maker()))


def test_a_run_that_hangs_is_ended_by_the_clock(save: Save) -> None:
    """The gateway's own process never runs what has not been tried."""
    assert "took more than 1.5 s" in _refused(save(looping(rounds=2**60)), limits=Limits(seconds=1.5))


def test_a_run_that_eats_memory_is_refused(save: Save) -> None:
    """A limit on the address space ends it, not the machine's memory."""
    limits = Limits(seconds=30, memory_bytes_max=2048 * MIB)
    message = _refused(save(greedy(elements=2**40)), limits=limits)
    assert "memory" in message.lower() or "alloc" in message.lower() or "overflow" in message.lower(), message


def test_a_run_that_eats_the_processor_is_ended_by_its_own_limit(save: Save) -> None:
    """The kernel counts the process's seconds even where nobody watches the clock; the signal is a refusal."""
    plan = admission.plan(save(looping(rounds=2**60)), _manifest(), Limits(seconds=0.5))
    done = subprocess.run(admission.TRIAL, input=msgspec.json.encode(plan), capture_output=True, check=False)
    with pytest.raises(AdmissionError, match="took more than its limits and was ended"):
        admission.verdict(done.returncode, done.stdout)


def test_a_trial_that_crashes_or_says_nothing_is_a_refusal() -> None:
    """The sentence names the signal."""
    with pytest.raises(AdmissionError, match=r"the process that tried it crashed \(SIGSEGV\)"):
        admission.verdict(-11, b"")
    with pytest.raises(AdmissionError, match="ended without a verdict"):
        admission.verdict(0, b"{")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"output": Output(tensor="z")}, "output.tensor: expected one of y, got 'z'"),
        ({"preprocess": Preprocess(kind="image", width=2, height=2)}, "input 'x' expects [4] a row"),
        ({"preprocess": Preprocess(kind="image", width=3, height=2, layout="flat")}, "makes [6] of a 3 x 2 L image"),
        ({"preprocess": Preprocess(kind="image", input="z", width=2, height=2)}, "preprocess.input: expected one of x"),
        ({"preprocess": Preprocess(kind="json", fields=("p", "q"))}, "preprocess.fields: input 'x' expects [4] a row"),
        ({"task": Task(question="?", labels=(LabelOption(label="a"),))}, "on_deferral: expected provisional"),
        ({"model": "../up"}, "model: expected 1 to 63 of"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_field(save: Save, changes: dict[str, Any], sentence: str) -> None:
    """Field, expected and got."""
    assert sentence in _refused(save(linear()), _manifest(**changes))


def test_an_image_may_be_flat(save: Save) -> None:
    """Four pixels fit four inputs."""
    preprocess = Preprocess(kind="image", width=2, height=2, layout="flat")
    admitted = admission.admit(save(linear()), _manifest(preprocess=preprocess), limits=LIMITS)
    assert admitted.preprocess is not None
    assert admitted.preprocess.input == "x"


def test_of_several_outputs_the_one_that_fits_the_labels_is_the_answer(save: Save) -> None:
    """Where that does not decide, the publisher must."""
    path = save(two_headed())
    assert admission.admit(path, _manifest(), limits=LIMITS).output.tensor == "classes"
    wide = msgspec.structs.replace(_manifest(), labels=tuple("abcde"))
    assert "the model has classes, features" in _refused(path, wide)


def test_a_model_without_labels_may_have_any_outputs(save: Save) -> None:
    """Nothing is read from them: none has to be named, and none has to be of floats."""
    assert admission.admit(save(two_headed()), Manifest(model="m"), limits=LIMITS).output.tensor == ""
    admitted = admission.admit(save(places()), Manifest(model="m"), limits=LIMITS)
    assert (admitted.output.tensor, [spec.datatype for spec in admitted.outputs]) == ("", ["INT64"])
    assert "the model has no output of floats" in _refused(save(places()))


def test_golden_samples_are_run(save: Save) -> None:
    """A model that gets one wrong is not let in."""
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    right = ABC[int(np.argmax(weights[0]))]
    wrong = next(label for label in ABC if label != right)
    row = {"x": [1.0, 0.0, 0.0, 0.0]}
    path = save(linear())
    admission.admit(path, _manifest(golden=(Golden(inputs=row, label=right),)), limits=LIMITS)
    message = _refused(path, _manifest(golden=(Golden(inputs=row, label=wrong),)))
    assert message == f"golden[0]: expected the label {wrong!r}, the model says {right!r}"
    missing = _refused(path, _manifest(golden=(Golden(inputs={"q": [1.0]}, label="a"),)))
    assert "golden: expected a value for input 'x', got q" in missing


def test_sizes_are_bounded(save: Save, tmp_path: Path) -> None:
    """Too large, empty and absent files are refused before anything reads them."""
    with pytest.raises(AdmissionError, match="expected 1 to 10 bytes, got"):
        admission.check_size(save(linear()), Limits(artefact_bytes_max=10))
    with pytest.raises(AdmissionError, match="got 0"):
        admission.check_size(save(b""), LIMITS)
    with pytest.raises(AdmissionError, match="cannot be read"):
        admission.check_size(tmp_path / "absent.onnx", LIMITS)
