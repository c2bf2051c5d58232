from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.manifest import Manifest, Output, TensorSpec
from gateway.model import Model
from trainer import export, surgery
from trainer.contents import Contents
from trainer.errors import ParityError
from trainer.examples import Example, Origin, encode_inputs
from trainer.features import compute

LABELS = tuple("abcdefghij")
MANIFEST = Manifest(
    model="m",
    labels=LABELS,
    output=Output(tensor="y"),
    inputs=(TensorSpec(name="x", datatype="FP16", shape=(-1, 6)),),
)


def half() -> onnx.ModelProto:
    """A classifier in half precision whose scores are in the tens."""
    random = np.random.default_rng(0)
    held = {"v": random.normal(size=(6, 64)), "w": random.normal(size=(64, 10)), "b": random.normal(size=10)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"]),
            helper.make_node("Relu", ["h"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["z"]),
            helper.make_node("Softmax", ["z"], ["y"], axis=-1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["rows", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["rows", 10])],
        initializer=[numpy_helper.from_array(value.astype(np.float16), name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_half_precision_is_compared_as_coarsely_as_it_computes(tmp_path: Path) -> None:
    """Its own rounding is let through, other weights are not."""
    model, contents = half(), Contents(tmp_path / "contents")
    layer = surgery.find(model, "y")
    onnx.save_model(surgery.cut(model, layer), tmp_path / "cut.onnx")
    rows = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float16)
    examples = [
        Example(
            digest=contents.put(encode_inputs({"x": row[None]})),
            fingerprint=str(number),
            label=0,
            origin=Origin.LIVE,
            fresh=True,
        )
        for number, row in enumerate(rows)
    ]
    cut = Model.load(tmp_path / "cut.onnx", device="cpu", threads=1)
    features = compute(cut, surgery.FEATURES, MANIFEST, examples, contents, columns=64)

    def check(told: surgery.LinearLayer) -> float:
        path = tmp_path / "out.onnx"
        return export.check_parity(path, told, features, MANIFEST, contents, device="cpu", tolerance=1e-3, rows_max=300)

    stored = export.write(model, layer, layer.weights, layer.bias, tmp_path / "out.onnx", output="y", metadata={})
    assert 1e-3 < check(stored) < 16e-3, "more than single precision is allowed"
    export.write(model, layer, layer.weights * 1.1, layer.bias, tmp_path / "out.onnx", output="y", metadata={})
    with pytest.raises(ParityError, match=r"expected at most 0\.016"):
        check(layer)
