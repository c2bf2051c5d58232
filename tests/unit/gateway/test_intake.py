"""What fits a version's inputs is prepared, whole batches are one copy, and what does not fit is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fallback.answer import Subject
from fallback.errors import InvalidError
from gateway.intake import Intake, Prepared, join, prepare
from gateway.manifest import Preprocess, TensorSpec
from gateway.request import Request, request_key
from gateway.tensor import Array

TWO = Intake(
    inputs=(TensorSpec(name="a", datatype="FP32", shape=(-1, 2)), TensorSpec(name="b", datatype="INT64", shape=(-1,))),
    batched=True,
    preprocess=None,
    forbid_nan=True,
    rows_max=4,
)
FIXED = Intake(
    inputs=(TensorSpec(name="a", datatype="FP32", shape=(1, 2)),),
    batched=False,
    preprocess=Preprocess(kind="json"),
    forbid_nan=False,
    rows_max=1,
)


def _prepare(
    intake: Intake, arrays: dict[str, Array], *, subject: Subject | None = None, one_row: bool = False
) -> Prepared:
    request = Request(
        model="m", client="c", request_key=request_key("c", ""), tensors=arrays, subject=subject, one_row=one_row
    )
    return prepare(request, intake, pixels_max=100)


def _two(rows: int, *, value: float = 0.0) -> dict[str, Array]:
    return {"b": np.arange(rows), "a": np.full((rows, 2), value, np.float32)}


def test_rows_are_counted_and_inputs_put_in_the_models_order() -> None:
    """Whatever order they came in."""
    found = _prepare(TWO, _two(3))
    assert (found.rows, list(found.arrays), found.shape) == (3, ["a", "b"], ((2,), ()))


def test_a_batch_is_the_rows_of_all_in_order() -> None:
    """And a lone request is not copied."""
    first, second = _prepare(TWO, _two(1, value=1)), _prepare(TWO, _two(2, value=2))
    joined = join([first, second])
    assert joined["a"].tolist() == [[1, 1], [2, 2], [2, 2]]
    assert joined["b"].tolist() == [0, 0, 1]
    assert join([first])["a"] is first.arrays["a"]


def test_of_many_inputs_those_that_are_wrong_are_named() -> None:
    """However many there are, the sentence does not end before it says what came."""
    specs = tuple(TensorSpec(name=f"a long name {number}", datatype="FP32", shape=(-1, 2)) for number in range(200))
    given = {spec.name: np.zeros((1, 2), np.float32) for spec in specs}
    intake = replace(TWO, inputs=specs)
    wrong = {"another" if name == "a long name 150" else name: array for name, array in given.items()}
    with pytest.raises(InvalidError) as caught:
        _prepare(intake, wrong)
    assert caught.value.message == (
        "inputs: expected 200, of which a long name 150 (FP32 [-1, 2]) is not there; got 'another' beside them"
    )
    with pytest.raises(InvalidError, match="got 1 in 'a long name 199', 2 in 'a long name 7'"):
        _prepare(intake, given | {"a long name 7": np.zeros((2, 2), np.float32)})


def test_inputs_must_have_as_many_rows() -> None:
    """Each as the others."""
    with pytest.raises(InvalidError, match="as many rows in each, got 2 in 'a', 1 in 'b'"):
        _prepare(TWO, {"a": np.zeros((2, 2), np.float32), "b": np.zeros(1, np.int64)})


def test_one_row_may_come_with_or_without_its_axis() -> None:
    """As Predict takes it."""
    bare = _prepare(TWO, {"a": np.zeros(2, np.float32), "b": np.array(7)}, one_row=True)
    assert (bare.rows, bare.arrays["a"].shape, bare.arrays["b"].tolist()) == (1, (1, 2), [7])
    assert _prepare(TWO, _two(1), one_row=True).rows == 1
    with pytest.raises(InvalidError, match="expected one row, got 2"):
        _prepare(TWO, _two(2), one_row=True)


def test_a_model_without_an_axis_of_rows_takes_one_request_a_run() -> None:
    """Its arrays as they are."""
    found = _prepare(FIXED, {"a": np.zeros((1, 2), np.float32)})
    assert (found.rows, found.arrays["a"].shape) == (1, (1, 2))
    subject = Subject(content=b"[1, 2]", media_type="application/json")
    assert _prepare(FIXED, {}, subject=subject).arrays["a"].tolist() == [[1, 2]]
    with pytest.raises(InvalidError, match=r"expected \[1, 2\], got \[2, 2\]"):
        _prepare(FIXED, {"a": np.zeros((2, 2), np.float32)})


def test_nan_is_refused_where_the_model_forbids_it() -> None:
    """With how many there are, and where."""
    with pytest.raises(InvalidError, match=r"inputs\[a\]: expected numbers, got 2 NaN, the first at "):
        _prepare(TWO, _two(1, value=float("nan")))
    _prepare(FIXED, {"a": np.full((1, 2), np.nan, np.float32)})


def test_a_subject_is_read_for_one_input_only() -> None:
    """Of a model with two, the tensors must be sent."""
    with pytest.raises(InvalidError, match="a subject can be read for one input only"):
        _prepare(TWO, {}, subject=Subject(content=b"", media_type="image/png"))
