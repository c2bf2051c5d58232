from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.model import Model
from trainer import surgery
from trainer.errors import NotTrainableError

FEATURES, LABELS = 5, 3
Floats = NDArray[np.float64]
_RNG = np.random.default_rng(7)
WEIGHTS = _RNG.normal(size=(FEATURES, LABELS)).astype(np.float32)
BIAS = _RNG.normal(size=LABELS).astype(np.float32)
X = _RNG.normal(size=(4, 6)).astype(np.float32)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, name=f"{kind.lower()}_{outputs[0]}", **attributes)


def graph(
    nodes: list[Any],
    held: dict[str, NDArray[Any]],
    *,
    output: str = "y",
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> Any:
    """A model x (rows, 6) -> relu(x @ first) -> `nodes` from "f" to `output`."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    first = np.random.default_rng(1).normal(size=(6, FEATURES))
    inside = helper.make_graph(
        [node("MatMul", ["x", "first"], ["h"]), node("Relu", ["h"], ["f"]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", dtype, ["rows", 6])],
        [helper.make_tensor_value_info(output, dtype, ["rows", None])],
        initializer=[
            numpy_helper.from_array(value.astype(kind), name) for name, value in {"first": first, **held}.items()
        ],
    )
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: Any, folder: Path, feed: NDArray[Any] = X) -> dict[str, NDArray[Any]]:
    path = folder / "m.onnx"
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    loaded = Model.load(path, device="cpu", threads=1)
    return loaded.run({"x": feed})


def gemm(**attributes: Any) -> Any:
    held = {"w": WEIGHTS.T if attributes.get("transB") else WEIGHTS, "b": BIAS}
    return graph([node("Gemm", ["f", "w", "b"], ["z"], **attributes), node("Softmax", ["z"], ["y"], axis=-1)], held)


def straight() -> Any:
    inside = helper.make_graph(
        [node("Gemm", ["x", "w", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", LABELS])],
        initializer=[
            numpy_helper.from_array(np.ones((6, LABELS), np.float32), "w"),
            numpy_helper.from_array(BIAS, "b"),
        ],
    )
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FORMS: dict[str, Callable[[], Any]] = {
    "gemm": gemm,
    "gemm transposed": lambda: gemm(transB=1),
    "gemm with alpha and beta": lambda: gemm(alpha=0.5, beta=2.0),
    "gemm transposed with alpha 0.25": lambda: gemm(alpha=0.25, transB=1),
    "gemm without bias": lambda: graph([node("Gemm", ["f", "w"], ["y"])], {"w": WEIGHTS}),
    "gemm with an empty bias": lambda: graph([node("Gemm", ["f", "w", ""], ["y"])], {"w": WEIGHTS}),
    "gemm with a scalar bias": lambda: graph([node("Gemm", ["f", "w", "b"], ["y"])], {"w": WEIGHTS, "b": BIAS[:1]}),
    "gemm with a row of bias": lambda: graph([node("Gemm", ["f", "w", "b"], ["y"])], {"w": WEIGHTS, "b": BIAS[None]}),
    "matmul and add": lambda: graph(
        [node("MatMul", ["f", "w"], ["p"]), node("Add", ["p", "b"], ["y"])], {"w": WEIGHTS, "b": BIAS}
    ),
    "matmul and add, bias first": lambda: graph(
        [node("MatMul", ["f", "w"], ["p"]), node("Add", ["b", "p"], ["y"])], {"w": WEIGHTS, "b": BIAS}
    ),
    "matmul alone": lambda: graph([node("MatMul", ["f", "w"], ["y"])], {"w": WEIGHTS}),
    "identities around softmax": lambda: graph(
        [
            node("Gemm", ["f", "w", "b"], ["z"]),
            node("Identity", ["z"], ["i"]),
            node("Softmax", ["i"], ["s"]),
            node("Identity", ["s"], ["y"]),
        ],
        {"w": WEIGHTS, "b": BIAS},
    ),
    "softmax of opset 11": lambda: graph(
        [node("Gemm", ["f", "w", "b"], ["z"]), node("Softmax", ["z"], ["y"])], {"w": WEIGHTS, "b": BIAS}, opset=11
    ),
    "features straight from the input": straight,
}


def forward(model: Any, layer: surgery.LinearLayer, folder: Path, weights: Floats, bias: Floats) -> Floats:
    features = run(surgery.cut(model, layer), folder)[surgery.FEATURES].astype(np.float64)
    logits = features @ weights + bias
    if not layer.softmax:
        return np.asarray(logits)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_found_computes_what_the_model_does(form: str, tmp_path: Path) -> None:
    """Features times the weights found, plus the bias found, is the model's own output."""
    model = FORMS[form]()
    layer = surgery.find(model, "y")
    expected = forward(model, layer, tmp_path, layer.weights, layer.bias)
    np.testing.assert_allclose(run(model, tmp_path)["y"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_new_weights_are_what_the_new_model_computes(form: str, tmp_path: Path) -> None:
    """Whatever the form in the file, the replaced layer computes features @ weights + bias, and is found again."""
    model = FORMS[form]()
    layer = surgery.find(model, "y")
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=layer.weights.shape), rng.normal(size=layer.bias.shape)
    changed = surgery.replace(model, layer, weights, bias)
    expected = forward(model, layer, tmp_path, weights, bias)
    np.testing.assert_allclose(run(changed, tmp_path)["y"], expected, rtol=1e-4, atol=1e-5)
    again = surgery.find(changed, "y")
    np.testing.assert_allclose(again.weights, weights, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(again.bias, bias, rtol=1e-6, atol=1e-6)
    names = {tensor.name for tensor in changed.graph.initializer}
    assert "w" not in names, "the old weights are gone from the file"


def test_the_original_is_left_as_it_was() -> None:
    """Surgery works on copies."""
    model = gemm()
    before = model.SerializeToString(deterministic=True)
    layer = surgery.find(model, "y")
    surgery.replace(model, layer, layer.weights * 2, layer.bias)
    surgery.cut(model, layer)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_shared_with_another_node_stay_for_that_node(tmp_path: Path) -> None:
    """Only the last layer gets new weights, even where another output uses the same initialiser."""
    model = graph(
        [node("Gemm", ["f", "w", "b"], ["y"]), node("MatMul", ["f", "w"], ["other"])], {"w": WEIGHTS, "b": BIAS}
    )
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["rows", LABELS]))
    layer = surgery.find(model, "y")
    before = run(model, tmp_path)
    after = run(surgery.replace(model, layer, layer.weights + 1, layer.bias), tmp_path)
    np.testing.assert_array_equal(before["other"], after["other"])
    assert not np.allclose(before["y"], after["y"])


def test_a_double_or_half_model_keeps_its_element_type(tmp_path: Path) -> None:
    """New weights are stored in the type of the old ones."""
    for dtype in (TensorProto.DOUBLE, TensorProto.FLOAT16):
        model = graph([node("Gemm", ["f", "w", "b"], ["y"])], {"w": WEIGHTS, "b": BIAS}, dtype=dtype)
        layer = surgery.find(model, "y")
        changed = surgery.replace(model, layer, layer.weights + 1, layer.bias)
        feed = X.astype(helper.tensor_dtype_to_np_dtype(dtype))
        assert run(changed, tmp_path, feed)["y"].dtype == feed.dtype


def test_an_initialiser_that_is_also_an_input_goes_from_both(tmp_path: Path) -> None:
    """Files before IR version 4 list weights among the inputs; the signature must not grow a stale one."""
    model = gemm()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, WEIGHTS.shape))
    layer = surgery.find(model, "y")
    changed = surgery.replace(model, layer, layer.weights, layer.bias)
    assert [value.name for value in changed.graph.input] == ["x"]
    run(changed, tmp_path)


