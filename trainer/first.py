"""A first model of digits, from 200 of them, in a blink: a small network that leaves something to learn.

Hidden unit j is relu(u_j . (x - m_j)): m_j lies halfway between two seed digits of different labels, u_j points from
one to the other. Nothing in that layer is trained; the last layer is a regularised logistic regression on it. The
features do not depend on how well the few labels were fitted, so that refitting the last layer alone goes a long way.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from demur.v1 import model_pb2 as pb
from gateway import manifest as manifests
from gateway.manifest import LEDGER_ROW, Manifest
from gateway.model_client import ModelClient
from gateway.registry import parse_name
from trainer import dataset, digits
from trainer.imports import Split
from trainer.retrain import TRAINED_ON, Rooms, limits
from trainer.train import Indices, refit

HIDDEN_UNITS: Final = 512
REGULARISATION: Final = 0.01
ITERATIONS_MAX: Final = 500
OPSET: Final = 17
IR_VERSION: Final = 8
REASON: Final = "the first model, trained on 200 digits"

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


async def publish(rooms: Rooms, gateway: ModelClient, name: str, tell: Callable[[str], None]) -> tuple[str, bool]:
    """Make sure that a model `name` of digits is live; returns its version, and whether anything had to be done.

    With a live version nothing is done; with only published ones the newest is promoted.
    """
    versions = await gateway.list(name)
    live = [version for version in versions if version.state == pb.ModelVersion.CHAMPION]
    if live:
        return parse_name(live[0].name)[1], False
    if versions:
        newest = max((parse_name(version.name)[1] for version in versions), key=int)
        promoted = await gateway.promote(name, newest, reason=REASON)
        return parse_name(promoted.name)[1], True
    tell("reading scikit-learn's digits")
    found = await asyncio.to_thread(digits.load)
    tell(f"training on {len(found.seed)} of {len(found.labels)} digits")
    labels = found.labels[list(found.seed)]
    model = await asyncio.to_thread(build, found.tensor(found.seed), labels, label_count=len(digits.LABELS))
    tell(f"keeping those, and {len(found.holdout)} to judge by")
    manifest = await asyncio.to_thread(import_examples, rooms, digits.manifest(name), found)
    tell("publishing it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        onnx.save_model(model, path)
        published = await gateway.publish(name, path, manifests.render(manifest), promote=True, reason=REASON)
    return parse_name(published.name)[1], True


def import_examples(rooms: Rooms, manifest: Manifest, found: digits.Digits) -> Manifest:
    """Import the seed and the hold-out; returns the manifest with what the model was trained on."""
    for split, indices in ((Split.TRAIN, found.seed), (Split.HOLDOUT, found.holdout)):
        rooms.imports.add(
            manifest,
            {digits.INPUT: found.tensor(indices)},
            [found.label(index) for index in indices],
            split,
            examples_max=rooms.settings.import_examples_max,
        )
    kept = rooms.imports.all(manifest.model)
    made = dataset.build(manifest, [], kept, rooms.contents, trained_row=0, limits=limits(rooms.settings))
    provenance = {"why": REASON, TRAINED_ON: made.digest, LEDGER_ROW: "0", "source": "sklearn.datasets.load_digits"}
    return msgspec.structs.replace(manifest, provenance=provenance)


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
