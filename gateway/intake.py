"""Whether a request fits a version's inputs, and its rows as the arrays that go into a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fallback.errors import InvalidError
from gateway import tensor
from gateway.batching import Padding
from gateway.manifest import Preprocess, TensorSpec
from gateway.padding import free, pad
from gateway.preprocess import to_tensor
from gateway.request import Request
from gateway.tensor import Array

# Inputs that an error names, at most.
_NAMED_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How a request becomes arrays; two versions with equal intakes take the same prepared rows.

    `batched`: the first axis of every tensor counts rows. `padding`: how inputs of different sizes are made alike.
    """

    inputs: tuple[TensorSpec, ...]
    batched: bool
    preprocess: Preprocess | None
    forbid_nan: bool
    rows_max: int
    padding: Padding | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A request's rows, ready for a batch of others with an equal `shape`.

    `size`: what the padded axis had before; None where nothing was filled up.
    """

    intake: Intake
    arrays: Mapping[str, Array]
    rows: int
    shape: Hashable
    size: int | None = None


def prepare(request: Request, intake: Intake, *, pixels_max: int) -> Prepared:
    """Check `request` against `intake`; raises InvalidError naming field, expected and got."""
    arrays = request.tensors
    if not arrays:
        arrays = _read_subject(request, intake, pixels_max)
    _check_names(arrays, intake)
    if request.one_row and intake.batched:
        arrays = {spec.name: _one_row(arrays[spec.name], spec) for spec in intake.inputs}
    rows = {_check(arrays[spec.name], spec, intake) for spec in intake.inputs}
    if len(rows) > 1:
        counts = {arrays[spec.name].shape[0]: spec.name for spec in intake.inputs}
        got = ", ".join(f"{count} in {name!r}" for count, name in [*counts.items()][:_NAMED_MAX])
        raise InvalidError(f"inputs: expected as many rows in each, got {got}")
    ordered, size = {spec.name: arrays[spec.name] for spec in intake.inputs}, None
    if intake.padding is not None:
        ordered, size = pad(ordered, free(intake.inputs, intake.padding), intake.padding)
    shape = tuple(array.shape[intake.batched :] for array in ordered.values())
    return Prepared(intake=intake, arrays=ordered, rows=rows.pop(), shape=shape, size=size)


def join(prepared: Sequence[Prepared]) -> dict[str, Array]:
    """Return one array for each input with all rows: the one copy on the way in, and none for a lone request."""
    first = prepared[0].arrays
    if len(prepared) == 1:
        return dict(first)
    return {name: np.concatenate([each.arrays[name] for each in prepared]) for name in first}


def _read_subject(request: Request, intake: Intake, pixels_max: int) -> Mapping[str, Array]:
    if request.subject is None:
        raise InvalidError(f"inputs: expected {_named(intake.inputs)}, or a subject; got neither")
    if len(intake.inputs) != 1:
        raise InvalidError(f"inputs: expected {_named(intake.inputs)}; a subject can be read for one input only")
    (spec,) = intake.inputs
    leading = intake.batched or spec.shape[:1] == (1,)
    sizes = spec.shape[1:] if leading else spec.shape
    row = to_tensor(request.subject, spec, intake.preprocess, sizes=sizes, pixels_max=pixels_max)
    return {spec.name: row[np.newaxis] if leading else row}


def _one_row(array: Array, spec: TensorSpec) -> Array:
    """Return a row with its axis of rows."""
    if array.ndim == len(spec.shape) - 1:
        return array[np.newaxis]
    if array.ndim == len(spec.shape) and array.shape[0] != 1:
        raise InvalidError(f"inputs[{spec.name}].shape: expected one row, got {array.shape[0]}")
    return array


def _check_names(arrays: Mapping[str, Array], intake: Intake) -> None:
    expected = {spec.name for spec in intake.inputs}
    if arrays.keys() == expected:
        return
    missing = [spec for spec in intake.inputs if spec.name not in arrays]
    if len(expected) > _NAMED_MAX or len(arrays) > _NAMED_MAX:
        odd = ", ".join([repr(name[:100]) for name in arrays if name not in expected][:_NAMED_MAX]) or "no other"
        lacks = _named(missing[:_NAMED_MAX]) or "none"
        raise InvalidError(f"inputs: expected {len(expected)}, of which {lacks} is not there; got {odd} beside them")
    got = ", ".join(repr(name[:100]) for name in arrays) or "none"
    raise InvalidError(f"inputs: expected {_named(intake.inputs)}, got {got}")


def check_claim(datatype: str, shape: Sequence[int], spec: TensorSpec, intake: Intake) -> int:
    """Return the rows of one input by what is said of it; raises InvalidError naming field, expected and got."""
    field = f"inputs[{spec.name}]"
    if datatype != spec.datatype:
        raise InvalidError(f"{field}.datatype: expected {spec.datatype}, got {datatype}")
    if len(shape) != len(spec.shape):
        raise InvalidError(
            f"{field}.shape: expected {len(spec.shape)} axes {list(spec.shape)}, got {len(shape)} {list(shape)}",
        )
    rows = shape[0] if intake.batched else 1
    if not 1 <= rows <= intake.rows_max:
        raise InvalidError(f"{field}.shape: expected 1 to {intake.rows_max} rows, got {rows}")
    sizes, expected = shape[intake.batched :], spec.shape[intake.batched :]
    if any(want not in {-1, got} for want, got in zip(expected, sizes, strict=True)):
        raise InvalidError(f"{field}.shape: expected {list(spec.shape)}, got {list(shape)}")
    return rows


def _check(array: Array, spec: TensorSpec, intake: Intake) -> int:
    """Return the rows of one input."""
    rows = check_claim(tensor.datatype_of(array), array.shape, spec, intake)
    if intake.forbid_nan and array.dtype.kind == "f" and (missing := np.isnan(array)).any():
        first = [int(place) for place in np.unravel_index(missing.argmax(), array.shape)]
        count = int(missing.sum())
        raise InvalidError(f"inputs[{spec.name}]: expected numbers, got {count} NaN, the first at {first}")
    return rows


def _named(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} ({spec.datatype} {list(spec.shape)})" for spec in specs)
