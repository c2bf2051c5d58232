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
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["still"]), helper.make_node("Identity", ["kept"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["rows", 4]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["rows", 4]),
        ],
    )
    held = [
        numpy_helper.from_array(np.array(rounds), "rounds"),
        numpy_helper.from_array(np.array([1], bool)[0:1].reshape(()), "yes"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        "looping",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        initializer=held,
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
