"""Requests made up from what a KServe v2 server says of its model: random tensors of the declared kinds. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.results import Tensor
from demur import kserve
from fallback.errors import InvalidError

ELEMENTS_MAX: Final = 64 * 1024 * 1024
ROWS_MAX: Final = 65_536
FREE: Final = -1
# Whole numbers stay below this, so that they are within any vocabulary or table that a model looks them up in.
_WHOLE_END: Final = 10
_WORDS: Final = 1_000

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _whole(kind: type[np.generic]) -> Draw:
    return lambda draw, shape: draw.integers(0, _WHOLE_END, shape).astype(kind)


def _real(kind: type[np.generic]) -> Draw:
    return lambda draw, shape: draw.standard_normal(shape).astype(kind)


def _brain(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return BF16: the upper half of FP32's bits."""
    return (draw.standard_normal(shape).astype("<f4").view("<u4") >> 16).astype("<u2")


def _words(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.char.add("word ", draw.integers(0, _WORDS, shape).astype(str)).astype(bytes)


# By datatype: what is drawn, and the field of typed contents that takes it (none: only raw).
_KINDS: Final[Mapping[str, tuple[Draw, str]]] = {
    "BOOL": (lambda draw, shape: draw.integers(0, 2, shape).astype(np.bool_), "bool_contents"),
    "INT8": (_whole(np.int8), "int_contents"),
    "INT16": (_whole(np.int16), "int_contents"),
    "INT32": (_whole(np.int32), "int_contents"),
    "INT64": (_whole(np.int64), "int64_contents"),
    "UINT8": (lambda draw, shape: draw.integers(0, 256, shape).astype(np.uint8), "uint_contents"),
    "UINT16": (_whole(np.uint16), "uint_contents"),
    "UINT32": (_whole(np.uint32), "uint_contents"),
    "UINT64": (_whole(np.uint64), "uint64_contents"),
    "FP16": (_real(np.float16), ""),
    "BF16": (_brain, ""),
    "FP32": (_real(np.float32), "fp32_contents"),
    "FP64": (_real(np.float64), "fp64_contents"),
    "BYTES": (_words, "bytes_contents"),
}


class Given(NamedTuple):
    """One `--shape`: what the caller says of an input. `datatype` is empty unless said."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def given(said: str) -> Given:
    """Read `NAME=1,3,224,224`, or `NAME:DATATYPE=...` for a server that declares none; raises InvalidError."""
    head, equals, tail = said.rpartition("=")
    name, colon, datatype = head.rpartition(":")
    if not colon or datatype not in _KINDS:
        name, datatype = head, ""
    axes = [axis.strip() for axis in tail.split(",")] if tail.strip() else []
    if not equals or not name or not all(axis.isdecimal() and int(axis) for axis in axes):
        raise InvalidError(f"--shape: expected NAME=1,3,224,224 with sizes from 1, got {said!r}")
    return Given(name, datatype, tuple(map(int, axes)))


def inputs(declared: Sequence[Tensor], shapes: Sequence[Given], rows: int | None) -> tuple[Tensor, ...]:
    """Return the inputs with the shapes that are sent; raises InvalidError naming input, expected and got.

    A free first axis holds the rows, 1 of them unless `rows` or a shape says otherwise; of other free axes the size
    must be given. Inputs that the server does not declare are those that the shapes give with a datatype; their first
    axis holds the rows where `rows` says so.
    """
    by_name = {each.name: each for each in shapes}
    if not declared:
        declared = _undeclared(shapes, rows)
    unknown = sorted(by_name.keys() - {each.name for each in declared})
    if unknown:
        names = ", ".join(each.name for each in declared)
        raise InvalidError(f"--shape {unknown[0]}: expected an input of the model ({names}), got {unknown[0]!r}")
    return tuple(_sized(each, by_name.get(each.name), rows) for each in declared)


def _undeclared(shapes: Sequence[Given], rows: int | None) -> tuple[Tensor, ...]:
    bare = [each.name for each in shapes if not each.datatype]
    if not shapes or bare:
        said = f"{bare[0]!r} without its datatype" if bare else "none"
        expected = "expected --shape NAME:DATATYPE=1,3,224,224 for each input"
        raise InvalidError(f"the server does not declare the model's inputs: {expected}, got {said}")
    return tuple(
        Tensor(
            name=each.name,
            datatype=each.datatype,
            declared=each.shape if rows is None else (FREE, *each.shape[1:]),
        )
        for each in shapes
    )


def _sized(tensor: Tensor, shape: Given | None, rows: int | None) -> Tensor:
    declared, name = tensor.declared, tensor.name
    if tensor.datatype not in _KINDS:
        raise InvalidError(f"input {name!r}: expected a datatype of {', '.join(_KINDS)}, got {tensor.datatype!r}")
    if shape is not None:
        sent = _fitting(tensor, shape, rows)
    else:
        sent = (rows or 1, *declared[1:]) if declared[:1] == (FREE,) else declared
    free = [str(axis) for axis, size in enumerate(sent) if size < 1]
    if free:
        raise InvalidError(
            f"input {name!r}: expected --shape {name}=... since axes {', '.join(free)} of {list(declared)} are free, "
            "got none"
        )
    if int(np.prod(sent, dtype=float)) > ELEMENTS_MAX:
        raise InvalidError(f"input {name!r}: expected at most {ELEMENTS_MAX} elements, got {list(sent)}")
    return msgspec.structs.replace(tensor, sent=sent)


def _fitting(tensor: Tensor, shape: Given, rows: int | None) -> tuple[int, ...]:
    declared, sent, name = tensor.declared, shape.shape, tensor.name
    fits = len(sent) == len(declared) and all(size in {FREE, own} for size, own in zip(declared, sent, strict=True))
    if not fits:
        raise InvalidError(f"--shape {name}: expected {list(declared)} with each -1 replaced, got {list(sent)}")
    if shape.datatype not in {"", tensor.datatype}:
        raise InvalidError(f"--shape {name}: expected datatype {tensor.datatype}, got {shape.datatype}")
    if rows is not None and declared[:1] == (FREE,) and sent[0] != rows:
        raise InvalidError(f"--shape {name}: expected a first axis of --rows {rows}, got {sent[0]}")
    return sent


def rows_of(tensors: Sequence[Tensor], rows: int | None) -> int:
    """Return how many samples a request has; raises InvalidError where `rows` are asked of a model that takes none."""
    counts = [each.sent[0] for each in tensors if each.sent and each.declared[:1] == (FREE,)]
    if rows is not None and rows > 1 and not counts:
        shapes = ", ".join(f"{each.name} {list(each.declared)}" for each in tensors)
        raise InvalidError(f"--rows {rows}: expected a model with a free first axis, got {shapes}")
    return counts[0] if counts else 1


def message(model: str, tensors: Sequence[Tensor], *, seed: int, raw: bool) -> bytes:
    """Return a ModelInfer of random numbers; `raw`: as bytes (raw_input_contents), else in typed fields."""
    draw = np.random.default_rng(seed)
    made = kserve.ModelInferRequest(model_name=model)
    for tensor in tensors:
        assert tensor.sent is not None
        fill, field = _KINDS[tensor.datatype]
        values = fill(draw, tensor.sent)
        one = made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.sent)
        if raw:
            made.raw_input_contents.append(_raw(values, tensor.datatype))
        else:
            getattr(one.contents, field).extend(values.ravel().tolist())
    content: bytes = made.SerializeToString()
    return content


def typed(tensors: Sequence[Tensor]) -> bool:
    """Return whether typed fields can take all of them."""
    return all(_KINDS[each.datatype][1] for each in tensors)


def _raw(values: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    return b"".join(struct.pack("<I", len(each)) + each for each in values.ravel().tolist())
