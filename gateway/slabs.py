"""Room for the rows of one run, bound to a session once, and used again by each run of as many rows.

Of every array that `run` is given ONNX Runtime makes a value, and of every result an array: for a small model that
takes longer than the model does. What is bound (IOBinding) is only copied into and out of. On the CPU alone: elsewhere
the copy to the device is what takes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime

from gateway.manifest import TensorSpec
from gateway.tensor import DTYPES, Array

# Of more rows, or of larger ones, what is saved is little beside what the model takes.
_ROWS_MAX: Final = 32
_ROW_BYTES_MAX: Final = 4_096


class Slab:
    """Room for so many rows: `input`, whose bytes are `content`, and the outputs."""

    __slots__ = ("_binding", "_outputs", "_session", "content", "input")

    def __init__(
        self, session: onnxruntime.InferenceSession, given: TensorSpec, found: Sequence[TensorSpec], rows: int
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self.input, *outputs = [np.zeros((rows, *spec.shape[1:]), DTYPES[spec.datatype]) for spec in (given, *found)]
        self.content: memoryview = memoryview(self.input.data).cast("B")
        self._outputs = {spec.name: output for spec, output in zip(found, outputs, strict=True)}
        self._binding.bind_input(given.name, "cpu", 0, *_place(self.input))
        for name, output in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, *_place(output))

    def takes(self, dtype: np.dtype[Any], row: tuple[int, ...]) -> bool:
        """Whether rows are of its input's type and shape."""
        return bool(self.input.dtype == dtype) and self.input.shape[1:] == row

    def has_rows(self, outputs: Mapping[str, Array]) -> bool:
        """Whether outputs have as many rows as its input."""
        return all(output.shape[:1] == self.input.shape[:1] for output in outputs.values())

    def fits(self, outputs: Mapping[str, Array]) -> bool:
        """Whether there is room for outputs such as these, and no more."""
        return all(output.shape == self._outputs[name].shape for name, output in outputs.items())

    def run(self) -> dict[str, Array]:
        """Run once on what is in it; returns the outputs, which do not change any more. Raises as ONNX Runtime does."""
        self._session.run_with_iobinding(self._binding)
        return {name: output.copy() for name, output in self._outputs.items()}


class Slabs:
    """Those of one session, one for each thread and number of rows."""

    def __init__(self, session: onnxruntime.InferenceSession, given: TensorSpec, found: Sequence[TensorSpec]) -> None:
        self._session = session
        self._given = given
        self._found = found
        self._own = threading.local()

    @classmethod
    def of(
        cls, session: onnxruntime.InferenceSession, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> Slabs | None:
        """Return those of a session; None where its tensors are not small rows of numbers, of a size that is known."""
        specs = (*inputs, *outputs)
        if len(inputs) != 1 or any(spec.datatype == "BYTES" or not _are_rows(spec.shape) for spec in specs):
            return None
        if sum(int(np.prod(spec.shape[1:])) * DTYPES[spec.datatype].itemsize for spec in specs) > _ROW_BYTES_MAX:
            return None
        return cls(session, inputs[0], outputs)

    def find(self, rows: int) -> Slab | None:
        """Return this thread's for so many rows, until it asks again; None where these are too many."""
        own: dict[Any, Slab] = self._own.__dict__
        found = own.get(rows)
        if found is None and rows <= _ROWS_MAX:
            found = own[rows] = Slab(self._session, self._given, self._found, rows)
        return found


def _are_rows(shape: Sequence[int]) -> bool:
    return shape[:1] == (-1,) and all(size > 0 for size in shape[1:])


def _place(array: Array) -> tuple[Any, tuple[int, ...], int]:
    """Return an array's type, its shape and where it is, as a binding takes them."""
    return array.dtype.type, array.shape, array.ctypes.data
