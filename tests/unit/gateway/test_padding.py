"""What is filled up is cut back, to what it would have been alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import InvalidError
from gateway.batching import Padding
from gateway.champion import warm_shapes
from gateway.intake import Intake, join, prepare
from gateway.manifest import TensorSpec
from gateway.model import Model
from gateway.padding import cut, free, pad
from gateway.request import Request
from tests.onnx_files import save, tokens_of

PADDING = Padding(axis=1, sizes=(4, 8), value=1.5)
TOKENS = TensorSpec(name="x", datatype="FP32", shape=(-1, -1, 3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("padding") / "tokens.onnx"
    return Model.load(save(tokens_of(), path), device="cpu", threads=1)


def _intake(*specs: TensorSpec, padding: Padding | None = PADDING) -> Intake:
    return Intake(inputs=specs, batched=True, preprocess=None, forbid_nan=True, rows_max=16, padding=padding)


def _request(array: np.ndarray) -> Request:
    return Request(model="m", client="c", request_key="k", tensors={"x": array})


@given(size=st.integers(1, 12), rows=st.integers(1, 3))
def test_an_input_is_filled_up_to_the_next_size(size: int, rows: int) -> None:
    """What is larger than all of them, or is one of them, stays; every type has a value to fill up with."""
    for dtype in (np.float32, np.int64, np.bool_, object):
        array = np.full((rows, size, 3), "a" if dtype is object else 1, dtype)
        padded, before = pad({"x": array}, ["x"], PADDING)
        expected = next((each for each in PADDING.sizes if each >= size), size)
        assert padded["x"].shape == (rows, expected, 3)
        assert padded["x"].dtype == array.dtype
        assert before == (None if expected == size else size)
        assert np.array_equal(cut(padded, ["x"], 1, size)["x"], array)


def test_requests_of_different_sizes_run_together_and_get_what_they_got_alone(model: Model) -> None:
    """Bit for bit."""
    intake, draw = _intake(*model.signature.inputs), np.random.default_rng(0)
    arrays = [draw.normal(size=(rows, size, 3)).astype(np.float32) for rows, size in ((1, 5), (2, 8), (1, 7))]
    prepared = [prepare(_request(array), intake, pixels_max=0) for array in arrays]
    assert len({each.shape for each in prepared}) == 1
    outputs, first = model.run(join(prepared)), 0
    for array, each in zip(arrays, prepared, strict=True):
        own = {"y": outputs["y"][first : first + each.rows]}
        if each.size is not None:
            own = cut(own, free(model.signature.outputs, PADDING), 1, each.size)
        assert own["y"].tobytes() == model.run({"x": array})["y"].tobytes()
        first += each.rows


def test_inputs_of_several_sizes_are_named() -> None:
    """It would not be known what to cut back to."""
    arrays = {"a": np.zeros((1, 3)), "b": np.zeros((1, 2))}
    with pytest.raises(InvalidError, match=r"same size of axis 1 in each, got {'a': 3, 'b': 2}"):
        pad(arrays, ["a", "b"], PADDING)


def test_every_size_is_warmed_up() -> None:
    """Unless another axis is free as well."""
    assert warm_shapes(_intake(TOKENS)) == [{"x": (4, 3)}, {"x": (8, 3)}]
    assert warm_shapes(_intake(TOKENS, padding=None)) == [{}]
    assert warm_shapes(_intake(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)))) == [{}]
    assert warm_shapes(_intake(TensorSpec(name="x", datatype="FP32", shape=(-1, -1, -1)))) == [{}]
