from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from gateway.model import Model
from gateway.registry import Registry
from trainer import digits, first, surgery


def test_the_first_model_is_useful_and_leaves_something_to_learn(tmp_path: Path) -> None:
    """On the 397: better than nine in ten, fifteen to thirty-five in a hundred deferred at 0.9, few wrong answers."""
    found = digits.load()
    model = first.build(found.tensor(found.seed), found.labels[list(found.seed)], label_count=10)
    path = tmp_path / "digits.onnx"
    onnx.save_model(model, path)
    loaded = Model.load(path, device="cpu", threads=1)
    probabilities = loaded.run({digits.INPUT: found.tensor(found.holdout)})[digits.OUTPUT]
    right = probabilities.argmax(axis=1) == found.labels[list(found.holdout)]
    answered = probabilities.max(axis=1) >= digits.THRESHOLD
    assert 0.89 < right.mean() < 0.95
    assert 0.15 < 1 - answered.mean() < 0.35
    assert (~right[answered]).mean() < 0.02


def test_the_first_model_is_the_same_each_time() -> None:
    """So that a demo can be compared with the one before."""
    found = digits.load()
    made = [first.build(found.tensor(found.seed), found.labels[list(found.seed)], label_count=10) for _ in range(2)]
    assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(deterministic=True)


def test_the_registry_admits_it_and_surgery_takes_it(tmp_path: Path) -> None:
    """It is published with its manifest as it stands, and its last layer can be refitted."""
    found = digits.load()
    model = first.build(found.tensor(found.seed), found.labels[list(found.seed)], label_count=10)
    path = tmp_path / "digits.onnx"
    onnx.save_model(model, path)
    version = Registry(tmp_path / "models").publish("digits", path, digits.manifest("digits"))
    assert version.manifest.inputs == digits.manifest("digits").inputs
    assert version.manifest.outputs == digits.manifest("digits").outputs
    layer = surgery.find(onnx.load_model(version.artefact), version.manifest.output.tensor)
    assert layer.weights.shape == (first.HIDDEN_UNITS, 10)
    assert layer.softmax
    assert np.isfinite(layer.weights).all()
