"""What a reviewer sees of a request that came as tensors alone."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.slip import _readable, shown


def test_numbers_are_shown_as_they_were_meant() -> None:
    """A tenth in 32 bits is a tenth, not what 64 bits make of it."""
    subject = shown({"x": np.array([[0.1, 2.5]], np.float32), "n": np.array([[7]], np.int64)})
    assert subject.media_type == "application/json"
    assert msgspec.json.decode(subject.content) == {
        "x": {"datatype": "FP32", "shape": [1, 2], "values": [[0.1, 2.5]]},
        "n": {"datatype": "INT64", "shape": [1, 1], "values": [[7]]},
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floats_are_shown_as_their_texts(dtype: type) -> None:
    """Of any size and sign, zeros and those that are no numbers among them."""
    draw = np.random.default_rng(1)
    width = np.dtype(dtype).itemsize
    for count in (1, 7, 1_000):
        anything: Any = draw.integers(0, 1 << 8 * width, size=count, dtype=f"u{width}").view(dtype)
        for given in map(np.asarray, (draw.normal(size=count).astype(dtype), anything, np.zeros(count, dtype))):
            with np.errstate(invalid="ignore"):
                found, wanted = _readable(given), given.astype(np.str_).astype(np.float64)
            assert np.array_equal(found, wanted, equal_nan=True)


def test_a_large_tensor_is_named_and_not_shown() -> None:
    """Nobody reads a million numbers."""
    subject = shown({"x": np.zeros((1000, 1000), np.float32)})
    assert msgspec.json.decode(subject.content) == {"x": {"datatype": "FP32", "shape": [1000, 1000]}}
