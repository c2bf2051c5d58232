"""A model that says what it is told: its output is its input, so that the scores of a file are a version's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from onnx import TensorProto, helper

from benchmarks.demo.stream.scores import Scores
from fallback.answer import LabelOption, Task
from gateway.manifest import Manifest, Output, TensorSpec, Training
from gateway.policy import Policy

INPUT: Final = "scores"
OUTPUT: Final = "said"
OPSET: Final = 17
IR_VERSION: Final = 8


def build(classes: int) -> Any:
    """Return an ONNX model `scores` (rows, classes) -> `said` (rows, classes), the same numbers."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [INPUT], [OUTPUT])],
        "stream",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", classes])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", classes])],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="demur")


def save(classes: int, path: Path) -> Path:
    """Write the model to `path` and return it."""
    path.write_bytes(build(classes).SerializeToString())
    return path


def manifest(name: str, scores: Scores) -> Manifest:
    """Return what the model declares; nothing is ever trained of it."""
    classes = scores.classes
    shape = (-1, len(classes))
    return Manifest(
        model=name,
        labels=classes,
        task=Task(
            question="Which class is this?", labels=tuple(LabelOption(label=label) for label in classes), cant_tell=True
        ),
        on_deferral="provisional",
        output=Output(tensor=OUTPUT, activation=scores.activation),
        inputs=(TensorSpec(name=INPUT, datatype="FP32", shape=shape),),
        outputs=(TensorSpec(name=OUTPUT, datatype="FP32", shape=shape),),
        policy=Policy(),
        training=Training(enabled=False),
    )
