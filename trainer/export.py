"""Writes a retrained model to a file and proves that the file computes what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from gateway.confidence import softmax
from gateway.manifest import Manifest
from gateway.model import Device, Model
from trainer import surgery
from trainer.contents import Contents
from trainer.errors import ParityError, disk
from trainer.examples import Example
from trainer.features import Table, compute
from trainer.train import forward

METADATA_PREFIX: Final = "demur."
# Scores of 10 are rounded to 1/128 in half precision: a probability moves by up to a few thousandths.
_HALF_FACTOR: Final = 16
_TOLERANCE_MAX: Final = 0.05
Floats = NDArray[np.float64]


def write(
    model: Any,
    layer: surgery.LinearLayer,
    weights: Floats,
    bias: Floats,
    path: Path,
    *,
    output: str,
    metadata: Mapping[str, str],
) -> surgery.LinearLayer:
    """Write `model` with new weights in `layer`, and where they come from; returns the layer as the file has it.

    The layer read back holds the weights as rounded to the file's element type.
    """
    changed = surgery.replace(model, layer, weights, bias)
    kept = {entry.key: entry.value for entry in changed.metadata_props}
    kept = {key: value for key, value in kept.items() if not key.startswith(METADATA_PREFIX)}
    del changed.metadata_props[:]
    onnx.helper.set_model_props(changed, kept | {METADATA_PREFIX + key: value for key, value in metadata.items()})
    try:
        onnx.checker.check_model(changed)
    except onnx.checker.ValidationError as error:
        raise ParityError(f"the exported model is not valid ONNX: {error}") from error
    with disk(path):
        onnx.save_model(changed, path)
    return surgery.find(changed, output)


def check_parity(
    path: Path,
    layer: surgery.LinearLayer,
    features: Table,
    manifest: Manifest,
    contents: Contents,
    *,
    device: Device,
    tolerance: float,
    rows_max: int,
) -> float:
    """Run the file on the examples of `features` (the first `rows_max`); returns the largest difference.

    Raises ParityError where a probability differs from the one computed here by more than `tolerance`, or by more than
    16 times that where the file computes in half precision.
    """
    if layer.element_type == onnx.TensorProto.FLOAT16:
        tolerance = min(_TOLERANCE_MAX, tolerance * _HALF_FACTOR)
    chosen: Sequence[Example] = features.examples[:rows_max]
    model = Model.load(path, device=device)
    try:
        found = compute(model, manifest.output.tensor, manifest, chosen, contents, columns=len(manifest.labels))
    finally:
        model.close()
    got = softmax(found.values) if manifest.output.activation == "softmax" else found.values
    places = {example.fingerprint: number for number, example in enumerate(chosen)}
    rows = [places[example.fingerprint] for example in found.examples]
    difference = float(np.abs(got - forward(features.values[rows], layer.weights, layer.bias)).max(initial=0.0))
    if len(rows) < len(chosen) // 2 or not difference <= tolerance:
        raise ParityError(
            f"the exported model differs by up to {difference:.2g} in a probability from what was trained, over "
            f"{len(rows)} of {len(chosen)} examples; expected at most {tolerance:.2g}",
        )
    return difference
