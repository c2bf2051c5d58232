"""Small ONNX files, good and bad, made as a publisher's tools would make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def linear(*, width: int = 4, labels: int = 3, softmax: bool = True, seed: int = 0, domain: str = "") -> Any:
    """A linear classifier `x` (rows, width) -> `y` (rows, labels)."""
    weights = np.random.default_rng(seed).normal(size=(width, labels)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["logits"], name="last")]
    last = "Softmax" if softmax else "Identity"
    nodes.append(helper.make_node(last, ["logits"], ["y"], name="end", domain=domain))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", labels])],
        initializer=[numpy_helper.from_array(weights, "weights")],
    )
    return model_of(graph, *([helper.make_opsetid(domain, 1)] if domain else []))


def looping(*, rounds: int) -> Any:
    """A model whose run takes `rounds` rounds of a loop to return its input."""
    loop, yes = _loop("y", width=4)
    held = numpy_helper.from_array(np.array(rounds), "rounds")
    return _looping("looping", [loop], "y", 4, [held, yes])


def counting_up() -> Any:
    """A model that gives three numbers back after as many rounds of a loop as the largest of them says."""
    loop, yes = _loop("p", width=3)
    most = helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0)
    rounds = helper.make_node("Cast", ["most"], ["rounds"], to=TensorProto.INT64)
    return _looping("counting_up", [most, rounds, loop], "p", 3, [yes])


def _loop(output: str, *, width: int) -> tuple[Any, Any]:
    """A loop of `rounds` rounds that returns `x`, and the value `yes` that it needs."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["still"]), helper.make_node("Identity", ["kept"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["rows", width]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["rows", width]),
        ],
    )
    yes = numpy_helper.from_array(np.array([1], bool).reshape(()), "yes")
    return helper.make_node("Loop", ["rounds", "yes", "x"], [output], body=body), yes


def _looping(name: str, nodes: list[Any], output: str, width: int, held: list[Any]) -> Any:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", width])]
    return model_of(helper.make_graph(nodes, name, inputs, outputs, initializer=held))


def timed(*, width: int = 128, weight: int = 1) -> Any:
    """A model whose run takes as long as it is told: `x` (rows, 4) -> `p` (rows, 3), its first three; `n` (rows, 1).

    The run makes as many rounds as the largest fourth number; each computes `width`^2 sines. `n` is how many rows the
    batch had. `weight` numbers stand in the file and are used for nothing.
    """
    round_ = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Sin", ["kept"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, [width, width]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [width, width]),
        ],
    )
    nodes = [
        helper.make_node("Split", ["x", "parts"], ["p_", "time"], axis=1),
        helper.make_node("ReduceMax", ["time"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["rounds"], to=TensorProto.INT64),
        helper.make_node("Loop", ["rounds", "yes", "large"], ["sines"], body=round_),
        helper.make_node("ReduceMax", ["sines"], ["sine"], keepdims=0),
        helper.make_node("ReduceMax", ["weights"], ["weight"], keepdims=0),
        helper.make_node("Mul", ["sine", "weight"], ["one"]),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["p_", "nothing"], ["p"]),
        helper.make_node("Shape", ["x"], ["count"], end=1),
        helper.make_node("Cast", ["count"], ["rows_"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["time", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "rows_"], ["n"]),
    ]
    graph = helper.make_graph(
        nodes,
        "timed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("n", TensorProto.FLOAT, ["rows", 1]),
        ],
        initializer=[
            numpy_helper.from_array(np.array([3, 1]), "parts"),
            numpy_helper.from_array(np.ones((), bool), "yes"),
            numpy_helper.from_array(np.ones((width, width), np.float32), "large"),
            numpy_helper.from_array(np.ones(weight, np.float32), "weights"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    return model_of(graph)


def greedy(*, elements: int) -> Any:
    """A model whose run makes a tensor of `elements` floats."""
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["size"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        initializer=[numpy_helper.from_array(np.array([elements]), "size")],
    )
    return model_of(graph)


def swelling(*, floats_a_row: int) -> Any:
    """A model whose run makes a tensor of `floats_a_row` floats for each row."""
    graph = helper.make_graph(
        [
            helper.make_node("Tile", ["x", "repeats"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["most"], axes=[1], keepdims=1),
            helper.make_node("Add", ["x", "most"], ["sum"]),
            helper.make_node("Softmax", ["sum"], ["y"]),
        ],
        "swelling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        initializer=[numpy_helper.from_array(np.array([1, floats_a_row // 3]), "repeats")],
    )
    return model_of(graph)


def tokens_of(number: int | None = None) -> Any:
    """A model that gives three scores for each of `number` tokens, None for any: `x` (rows, tokens, 3) -> `y`."""
    shape = ["rows", "tokens" if number is None else number, 3]
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"])],
        "tokens",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return model_of(graph)


def counting() -> Any:
    """A model whose output `n` has a row for each number other than 0 in `x` (rows, 3), which comes back as `p`."""
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["p"]),
            helper.make_node("NonZero", ["x"], ["places"]),
            helper.make_node("Transpose", ["places"], ["n"]),
        ],
        "counting",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("n", TensorProto.INT64, ["found", 2]),
        ],
    )
    return model_of(graph)


def lookup() -> Any:
    """A model of text: `x` (rows, 1) BYTES -> `y` (rows, 3), whatever the text."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "LabelEncoder",
                ["x"],
                ["number"],
                domain="ai.onnx.ml",
                keys_strings=["a"],
                values_floats=[1.0],
                default_float=0.0,
            ),
            helper.make_node("MatMul", ["number", "row"], ["y"]),
        ],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["rows", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        initializer=[numpy_helper.from_array(np.full((1, 3), 0.3, np.float32), "row")],
    )
    return model_of(graph, helper.make_opsetid("ai.onnx.ml", 3))


def external(location: str) -> Any:
    """A linear classifier whose weights stand in another file."""
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def model_of(graph: Any, *opsets: Any) -> Any:
    """A model with one graph, for ONNX's own operators and `opsets`."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), *opsets], ir_version=8)


def nan_maker() -> Any:
    """A model whose output is never a number."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "nothing"], ["y"])],
        "nan",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        initializer=[numpy_helper.from_array(np.array(np.nan, np.float32), "nothing")],
    )
    return model_of(graph)


def places() -> Any:
    """A model that gives nothing but the place of the highest of four numbers."""
    node = helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])]
    outputs = [helper.make_tensor_value_info("place", TensorProto.INT64, ["rows"])]
    return model_of(helper.make_graph([node], "places", inputs, outputs))


def two_headed() -> Any:
    """A model with an output of three classes and one of its four features."""
    model = linear()
    model.graph.node[-1].output[0] = "classes"
    model.graph.node.append(helper.make_node("Identity", ["x"], ["features"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["rows", 3]))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 4]))
    return model


def save(model: Any, path: Path) -> Path:
    """Write a model, or bytes that are none, to `path` and return it."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path
