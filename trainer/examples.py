"""One labelled input as training sees it, and the bytes its content is kept in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from google.protobuf.message import DecodeError

from demur.v1 import types_pb2 as pb
from fallback.errors import InvalidError
from gateway.manifest import TensorSpec
from gateway.tensor import Array, datatype_of, decode, encode


class Origin(StrEnum):
    """Where an example came from."""

    IMPORTED = "imported"
    LIVE = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An input by its content's sha256 (hex), and the index of its label.

    `fingerprint` (sha256, hex) is of the numbers themselves, so that one input stored in two ways is known as one.
    `fresh`: came after the live version was trained.
    """

    digest: str
    fingerprint: str
    label: int
    origin: Origin
    fresh: bool


def encode_inputs(inputs: Mapping[str, Array]) -> bytes:
    """Return one request's inputs as a serialised demur.v1.Tensors, the same bytes for the same inputs."""
    tensors = [
        pb.Tensor(name=name, datatype=datatype_of(values), shape=values.shape, raw=encode(values))
        for name, values in sorted(inputs.items())
    ]
    return pb.Tensors(tensors=tensors).SerializeToString(deterministic=True)


def decode_inputs(content: bytes, specs: Sequence[TensorSpec], *, batched: bool) -> dict[str, Array]:
    """Return one row of each input that `specs` asks for; a batched model's with a first axis of 1.

    Raises InvalidError where the content is not what the model takes.
    """
    try:
        tensors = pb.Tensors.FromString(content).tensors
    except DecodeError as error:
        raise InvalidError("inputs: expected a demur.v1.Tensors, got bytes that are none") from error
    known = {tensor.name: tensor for tensor in tensors}
    return {spec.name: _decode(known.get(spec.name), spec, batched=batched) for spec in specs}


def fingerprint(inputs: Mapping[str, Array]) -> str:
    """Return the sha256 (hex) over names, types, shapes and values of one row of each input."""
    digest = hashlib.sha256()
    for name, values in sorted(inputs.items()):
        raw = encode(values)
        head = f"{len(name)}:{name}:{datatype_of(values)}:{list(values.shape)}:{len(raw)}:"
        digest.update(head.encode() + raw)
    return digest.hexdigest()


def nan_row(values: Array) -> int | None:
    """Return the first row (from 0) of an input that holds NaN, None where none does or it holds no floats."""
    if values.dtype.kind != "f":
        return None
    wrong = np.isnan(np.atleast_1d(values))
    rows = wrong.any(axis=tuple(range(1, wrong.ndim)))
    return int(rows.argmax()) if rows.any() else None


def _decode(tensor: pb.Tensor | None, spec: TensorSpec, *, batched: bool) -> Array:
    if tensor is None:
        raise InvalidError(f"inputs: expected {spec.name!r}, got none")
    values = decode(tensor.raw, tensor.datatype, tensor.shape, field=f"inputs.{spec.name}")
    if batched and values.ndim == len(spec.shape) - 1:
        values = values[None]
    expected = (1, *spec.shape[1:]) if batched else spec.shape
    fits = values.ndim == len(expected) and all(
        want in {-1, got} for want, got in zip(expected, values.shape, strict=True)
    )
    if not fits or datatype_of(values) != spec.datatype:
        got = f"{tensor.datatype} {list(tensor.shape)}"
        raise InvalidError(f"inputs.{spec.name}: expected {spec.datatype} {list(expected)}, got {got}")
    return values
