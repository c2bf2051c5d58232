"""What a reviewer sees of a request that came as tensors alone."""

from __future__ import annotations

import msgspec
import numpy as np

from gateway.slip import shown


def test_numbers_are_shown_as_they_were_meant() -> None:
    """A tenth in 32 bits is a tenth, not what 64 bits make of it."""
    subject = shown({"x": np.array([[0.1, 2.5]], np.float32), "n": np.array([[7]], np.int64)})
    assert subject.media_type == "application/json"
    assert msgspec.json.decode(subject.content) == {
        "x": {"datatype": "FP32", "shape": [1, 2], "values": [[0.1, 2.5]]},
        "n": {"datatype": "INT64", "shape": [1, 1], "values": [[7]]},
    }


def test_a_large_tensor_is_named_and_not_shown() -> None:
    """Nobody reads a million numbers."""
    subject = shown({"x": np.zeros((1000, 1000), np.float32)})
    assert msgspec.json.decode(subject.content) == {"x": {"datatype": "FP32", "shape": [1000, 1000]}}
