"""KServe's element types and raw contents, to numpy arrays and back.

Raw contents are row-major and little-endian; an element of a BYTES tensor is a 4-byte little-endian length followed by
that many bytes (KServe's "Binary tensor data extension"). In memory a BYTES tensor is an object array of str: ONNX
Runtime's strings are UTF-8 text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallback.errors import InvalidError

Array = NDArray[Any]

DTYPES: Final = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype(np.uint16),
        "UINT32": np.dtype(np.uint32),
        "UINT64": np.dtype(np.uint64),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype(np.int16),
        "INT32": np.dtype(np.int32),
        "INT64": np.dtype(np.int64),
        "FP16": np.dtype(np.float16),
        "FP32": np.dtype(np.float32),
        "FP64": np.dtype(np.float64),
        "BYTES": np.dtype(np.object_),
    }
)
_DATATYPES: Final = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
RANK_MAX: Final = 32
ELEMENTS_MAX: Final = 2**31 - 1
_LENGTH_BYTES: Final = 4
# Values that are made numbers of in one go: other threads have the interpreter in between.
_SLICE: Final = 16_384

if sys.byteorder != "little":  # pragma: no cover - no such machine has wheels of ONNX Runtime
    raise ImportError("raw tensor contents are little-endian; this machine is not")


def dtype_of(datatype: str, *, field: str = "datatype") -> np.dtype[Any]:
    """Return the numpy dtype of KServe's `datatype`; raises InvalidError naming `field`."""
    try:
        return DTYPES[datatype]
    except KeyError:
        raise InvalidError(f"{field}: expected one of {', '.join(DTYPES)}, got {datatype[:50]!r}") from None


def datatype_of(array: Array) -> str:
    """Return KServe's name of an array's element type; strings of any width are BYTES."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    try:
        return _DATATYPES[array.dtype.newbyteorder("=")]
    except KeyError:
        raise InvalidError(f"dtype: expected one of {', '.join(map(str, _DATATYPES))}, got {array.dtype}") from None


def elements(shape: Sequence[int], *, field: str) -> int:
    """Return how many elements `shape` has; raises InvalidError where it is no shape."""
    if len(shape) > RANK_MAX:
        raise InvalidError(f"{field}.shape: expected at most {RANK_MAX} axes, got {len(shape)}")
    if any(size < 0 for size in shape):
        raise InvalidError(f"{field}.shape: expected sizes >= 0, got {list(shape)}")
    # Beside an axis of size 0, too, no others are taken that no array could have.
    count = math.prod(size for size in shape if size)
    if count > ELEMENTS_MAX:
        raise InvalidError(f"{field}.shape: expected at most {ELEMENTS_MAX} elements, got {count}")
    return 0 if 0 in shape else count


def decode(raw: bytes, datatype: str, shape: Sequence[int], *, field: str) -> Array:
    """Return raw contents as an array, read-only and without a copy where the type has a fixed size.

    Raises InvalidError naming `field`: unknown datatype, no shape, a length that does not match, text that is no UTF-8.
    """
    dtype = dtype_of(datatype, field=f"{field}.datatype")
    count = elements(shape, field=field)
    if datatype == "BYTES":
        return _decode_bytes(raw, count, field).reshape(tuple(shape))
    expected = count * dtype.itemsize
    if len(raw) != expected:
        raise InvalidError(
            f"{field}.raw: expected {expected} bytes for {datatype} {list(shape)}, got {len(raw)}",
        )
    if datatype == "BOOL":
        _check_bool(raw, field)
    return np.frombuffer(raw, dtype).reshape(tuple(shape))


def encode(array: Array) -> bytes:
    """Return the raw contents of an array of a type that `datatype_of` names."""
    if array.dtype.kind in "OUS":
        return _encode_bytes(array.ravel().tolist())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def from_values(values: Sequence[Any], datatype: str, shape: Sequence[int], *, field: str) -> Array:
    """Return typed contents, flat, as an array; raises InvalidError naming `field`, before any is read if by count."""
    dtype = dtype_of(datatype, field=f"{field}.datatype")
    count = elements(shape, field=field)
    if len(values) != count:
        raise InvalidError(f"{field}.contents: expected {count} elements for {list(shape)}, got {len(values)}")
    if datatype == "BYTES":
        return texts(values, field=field).reshape(tuple(shape))
    found = np.empty(count, dtype)
    try:
        for start in range(0, count, _SLICE):
            found[start : start + _SLICE] = np.array(values[start : start + _SLICE], dtype)
        return found.reshape(tuple(shape))
    except (OverflowError, ValueError) as error:
        raise InvalidError(f"{field}.contents: expected values of {datatype}: {error}") from error


def texts(values: Iterable[bytes], *, field: str) -> Array:
    """Return byte strings as an object array of str; raises InvalidError where one is not UTF-8."""
    found = list(values)
    array = np.empty(len(found), object)
    for number, value in enumerate(found):
        try:
            array[number] = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidError(
                f"{field}: expected UTF-8 text in element {number}, got 0x{value[error.start]:02x} at {error.start}",
            ) from error
    return array


def _check_bool(raw: bytes, field: str) -> None:
    values = np.frombuffer(raw, np.uint8)
    if values.size and values.max() > 1:
        raise InvalidError(f"{field}.raw: expected bytes 0 or 1 for BOOL, got {int(values.max())}")


def _decode_bytes(raw: bytes, count: int, field: str) -> Array:
    found: list[bytes] = []
    position, size = 0, len(raw)
    # Bounded by what is there, not by what the shape claims.
    while position < size and len(found) <= count:
        end = position + _LENGTH_BYTES
        length = int.from_bytes(raw[position:end], "little")
        if end + length > size:
            raise InvalidError(
                f"{field}.raw: element {len(found)} is cut off: expected {end + length} bytes, got {size}",
            )
        found.append(raw[end : end + length])
        position = end + length
    if len(found) != count:
        got = f"more than {count}" if len(found) > count else str(len(found))
        raise InvalidError(f"{field}.raw: expected {count} BYTES elements, got {got}")
    return texts(found, field=field)


def _encode_bytes(values: Iterable[Any]) -> bytes:
    parts: list[bytes] = []
    for value in values:
        content = value if isinstance(value, bytes) else str(value).encode()
        parts += (len(content).to_bytes(_LENGTH_BYTES, "little"), content)
    return b"".join(parts)