def test_the_cut_leaves_out_what_features_do_not_need() -> None:
    """Inputs, nodes and weights behind the layer do not stand in the cut model."""
    model = gemm()
    model.graph.input.append(helper.make_tensor_value_info("late", TensorProto.FLOAT, ["rows", 1]))
    cut = surgery.cut(model, surgery.find(model, "y"))
    assert [value.name for value in cut.graph.input] == ["x"]
    assert {tensor.name for tensor in cut.graph.initializer} == {"first"}
    assert [entry.op_type for entry in cut.graph.node] == ["MatMul", "Relu", "Identity"]


def test_the_cut_keeps_what_a_graph_inside_a_node_takes_from_outside(tmp_path: Path) -> None:
    """A branch of If reads outer tensors by name only; they come along."""
    branch = [
        helper.make_graph(
            [node("Mul", ["f", scale], [name])], name, [], [helper.make_tensor_value_info(name, 1, [None, FEATURES])]
        )
        for scale, name in (("one", "t"), ("two", "e"))
    ]
    nodes = [
        node("If", ["yes"], ["g"], then_branch=branch[0], else_branch=branch[1]),
        node("Gemm", ["g", "w", "b"], ["y"]),
    ]
    held: dict[str, NDArray[Any]] = {"w": WEIGHTS, "b": BIAS, "one": np.ones(1), "two": np.full(1, 2.0)}
    model = graph(nodes, held)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((), np.bool_), "yes"))
    layer = surgery.find(model, "y")
    expected = forward(model, layer, tmp_path, layer.weights, layer.bias)
    np.testing.assert_allclose(run(model, tmp_path)["y"], expected, rtol=1e-5, atol=1e-5)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another operator": (
        lambda: graph([node("Gemm", ["f", "w", "b"], ["z"]), node("Sigmoid", ["z"], ["y"])], {"w": WEIGHTS, "b": BIAS}),
        "Sigmoid 'sigmoid_y' makes 'y'",
    ),
    "two softmaxes": (
        lambda: graph(
            [node("Gemm", ["f", "w"], ["z"]), node("Softmax", ["z"], ["s"]), node("Softmax", ["s"], ["y"])],
            {"w": WEIGHTS},
        ),
        "second Softmax",
    ),
    "softmax along rows": (
        lambda: graph([node("Gemm", ["f", "w"], ["z"]), node("Softmax", ["z"], ["y"], axis=0)], {"w": WEIGHTS}),
        "axis 0",
    ),
    "transposed features": (
        lambda: graph([node("Transpose", ["f"], ["t"]), node("Gemm", ["t", "w"], ["y"], transA=1)], {"w": WEIGHTS}),
        "transA",
    ),
    "computed weights": (
        lambda: graph([node("Neg", ["v"], ["w"]), node("Gemm", ["f", "w"], ["y"])], {"v": WEIGHTS}),
        "come from Neg 'neg_w'",
    ),
    "weights on the left": (
        lambda: graph([node("Transpose", ["f"], ["t"]), node("MatMul", ["w", "t"], ["y"])], {"w": WEIGHTS.T}),
        "come from Transpose",
    ),
    "a residual sum": (
        lambda: graph([node("MatMul", ["f", "w"], ["p"]), node("Add", ["p", "h"], ["y"])], {"w": np.eye(FEATURES)}),
        "does not add an initialiser to a MatMul",
    ),
    "a product that others read": (
        lambda: graph(
            [node("MatMul", ["f", "w"], ["p"]), node("Add", ["p", "b"], ["y"]), node("Neg", ["p"], ["n"])],
            {"w": WEIGHTS, "b": BIAS},
        ),
        "read by 2 nodes",
    ),
    "a bias of the wrong shape": (
        lambda: graph([node("Gemm", ["f", "w", "b"], ["y"])], {"w": WEIGHTS, "b": np.zeros((4, LABELS))}),
        "shape [4, 3], expected [3]",
    ),
    "stacked weights": (
        lambda: graph([node("MatMul", ["f", "w"], ["y"])], {"w": np.ones((1, FEATURES, LABELS))}),
        "expected 2 axes",
    ),
    "no layer at all": (lambda: graph([], {}, output="x"), "comes straight from"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_anything_else_is_refused_with_the_reason(why: str) -> None:
    """Each refusal says what was expected and names the node in the way."""
    make, sentence = REFUSED[why]
    model = make()
    with pytest.raises(NotTrainableError, match="cannot be refitted: expected") as refused:
        surgery.find(model, model.graph.output[0].name)
    assert sentence in str(refused.value)


def test_weights_of_whole_numbers_are_refused() -> None:
    """A quantised layer cannot be refitted."""
    model = graph([node("Gemm", ["f", "w"], ["y"])], {"w": WEIGHTS})
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((FEATURES, LABELS), np.int8), "w"))
    with pytest.raises(NotTrainableError, match="INT8, expected FLOAT"):
        surgery.find(model, "y")


