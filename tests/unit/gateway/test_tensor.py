"""Raw and typed contents come back as they went, and what is none is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from fallback.errors import InvalidError
from gateway import tensor

NUMBERS = {name: dtype for name, dtype in tensor.DTYPES.items() if name != "BYTES"}
SHAPES = st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """An array of any type but BYTES."""
    dtype = NUMBERS[draw(st.sampled_from(sorted(NUMBERS)))]
    return draw(st_numpy.arrays(dtype, SHAPES))


@st.composite
def texts(draw: st.DrawFn) -> NDArray[Any]:
    """An object array of str."""
    shape = draw(st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    values = draw(st.lists(st.text(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    found = np.empty(len(values), object)
    found[:] = values
    return found.reshape(shape)


@given(arrays())
def test_numbers_come_back_bit_for_bit(array: NDArray[Any]) -> None:
    """NaN's payload included, from any byte order and memory order."""
    datatype = tensor.datatype_of(array)
    raw = tensor.encode(array)
    found = tensor.decode(raw, datatype, array.shape, field="x")
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert tensor.encode(array.astype(array.dtype.newbyteorder(">"))) == raw
    assert tensor.encode(np.asfortranarray(array)) == raw


@given(texts())
def test_texts_come_back_and_are_what_triton_writes(array: NDArray[Any]) -> None:
    """Byte for byte tritonclient's own format, both ways."""
    raw = tensor.encode(array)
    assert (tensor.decode(raw, "BYTES", array.shape, field="x") == array).all()
    if array.size:
        theirs = serialize_byte_tensor(array.astype(object))
        assert theirs.item() == raw
        assert [value.decode() for value in deserialize_bytes_tensor(raw)] == array.ravel().tolist()


@given(arrays(), st.integers(-3, 3).filter(bool))
def test_a_length_that_does_not_match_is_refused(array: NDArray[Any], wrong: int) -> None:
    """Before anything is read."""
    raw = tensor.encode(array)
    raw = raw + b"\0" * wrong if wrong > 0 else raw[:wrong]
    if len(raw) == array.nbytes:
        return
    with pytest.raises(InvalidError, match=rf"x.raw: expected {array.nbytes} bytes .* got {len(raw)}"):
        tensor.decode(raw, tensor.datatype_of(array), array.shape, field="x")


@given(st.binary(max_size=64), st.integers(0, 5))
def test_bytes_that_are_no_bytes_tensor_never_do_anything_but_refuse(raw: bytes, count: int) -> None:
    """Any bytes decode to exactly `count` texts or are an InvalidError."""
    try:
        found = tensor.decode(raw, "BYTES", (count,), field="x")
    except InvalidError:
        return
    assert found.shape == (count,)
    assert tensor.encode(found) == raw


@given(arrays())
def test_typed_contents_are_the_same_array(array: NDArray[Any]) -> None:
    """A flat list of Python values."""
    if array.dtype == np.float16:
        return
    found = tensor.from_values(array.ravel().tolist(), tensor.datatype_of(array), array.shape, field="x")
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("raw", "datatype", "shape", "sentence"),
    [
        (b"", "FP99", (0,), "x.datatype: expected one of BOOL, .* got 'FP99'"),
        (b"", "FP32", (-1,), r"x.shape: expected sizes >= 0, got \[-1\]"),
        (b"", "FP32", (2**20, 2**20), "x.shape: expected at most"),
        (b"", "FP32", (2**63 - 1, 2**63 - 1, 0), "x.shape: expected at most"),
        (b"", "BYTES", (1, 2**62, 0), "x.shape: expected at most"),
        (b"", "FP32", (1,) * 40, "x.shape: expected at most 32 axes, got 40"),
        (b"\x02", "BOOL", (1,), "x.raw: expected bytes 0 or 1 for BOOL, got 2"),
        (b"\x02\0\0\0ab", "BYTES", (2,), "x.raw: expected 2 BYTES elements, got 1"),
        (b"\0\0\0\0" * 3, "BYTES", (2,), "x.raw: expected 2 BYTES elements, got more than 2"),
        (b"\xff\xff\xff\xffab", "BYTES", (1,), "x.raw: element 0 is cut off: expected 4294967299 bytes, got 6"),
        (b"\x01\0\0\0\xff", "BYTES", (1,), "x: expected UTF-8 text in element 0, got 0xff at 0"),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, datatype: str, shape: tuple[int, ...], sentence: str) -> None:
    """Field, expected and got."""
    with pytest.raises(InvalidError, match=sentence):
        tensor.decode(raw, datatype, shape, field="x")


@pytest.mark.parametrize(
    ("values", "datatype", "sentence"),
    [([300], "UINT8", "x.contents: expected values of UINT8"), ([1, 2], "INT64", "expected 1 elements for .* got 2")],
)
def test_typed_contents_that_do_not_fit_are_refused(values: list[int], datatype: str, sentence: str) -> None:
    """A value outside its type is not wrapped round."""
    with pytest.raises(InvalidError, match=sentence):
        tensor.from_values(values, datatype, (1,), field="x")


class Values(Sequence[int]):
    """Many values that remember how many were asked for at once."""

    def __init__(self, count: int) -> None:
        self.number = count
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, which: Any) -> Any:
        found = range(self.number)[which]
        self.asked.append(len(found))
        return list(found)


def test_typed_contents_are_read_piece_by_piece() -> None:
    """So that other threads have the interpreter in between; all of them are read."""
    values = Values(100_001)
    found = tensor.from_values(values, "INT32", (1, 100_001), field="x")
    assert np.array_equal(found, np.arange(100_001).reshape(1, -1))
    assert max(values.asked) <= 20_000
    assert sum(values.asked) == 100_001


def test_typed_contents_that_are_too_many_are_not_read() -> None:
    """Their count is enough."""
    values = Values(100_001)
    with pytest.raises(InvalidError, match=r"expected 3 elements for .* got 100001"):
        tensor.from_values(values, "INT32", (1, 3), field="x")
    assert values.asked == []


def test_a_type_that_no_name_stands_for_is_refused() -> None:
    """Complex numbers, say."""
    with pytest.raises(InvalidError, match="complex64"):
        tensor.datatype_of(np.zeros(1, np.complex64))
