from __future__ import annotations

import numpy as np
import pytest

from demur.v1 import types_pb2 as pb
from fallback.errors import InvalidError
from gateway.manifest import TensorSpec
from trainer.examples import decode_inputs, encode_inputs, fingerprint

SPECS = (TensorSpec(name="x", datatype="FP32", shape=(-1, 2)), TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)))
ROW = {"x": np.array([[1, 2]], np.float32), "t": np.array([["é"]], dtype=object)}


def test_inputs_come_back_as_they_went() -> None:
    """Names, types, shapes and values, texts among them."""
    found = decode_inputs(encode_inputs(ROW), SPECS, batched=True)
    np.testing.assert_array_equal(found["x"], ROW["x"])
    assert found["t"].tolist() == [["é"]]


def test_the_same_inputs_have_the_same_bytes_in_any_order() -> None:
    """So that content-addressing knows them as one."""
    assert encode_inputs(ROW) == encode_inputs(dict(reversed(ROW.items())))


def test_a_fingerprint_is_of_the_numbers_not_of_their_wrapping() -> None:
    """A row stored without its axis of one, and tensors in another order, are the same input."""
    wrapped = pb.Tensors(
        tensors=[
            pb.Tensor(name="x", datatype="FP32", shape=[2], raw=ROW["x"].tobytes()),
            pb.Tensor(name="t", datatype="BYTES", shape=[1], raw=b"\x02\x00\x00\x00\xc3\xa9"),
        ]
    )
    bare = decode_inputs(wrapped.SerializeToString(), SPECS, batched=True)
    assert fingerprint(bare) == fingerprint(decode_inputs(encode_inputs(ROW), SPECS, batched=True))
    other = {**ROW, "x": ROW["x"] + 1}
    assert fingerprint(other) != fingerprint(bare)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xff", r"expected a demur\.v1\.Tensors"),
        (b"", "expected 'x', got none"),
        (encode_inputs({**ROW, "x": np.zeros((1, 3), np.float32)}), r"expected FP32 \[1, 2\], got FP32 \[1, 3\]"),
        (encode_inputs({**ROW, "x": np.zeros((2, 2), np.float32)}), r"expected FP32 \[1, 2\], got FP32 \[2, 2\]"),
        (encode_inputs({**ROW, "x": np.zeros((1, 2))}), r"expected FP32 \[1, 2\], got FP64 \[1, 2\]"),
    ],
)
def test_content_that_the_model_does_not_take_is_refused(content: bytes, sentence: str) -> None:
    """What was stored for another signature is named, not fed to the model."""
    with pytest.raises(InvalidError, match=sentence):
        decode_inputs(content, SPECS, batched=True)


def test_a_model_without_an_axis_of_rows_takes_its_shape_as_it_is() -> None:
    """Nothing is added or taken away."""
    spec = TensorSpec(name="x", datatype="FP32", shape=(2, 2))
    content = encode_inputs({"x": np.zeros((2, 2), np.float32)})
    assert decode_inputs(content, [spec], batched=False)["x"].shape == (2, 2)
