"""The rows of plain requests as one array: the one copy on the way in."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.quick import QuickJob, alike
from gateway.slabs import Slab
from gateway.tensor import Array

# Of so few bytes a copy costs less than a view of them.
_SLICED_BYTES_MAX: Final = 4_096
# So few numbers are added up in less time than numpy takes to look at any.
_SUMMED_MAX: Final = 256
_own: Final = threading.local()


def joined(jobs: Sequence[QuickJob], slab: Slab | None = None) -> dict[str, Array]:
    """Return the rows of all jobs, which fit together, as one array: the one copy on the way in.

    It is the input of `slab`, a model's for so many rows, where that is one; else large ones are in room of this
    thread's, and so only until it joins others: fresh memory for each batch would be mapped and cleared each time.
    """
    question, fit = jobs[0].question, jobs[0].fit
    start, end = question.start, question.end
    parts: Sequence[bytes | memoryview]
    if small := end - start <= _SLICED_BYTES_MAX and alike(jobs):
        parts = [job.call.payload[start:end] for job in jobs]
    else:
        parts = [job.numbers for job in jobs]
    if slab is not None and slab.takes(fit.dtype, fit.row):
        _fill(slab.content, parts)
        return {question.input: slab.input}
    if small:
        return {question.input: np.frombuffer(b"".join(parts), fit.dtype).reshape(-1, *fit.row)}
    room = memoryview(_room(size := sum(map(len, parts))))
    _fill(room, parts)
    return {question.input: np.frombuffer(room[:size], fit.dtype).reshape(-1, *fit.row)}


def _fill(room: memoryview, parts: Sequence[bytes | memoryview]) -> None:
    """Put the parts one behind the other."""
    to = 0
    for part in parts:
        end = to + len(part)
        room[to:end] = part
        to = end


def _room(size: int) -> bytearray:
    """Return this thread's, of at least `size` bytes."""
    found: bytearray | None = getattr(_own, "room", None)
    if found is None or len(found) < size:
        found = _own.room = bytearray(size)
    return found


def with_nan(array: Array, jobs: Sequence[QuickJob]) -> list[QuickJob]:
    """Return the jobs whose rows hold NaN where none may be."""
    if array.dtype.kind != "f" or not jobs[0].fit.intake.forbid_nan:
        return []
    # A sum is NaN where one number is; and where infinities meet, which is looked at.
    if array.size <= _SUMMED_MAX and not math.isnan(sum(array.reshape(-1).tolist())):
        return []
    bad: NDArray[np.bool_] = np.isnan(array)
    if not bad.any():
        return []
    rows = np.asarray(bad.reshape(len(bad), -1).any(axis=1))
    ends = np.cumsum([job.rows for job in jobs])
    return [job for job, end in zip(jobs, ends, strict=True) if rows[end - job.rows : end].any()]
