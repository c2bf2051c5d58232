"""Requests that are made up from what a server declares."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.serve import requests
from benchmarks.serve.requests import Given
from benchmarks.serve.results import Tensor
from demur import kserve
from fallback.errors import InvalidError

IMAGE = Tensor(name="x", datatype="FP32", declared=(-1, 3, 4, 4))
FIXED = Tensor(name="f", datatype="INT64", declared=(1, 5))
TEXT = Tensor(name="t", datatype="INT64", declared=(-1, -1))


def test_a_shape_is_read() -> None:
    """With a datatype where one is said; a colon in a name is part of it."""
    assert requests.given("x=1,3,224,224") == Given("x", "", (1, 3, 224, 224))
    assert requests.given("x:FP32=8, 5") == Given("x", "FP32", (8, 5))
    assert requests.given("serving:x:0=2") == Given("serving:x:0", "", (2,))
    assert requests.given("scalar=") == Given("scalar", "", ())


@pytest.mark.parametrize("said", ["x", "=1,2", "x=1,-1", "x=0", "x=a", "x=1,,2"])
def test_a_shape_that_is_none_is_refused(said: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidError, match="--shape: expected NAME=1,3,224,224"):
        requests.given(said)


def test_free_first_axes_hold_the_rows() -> None:
    """One unless said, or what a shape says."""
    assert requests.inputs([IMAGE], [], None)[0].sent == (1, 3, 4, 4)
    assert requests.inputs([IMAGE, FIXED], [], 8)[0].sent == (8, 3, 4, 4)
    many = requests.inputs([TEXT, FIXED], [Given("t", "", (4, 7))], None)
    assert [each.sent for each in many] == [(4, 7), (1, 5)]
    assert requests.rows_of(many, None) == 4
    assert requests.rows_of(requests.inputs([FIXED], [], None), None) == 1


@pytest.mark.parametrize(
    ("declared", "shapes", "rows", "said"),
    [
        ([TEXT], [], None, r"input 't': expected --shape t=... since axes 1 of \[-1, -1\] are free"),
        ([IMAGE], [Given("x", "", (1, 3, 4))], None, r"--shape x: expected \[-1, 3, 4, 4\] .* got \[1, 3, 4\]"),
        ([IMAGE], [Given("x", "", (1, 1, 4, 4))], None, r"--shape x: expected .* got \[1, 1, 4, 4\]"),
        ([IMAGE], [Given("x", "FP16", (1, 3, 4, 4))], None, "--shape x: expected datatype FP32, got FP16"),
        ([IMAGE], [Given("y", "", (1,))], None, r"--shape y: expected an input of the model \(x\), got 'y'"),
        ([IMAGE], [Given("x", "", (2, 3, 4, 4))], 3, "--shape x: expected a first axis of --rows 3, got 2"),
        ([IMAGE], [Given("x", "", (65536, 3, 4, 4))], None, ""),
        ([TEXT], [Given("t", "", (65536, 65536))], None, "input 't': expected at most"),
        (
            [Tensor(name="x", datatype="FP8", declared=(1,))],
            [],
            None,
            "input 'x': expected a datatype of BOOL, .*'FP8'",
        ),
        ([], [], None, "does not declare the model's inputs: expected --shape NAME:DATATYPE=1,3,224,224 .* got none"),
        ([], [Given("x", "", (1,))], None, "got 'x' without its datatype"),
        ([], [Given("x", "FP32", (2, 3))], 4, "--shape x: expected a first axis of --rows 4, got 2"),
    ],
)
def test_what_does_not_fit_is_named(declared: list[Tensor], shapes: list[Given], rows: int | None, said: str) -> None:
    """With the field, what was expected and what was got."""
    if not said:
        assert requests.inputs(declared, shapes, rows)
        return
    with pytest.raises(InvalidError, match=said):
        requests.inputs(declared, shapes, rows)


def test_rows_of_a_model_that_takes_none_are_refused() -> None:
    """Rather than sent as something else."""
    with pytest.raises(InvalidError, match=r"--rows 4: expected a model with a free first axis, got f \[1, 5\]"):
        requests.rows_of(requests.inputs([FIXED], [], 4), 4)


def test_what_a_server_does_not_declare_is_given() -> None:
    """By name, datatype and shape; its first axis holds the samples only where that is said."""
    (one,) = requests.inputs([], [Given("x", "FP32", (2, 3))], None)
    assert (one.datatype, one.sent, requests.rows_of([one], None)) == ("FP32", (2, 3), 1)
    (one,) = requests.inputs([], [Given("x", "FP32", (2, 3))], 2)
    assert (one.declared, one.sent, requests.rows_of([one], 2)) == ((-1, 3), (2, 3), 2)


@pytest.mark.parametrize("datatype", sorted(requests._KINDS))
def test_every_datatype_has_as_many_bytes_as_the_protocol_says(datatype: str) -> None:
    """Raw, and typed where there is a field for it; the same numbers from the same seed."""
    tensors = requests.inputs([Tensor(name="x", datatype=datatype, declared=(-1, 3))], [], 2)
    raw = kserve.ModelInferRequest.FromString(requests.message("m", tensors, seed=1, raw=True))
    assert (raw.model_name, list(raw.inputs[0].shape), raw.inputs[0].datatype) == ("m", [2, 3], datatype)
    (content,) = raw.raw_input_contents
    assert raw.SerializeToString() == requests.message("m", tensors, seed=1, raw=True)
    if datatype == "BYTES":
        size = int.from_bytes(content[:4], "little")
        assert content[4 : 4 + size].startswith(b"word ")
    else:
        width = {"BOOL": 1, "BF16": 2, "FP16": 2, "FP32": 4, "FP64": 8}.get(datatype)
        assert len(content) == 6 * (width or int(datatype.lstrip("UINT")) // 8)
    if not requests.typed(tensors):
        assert datatype in {"FP16", "BF16"}
        return
    typed = kserve.ModelInferRequest.FromString(requests.message("m", tensors, seed=1, raw=False))
    assert not typed.raw_input_contents
    (field,) = typed.inputs[0].contents.ListFields()
    assert len(field[1]) == 6


def test_brain_floats_are_the_upper_half_of_floats() -> None:
    """To within their eight bits."""
    (tensor,) = requests.inputs([Tensor(name="x", datatype="BF16", declared=(100,))], [], None)
    made = kserve.ModelInferRequest.FromString(requests.message("m", [tensor], seed=1, raw=True))
    halves = np.frombuffer(made.raw_input_contents[0], "<u2").astype("<u4") << 16
    whole = np.random.default_rng(1).standard_normal(100).astype("<f4")
    assert np.allclose(halves.view("<f4"), whole, rtol=0.01)