def test_an_unknown_output_is_named() -> None:
    """The sentence lists the outputs there are."""
    with pytest.raises(NotTrainableError, match=r"expected one of the model's \(y\), got 'z'"):
        surgery.find(gemm(), "z")


def test_weights_of_another_shape_are_a_programmers_error() -> None:
    """`replace` takes exactly the layer's shapes."""
    layer = surgery.find(gemm(), "y")
    with pytest.raises(ValueError, match="expected"):
        surgery.replace(gemm(), layer, layer.weights[:-1], layer.bias)


def test_a_file_older_than_unlisted_initialisers_keeps_its_version_and_stays_valid() -> None:
    """IR 3 wants each initialiser among the inputs: the new ones stand there, the old ones go."""
    model = gemm()
    model.ir_version = 3
    model.opset_import[0].version = 8
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.checker.check_model(model)
    layer = surgery.find(model, "y")
    changed = surgery.replace(model, layer, layer.weights * 2, layer.bias)
    onnx.checker.check_model(changed)
    assert (changed.ir_version, changed.opset_import[0].version) == (3, 8)
    assert [value.name for value in changed.graph.input] == ["x", "first", "demur_weights", "demur_bias"]
    assert surgery.find(changed, "y").weights == pytest.approx(layer.weights * 2)
