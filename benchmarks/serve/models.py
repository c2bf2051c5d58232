"""The models that are served: tiny, mid and conv, made on the spot with fixed weights, sure of nearly every input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from benchmarks.serve.sender import RUN_WIDTH
from fallback.answer import LabelOption, Task
from gateway import manifest
from gateway.batching import Batching
from gateway.manifest import Golden, Manifest, Output
from gateway.policy import Policy

Name = Literal["tiny", "mid", "conv"]
LABELS: Final = 10
# The output that tells of the run: a mark, and the sums over the batch of the first two numbers of each row.
RUN: Final = "run"
# Above this everything is answered: random inputs are, but for one in some thousands.
THRESHOLD: Final = 0.5
# Logits are made this large, so that a softmax is sure.
_SURE: Final = 40.0
_OPSET: Final = 17
_IR: Final = 8


class Shape(NamedTuple):
    """What a model takes: one row's shape, and rows of one run at most."""

    row: tuple[int, ...]
    rows_max: int


SHAPES: Final[dict[Name, Shape]] = {
    "tiny": Shape((64,), 64),
    "mid": Shape((256,), 64),
    "conv": Shape((3, 64, 64), 8),
}
_WIDTHS: Final[dict[Name, tuple[int, ...]]] = {"tiny": (64, 128, LABELS), "mid": (256, 1024, 1024, LABELS)}
_CHANNELS: Final = (3, 32, 64, 64)


def artefact(name: Name, *, seed: int = 0, mark: float | None = None) -> bytes:
    """Return the ONNX file: `x` (rows, ...) -> `p` (rows, 10), probabilities; another `seed` is another version.

    With a `mark` there is a second output, `run` (rows, 3): the mark, and what tells the batch that the row was run in.
    """
    draw = np.random.default_rng(seed)
    nodes, weights, last = _conv(draw) if name == "conv" else _dense(_WIDTHS[name], draw)
    nodes.append(helper.make_node("Mul", [last, "sure"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["p"], axis=1))
    outputs = [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", LABELS])]
    if mark is not None:
        marking, constants = _marking(name, mark)
        nodes += marking
        weights += constants
        outputs.append(helper.make_tensor_value_info(RUN, TensorProto.DOUBLE, ["rows", RUN_WIDTH]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *SHAPES[name].row])],
        outputs,
        initializer=[*weights, numpy_helper.from_array(np.array(_SURE, np.float32), "sure")],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    checker.check_model(whole)
    content: bytes = whole.SerializeToString()
    return content


def described(name: Name, *, audit_share: float, golden: Sequence[Golden] = ()) -> str:
    """Return the manifest that it is published with: a policy that answers, and audits a share of the answers."""
    labels = tuple(str(number) for number in range(LABELS))
    task = Task(question="Which one?", labels=tuple(LabelOption(label=label, key=label) for label in labels))
    facts = Manifest(
        labels=labels,
        task=task,
        on_deferral="provisional",
        output=Output(tensor="p"),
        policy=Policy(threshold=THRESHOLD, audit_share=audit_share),
        batching=Batching(max_batch_size=SHAPES[name].rows_max),
        golden=tuple(golden),
    )
    return manifest.render(msgspec.structs.replace(facts, model=name))


def _marking(name: Name, mark: float) -> tuple[list[object], list[object]]:
    """Return the nodes that tell, in each row, which version ran and in which batch, and their constants."""
    wide = int(np.prod(SHAPES[name].row))
    constants = {
        "flat_shape": np.array([-1, wide], np.int64),
        "from": np.array([0], np.int64),
        "to": np.array([RUN_WIDTH - 1], np.int64),
        "columns": np.array([1], np.int64),
        "batch_axis": np.array([0], np.int64),
        "nothing": np.array(0.0, np.float64),
        "mark": np.array([[mark]], np.float64),
        "ones": np.ones((RUN_WIDTH - 1, 1)),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat_shape"], ["flat_x"]),
        helper.make_node("Slice", ["flat_x", "from", "to", "columns"], ["two"]),
        helper.make_node("Cast", ["two"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["numbers", "batch_axis"], ["sums"], keepdims=1),
        helper.make_node("Mul", ["numbers", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "sums"], ["batch"]),
        helper.make_node("MatMul", ["zeros", "ones"], ["zero"]),
        helper.make_node("Add", ["zero", "mark"], ["marks"]),
        helper.make_node("Concat", ["marks", "batch"], [RUN], axis=1),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def rows(name: Name, count: int, *, seed: int = 1) -> NDArray[np.float32]:
    """Return made-up input of `count` rows."""
    shape = (count, *SHAPES[name].row)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _dense(widths: Sequence[int], draw: np.random.Generator) -> tuple[list[object], list[object], str]:
    nodes, weights, last = [], [], "x"
    for number, (wide, to) in enumerate(pairwise(widths)):
        values = draw.normal(size=(wide, to)) / np.sqrt(wide)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"h{number}"]))
        last = f"h{number}"
        if number + 2 < len(widths):
            nodes.append(helper.make_node("Relu", [last], [f"r{number}"]))
            last = f"r{number}"
    return nodes, weights, last


def _conv(draw: np.random.Generator) -> tuple[list[object], list[object], str]:
    nodes, weights, last = [], [], "x"
    for number, (wide, to) in enumerate(pairwise(_CHANNELS)):
        values = draw.normal(size=(to, wide, 3, 3)) / np.sqrt(9 * wide)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"c{number}"))
        nodes.append(helper.make_node("Conv", [last, f"c{number}"], [f"v{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"v{number}"], [f"a{number}"]))
        last = f"a{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    values = draw.normal(size=(_CHANNELS[-1], LABELS)) * 4
    weights.append(numpy_helper.from_array(values.astype(np.float32), "end"))
    nodes.append(helper.make_node("MatMul", ["flat", "end"], ["scores"]))
    return nodes, weights, "scores"
