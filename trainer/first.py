"""A first model of digits, from 200 of them, in a blink: a small network that leaves something to learn.

Hidden unit j is relu(u_j . (x - m_j)): m_j lies halfway between two seed digits of different labels, u_j points from
one to the other. Nothing in that layer is trained; the last layer is a regularised logistic regression on it. The
features do not depend on how well the few labels were fitted, so that refitting the last layer alone goes a long way.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trainer.train import Indices, refit

HIDDEN_UNITS: Final = 512
REGULARISATION: Final = 0.01
ITERATIONS_MAX: Final = 500
OPSET: Final = 17
IR_VERSION: Final = 8

Floats = NDArray[np.float64]


def build(images: NDArray[np.float32], labels: Indices, *, label_count: int) -> Any:
    """Return an ONNX classifier `image` (rows, 1, height, width) -> `probabilities` (rows, labels).

    `images` (examples, 1, height, width) float32, `labels` (examples) as indices below `label_count`.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    hidden, offset = _between(flat, labels)
    features = np.maximum(flat @ hidden + offset, 0)
    fit = refit(
        features,
        labels,
        np.ones(len(labels)),
        weights=np.zeros((HIDDEN_UNITS, label_count)),
        bias=np.zeros(label_count),
        regularisation=REGULARISATION,
        iterations_max=ITERATIONS_MAX,
    )
    return _network(images.shape[1:], hidden, offset, fit.weights, fit.bias)


def _between(flat: Floats, labels: Indices) -> tuple[Floats, Floats]:
    """Return directions (pixels, units) and offsets (units) of planes halfway between unlike examples."""
    rng = np.random.default_rng(0)
    one = rng.integers(len(flat), size=HIDDEN_UNITS)
    other = np.array([rng.choice(np.flatnonzero(labels != labels[index])) for index in one])
    ways = flat[one] - flat[other]
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    return ways.T, -(ways * (flat[one] + flat[other]) / 2).sum(axis=1)


def _network(shape: tuple[int, ...], hidden: Floats, offset: Floats, weights: Floats, bias: Floats) -> Any:
    held = {"hidden_weights": hidden, "hidden_bias": offset, "weights": weights, "bias": bias}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["pixels"], name="flatten", axis=1),
            helper.make_node("Gemm", ["pixels", "hidden_weights", "hidden_bias"], ["planes"], name="hidden"),
            helper.make_node("Relu", ["planes"], ["features"], name="relu"),
            helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"], name="last"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=-1),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", len(bias)])],
        initializer=[numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="demur"
    )
