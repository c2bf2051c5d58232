"""The rows of plain requests as one array: the one copy on the way in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.quick import QuickJob, alike
from gateway.tensor import Array

# Of so few bytes a copy costs less than a view of them.
_SLICED_BYTES_MAX: Final = 4_096
_own: Final = threading.local()


def joined(jobs: Sequence[QuickJob]) -> dict[str, Array]:
    """Return the rows of all jobs, which fit together, as one array: the one copy on the way in.

    Large ones are in this thread's slab, and so only until it joins others: fresh memory for each batch would be mapped
    and cleared each time.
    """
    first = jobs[0]
    start, end = first.question.start, first.question.end
    if end - start <= _SLICED_BYTES_MAX and alike(jobs):
        content = b"".join([job.call.payload[start:end] for job in jobs])
        return {first.question.input: np.frombuffer(content, first.fit.dtype).reshape(-1, *first.fit.row)}
    parts = [job.numbers for job in jobs]
    size = sum(map(len, parts))
    slab = memoryview(_slab(size))
    to = 0
    for part in parts:
        slab[to : to + len(part)] = part
        to += len(part)
    return {first.question.input: np.frombuffer(slab[:size], first.fit.dtype).reshape(-1, *first.fit.row)}


def _slab(size: int) -> bytearray:
    """Return this thread's slab, of at least `size` bytes."""
    found: bytearray | None = getattr(_own, "slab", None)
    if found is None or len(found) < size:
        found = _own.slab = bytearray(size)
    return found


def with_nan(array: Array, jobs: Sequence[QuickJob]) -> list[QuickJob]:
    """Return the jobs whose rows hold NaN where none may be."""
    if array.dtype.kind != "f" or not jobs[0].fit.intake.forbid_nan:
        return []
    bad: NDArray[np.bool_] = np.isnan(array)
    if not bad.any():
        return []
    rows = np.asarray(bad.reshape(len(bad), -1).any(axis=1))
    ends = np.cumsum([job.rows for job in jobs])
    return [job for job, end in zip(jobs, ends, strict=True) if rows[end - job.rows : end].any()]
