"""What an ONNX file says of itself, and what is left to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallback.errors import InvalidError
from gateway import draft, manifest
from gateway.manifest import Manifest, TensorSpec
from tests.onnx_files import external, linear, save, two_headed


def test_the_signature_is_read_off_the_file(tmp_path: Path) -> None:
    """Inputs without initialisers, outputs, and which are probabilities for sure."""
    outlined = draft.outline(save(linear(), tmp_path / "m.onnx"))
    assert outlined.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    assert outlined.outputs == (TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),)
    assert outlined.probable == {"y"}
    assert outlined.classes() == 3
    assert draft.outline(save(linear(softmax=False), tmp_path / "s.onnx")).probable == frozenset()
    several = draft.outline(save(two_headed(), tmp_path / "t.onnx"))
    assert (several.answer(), several.classes()) == (None, 0)
    assert several.probable == {"classes"}


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """With its name and a reason."""
    with pytest.raises(InvalidError, match=r"x.onnx: this is not an ONNX file, or it is cut off"):
        draft.outline(save(b"no model", tmp_path / "x.onnx"))
    with pytest.raises(InvalidError, match=r"absent.onnx: No such file"):
        draft.outline(tmp_path / "absent.onnx")


def test_external_data_is_never_opened_here(tmp_path: Path) -> None:
    """The outline is the graph's alone; admission refuses the file."""
    assert draft.outline(save(external("/dev/zero"), tmp_path / "e.onnx")).classes() == 3


def test_what_nobody_else_can_know_is_asked_for(tmp_path: Path) -> None:
    """Labels, question, what a plain client gets; the activation only where the file leaves it open."""
    outlined = draft.outline(save(linear(softmax=False), tmp_path / "m.onnx"))

    def left(found: Manifest, *, reviewed: bool = True, activation: str | None = None) -> list[str]:
        return [item.option for item in draft.missing(found, outlined, reviewed=reviewed, activation=activation)]

    assert left(Manifest()) == ["--labels", "--activation", "--question", "--on-deferral"]
    assert left(Manifest(), reviewed=False) == ["--labels", "--activation"]
    filled = draft.fill(Manifest(model="m"), labels="abc", question="Which?", on_deferral="wait", threshold=0.5)
    assert left(filled, activation="none") == []
    assert filled.policy.threshold == 0.5
    manifest.check(filled)


def test_labels_are_read_from_lists_ranges_and_lines() -> None:
    """As people write them."""
    assert draft.parse_labels("0..3") == ("0", "1", "2", "3")
    assert draft.parse_labels(" cat, dog ,, bird") == ("cat", "dog", "bird")
    assert draft.parse_labels("a cat\na dog, wet\n") == ("a cat", "a dog, wet")
    assert draft.parse_labels("") == ()


def test_every_label_gets_a_key_while_there_are_any() -> None:
    """Its own character where it is one."""
    keys = [option.key for option in draft.options(["2", "cat", "dog", "?"])]
    assert keys == ["2", "1", "3", "4"]
    many = draft.options([f"label {number}" for number in range(50)])
    given = [option.key for option in many if option.key]
    assert len(given) == len(set(given)) == 36
