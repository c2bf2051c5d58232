"""What a call brought as a message; demur.v1's tensors, to arrays and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from demur.v1 import types_pb2 as pb
from fallback.errors import InvalidError
from gateway import tensor
from gateway.tensor import Array

TENSORS_MAX = 256

M = TypeVar("M", bound=Message)


def message_of(payload: bytes, type_: type[M]) -> M:
    """Return the message that a call brought; raises InvalidError where it is none of this type."""
    message = type_()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidError(f"request: expected a {type_.DESCRIPTOR.full_name}, got bytes that are none") from error
    return message


def tensors_from_wire(wire: Iterable[pb.Tensor], *, field: str = "inputs") -> dict[str, Array]:
    """Return arrays by name, views of the wire's bytes; raises InvalidError naming the field."""
    found: dict[str, Array] = {}
    for number, each in enumerate(wire):
        if number >= TENSORS_MAX:
            raise InvalidError(f"{field}: expected at most {TENSORS_MAX} tensors, got more")
        if each.name in found:
            raise InvalidError(f"{field}[{number}].name: expected each once, got {each.name[:100]!r} again")
        found[each.name] = tensor.decode(each.raw, each.datatype, each.shape, field=f"{field}[{each.name[:100]}]")
    return found


def tensors_to_wire(arrays: Mapping[str, Array]) -> list[pb.Tensor]:
    """Return one wire tensor for each array, in order."""
    return [
        pb.Tensor(name=name, datatype=tensor.datatype_of(array), shape=array.shape, raw=tensor.encode(array))
        for name, array in arrays.items()
    ]


def serialise(arrays: Mapping[str, Array]) -> bytes:
    """Return a serialised demur.v1.Tensors."""
    return pb.Tensors(tensors=tensors_to_wire(arrays)).SerializeToString()
