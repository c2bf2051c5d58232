"""How a version is best run on the machine that there is: with how many threads, how many runs at a time.

Theory of operation. A run of one thread takes the least processor time. Where a full batch takes long, several such
runs at a time share the cores, and each has few rows. Where it is short, one run at a time is done by whoever brought
the requests; several threads within it win only if the batch is long enough to be shared out, which is measured. To a
lone row they make little difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.cores import cores
from gateway.humble import humbly
from gateway.manifest import Manifest
from gateway.model import CPU, Device, Model
from gateway.preprocess import known_shapes
from gateway.registry import ModelVersion

# Of full batches that take longer several are run at a time, by one thread each: it is the best throughput.
_SHORT_SECONDS: Final = 0.002
# One that takes less is not shared out among threads: to wake another takes longer than it wins.
_TINY_SECONDS: Final = 0.0003
# Threads of a short run at most, how often it is tried with so many, and by what they must be better.
_SHORT_THREADS_MAX: Final = 4
_TRIES: Final = 8
_BETTER: Final = 1.1
# Where several runs share the cores, a run has so many rows where more would hardly make it better.
_SHARED_ROWS_MAX: Final = 8
_HARDLY: Final = 1.1
# Artefacts of which neither is more than so many times the other are of one size.
_SIMILAR: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """So many runs at a time, of up to `rows_max` rows put together, with so many `threads` each."""

    instances: int
    rows_max: int
    threads: int = 1


def load(
    version: ModelVersion, *, device: Device, threads: int, before: tuple[ModelVersion, Way] | None
) -> tuple[Model, Way]:
    """Load a version, and see how it is best run. `threads`: somebody's choice, 0 for none.

    What is much like the version `before` is run as that was: to measure takes the cores from requests. Raises as
    `Model.load` does.
    """
    manifest = version.manifest
    if before is not None and not manifest.batching.instances and similar(before[0], version):
        return Model.load(version.artefact, device=device, threads=before[1].threads), before[1]
    most, shapes = rows_max(manifest), known_shapes(manifest.preprocess)
    loaded = [model := Model.load(version.artefact, device=device, threads=threads or 1)]
    kept: Model | None = None
    try:
        full = 0.0 if model.provider != CPU else humbly(lambda: _seconds(model, most, shapes))
        way = _measured(model, manifest, full, threads=threads, shapes=shapes)
        best = model
        if way.threads != (threads or 1):
            loaded.append(other := Model.load(version.artefact, device=device, threads=way.threads))
            if full >= _SHORT_SECONDS or humbly(lambda: _is_better(other, model, most, shapes)):
                best = other
            else:
                way = Way(instances=way.instances, rows_max=most)
        kept = best
        return best, way
    finally:
        for each in loaded:
            if each is not kept:
                each.close()


def _measured(
    model: Model, manifest: Manifest, full: float, *, threads: int, shapes: Mapping[str, Sequence[int]]
) -> Way:
    """Return how a model of whose rows a `full` batch takes so many seconds is best run, or may be."""
    most, wanted = rows_max(manifest), manifest.batching.instances
    if full < _SHORT_SECONDS:
        shares = not (threads or wanted) and full > _TINY_SECONDS
        several = min(cores(), _SHORT_THREADS_MAX) if shares else 1
        return Way(instances=wanted or 1, rows_max=most, threads=threads or several)
    few = min(most, _SHARED_ROWS_MAX)
    hardly = humbly(lambda: _seconds(model, few, shapes)) * most <= _HARDLY * full * few
    own, instances = shared(cores(), threads=threads, instances=wanted)
    return Way(instances=instances, rows_max=few if hardly and instances > 1 else most, threads=own)


def similar(one: ModelVersion, other: ModelVersion) -> bool:
    """Whether two versions can be taken to need as long for a run: as large, with the same tensors, batched alike."""
    mine, its = one.manifest, other.manifest
    if (mine.inputs, mine.outputs, mine.batched, mine.batching) != (its.inputs, its.outputs, its.batched, its.batching):
        return False
    try:
        sizes = sorted(version.artefact.stat().st_size for version in (one, other))
    except OSError:
        return False
    return sizes[1] <= _SIMILAR * sizes[0]


def rows_max(manifest: Manifest) -> int:
    """Return how many rows one run may have."""
    return manifest.batching.max_batch_size if manifest.batched else 1


def shared(there: int, *, threads: int, instances: int) -> tuple[int, int]:
    """Return the threads of one run and the runs at a time that use all cores; what is not 0 is somebody's choice."""
    if instances:
        return threads or max(1, there // instances), instances
    return threads or 1, max(1, there // (threads or 1))


def _seconds(model: Model, rows: int, shapes: Mapping[str, Sequence[int]]) -> float:
    """Return how long a run of so many made-up rows takes this thread, whatever others do meanwhile.

    The first one is slow by itself.
    """
    model.warm_up([rows], shapes)
    start = time.thread_time()
    model.warm_up([rows], shapes)
    return time.thread_time() - start


def _is_better(one: Model, other: Model, rows: int, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether `one` is clearly sooner done with so many rows than `other`: the best of some tries, in turns."""
    took: dict[Model, float] = {}
    for _ in range(_TRIES):
        for model in (one, other):
            start = time.perf_counter()
            model.warm_up([rows], shapes)
            took[model] = min(took.get(model, math.inf), time.perf_counter() - start)
    return _BETTER * took[one] < took[other]
