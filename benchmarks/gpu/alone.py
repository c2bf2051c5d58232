"""ONNX Runtime alone, batch by batch, on each provider that there is: what a gateway in front of it cannot exceed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks.gpu.halves import halved
from benchmarks.serve import models
from benchmarks.serve.models import Name
from gateway.model import CPU, TENSORRT, Device, Model, offered

_RUNS_MIN: Final = 5


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one size, one after the other, inputs and outputs bound; ms of a run.

    `first_ms`: the first run of this size in the session, which may have kernels chosen for it or an engine built.
    """

    rows: int
    first_ms: float
    p50_ms: float
    p99_ms: float
    rows_per_second: float


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one provider; `load_ms` is what loading it took."""

    model: Name
    provider: str
    datatype: str
    load_ms: float
    batches: tuple[Batch, ...]


def providers(device: Device) -> list[str]:
    """Return what is measured: each provider of the GPU, or the CPU where that is what is asked for."""
    return [provider for provider in offered(device) if provider != CPU] or [CPU]


def sweep(
    folder: Path, name: Name, provider: str, device: Device, *, half: bool, sizes: tuple[int, ...], seconds: float
) -> Sweep:
    """Measure each size for so many `seconds`; raises ConfigError where the model does not run on `provider`."""
    path = folder / f"{name}{'-half' if half else ''}.onnx"
    path.write_bytes(halved(models.artefact(name)) if half else models.artefact(name))
    start = time.perf_counter()
    model = Model.load(path, device=device, provider=provider, bind=True)
    load_ms = 1000 * (time.perf_counter() - start)
    # An engine of TensorRT's is built anew for each size beyond those that it has seen: two of them are enough.
    wanted = (sizes[0], sizes[-1]) if provider == TENSORRT else sizes
    kind = np.float16 if half else np.float32
    batches = tuple(_batch(model, models.rows(name, rows).astype(kind), seconds) for rows in wanted)
    model.close()
    return Sweep(
        model=name, provider=provider, datatype="FP16" if half else "FP32", load_ms=_short(load_ms), batches=batches
    )


def _batch(model: Model, rows: np.ndarray[Any, Any], seconds: float) -> Batch:
    took: list[float] = []
    begin = time.perf_counter()
    while len(took) <= _RUNS_MIN or took[-1] - begin < seconds:
        model.run({"x": rows})
        took.append(time.perf_counter())
    each = 1000 * np.diff([begin, *took])
    after = each[1:]
    return Batch(
        rows=len(rows),
        first_ms=_short(each[0]),
        p50_ms=_short(float(np.quantile(after, 0.5))),
        p99_ms=_short(float(np.quantile(after, 0.99))),
        rows_per_second=_short(1000 * len(rows) * len(after) / float(after.sum())),
    )


def _short(value: float) -> float:
    return float(f"{value:.4g}")
