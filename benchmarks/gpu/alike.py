"""Whether a model says on the GPU what it says on the CPU: bound or not, of any batch, from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.figures import Check
from benchmarks.gpu.halves import halved
from benchmarks.serve import models
from benchmarks.serve.models import Name
from gateway.model import CPU, Device, Model
from gateway.tensor import Array

# In parts of the spread of the CPU's scores. A GPU multiplies FP32 with the ten bits of TF32, unless told otherwise.
MEAN_MAX: Final = 5e-3
SAME_LABEL_MIN: Final = 0.99
HALF_MEAN_MAX: Final = 2e-2
HALF_SAME_LABEL_MIN: Final = 0.95
SCORES: Final = "before_sure"
_FAR: Final = 1e9
_THREADS: Final = 8
# Odd ones too: whatever came is what is run.
_BATCHES: Final = (1, 2, 3, 7, 8)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How far scores are from the CPU's, in standard deviations of these, and the share of rows with its label."""

    mean: float
    most: float
    same_label: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One model: what runs it, and how far each way of running it is from the CPU."""

    provider: str
    bound: Difference
    unbound: Difference
    threads: Difference
    half: Difference


def scored(content: bytes) -> bytes:
    """Return the model with one output more, `before_sure` (rows, 10): its scores before they are made sure."""
    model: Any = onnx.load_model_from_string(content)
    graph = model.graph
    (name,) = (node.input[0] for node in graph.node if "sure" in node.input)
    graph.node.append(helper.make_node("Identity", [name], [SCORES]))
    graph.output.append(helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["rows", models.LABELS]))
    whole: bytes = model.SerializeToString()
    return whole


def difference(ours: Array, other: Array) -> Difference:
    """Return how far `ours` is from `other`, both (rows, labels); what is no number is as far as can be."""
    apart = np.abs(ours.astype(np.float64) - other.astype(np.float64)) / other.std(dtype=np.float64)
    apart = np.nan_to_num(apart, nan=_FAR, posinf=_FAR)
    same = ours.argmax(axis=1) == other.argmax(axis=1)
    return Difference(mean=_short(apart.mean()), most=_short(apart.max()), same_label=_short(same.mean()))


def compare(folder: Path, name: Name, device: Device, *, count: int) -> Compared:
    """Run the same `count` rows on the CPU and on `device`; raises ConfigError where a model does not run there."""
    path, small = folder / f"{name}.onnx", folder / f"{name}-half.onnx"
    path.write_bytes(scored(models.artefact(name)))
    small.write_bytes(halved(path.read_bytes()))
    rows = made_up(name, count)
    expected = _whole(Model.load(path, device="cpu", bind=False), rows)
    bound, plain = (Model.load(path, device=device, bind=bind) for bind in (True, False))
    half = Model.load(small, device=device, bind=True)
    return Compared(
        provider=bound.provider,
        bound=difference(_whole(bound, rows), expected),
        unbound=difference(_whole(plain, rows), expected),
        threads=difference(_at_once(bound, rows), expected),
        half=difference(_whole(half, rows.astype(np.float16)), expected),
    )


def judge(name: Name, found: Compared, device: Device) -> list[Check]:
    """Return every promise beside what was found."""
    wanted = (found.provider == CPU) == (device == "cpu")
    where = "the CPU" if device == "cpu" else "a GPU's provider"
    return [
        Check(name=f"{name}: the session runs on {where}", value=float(wanted), goal="= 1", ok=wanted),
        *_near(f"{name}, bound", found.bound, MEAN_MAX, SAME_LABEL_MIN),
        *_near(f"{name}, not bound", found.unbound, MEAN_MAX, SAME_LABEL_MIN),
        *_near(f"{name}, bound, {_THREADS} threads at once", found.threads, MEAN_MAX, SAME_LABEL_MIN),
        *_near(f"{name}, bound, FP16", found.half, HALF_MEAN_MAX, HALF_SAME_LABEL_MIN),
    ]


def made_up(name: Name, count: int) -> Array:
    """Return rows of which each is some size larger than the one before, so that no two have the same scores."""
    rows = models.rows(name, count)
    sizes = np.linspace(0.2, 2.0, count, dtype=np.float32)
    return rows * sizes.reshape(count, *(1,) * (rows.ndim - 1))


def _near(what: str, found: Difference, mean_max: float, same_min: float) -> list[Check]:
    mean, same = found.mean, found.same_label
    return [
        Check(
            name=f"{what}: mean difference of scores from the CPU's, in deviations",
            value=mean,
            goal=f"<= {mean_max:g}",
            ok=mean <= mean_max,
        ),
        Check(name=f"{what}: rows with the CPU's label", value=same, goal=f">= {same_min:g}", ok=same >= same_min),
    ]


def _whole(model: Model, rows: Array) -> Array:
    """Run all rows, in batches of different sizes."""
    found, first = [], 0
    while first < len(rows):
        for size in _BATCHES:
            part = rows[first : first + size]
            if len(part):
                found.append(model.run({"x": part})[SCORES])
            first += size
    return np.concatenate(found)


def _at_once(model: Model, rows: Array) -> Array:
    """Run all rows, each thread its own part of them."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return np.concatenate(list(threads.map(lambda part: _whole(model, part), np.array_split(rows, _THREADS))))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
