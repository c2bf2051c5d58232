"""Rows of plain requests come together unchanged, wherever they are put; and who has NaN among them is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur import kserve
from gateway import plain_infer
from gateway.intake import Intake
from gateway.joining import joined, with_nan
from gateway.metrics import Metrics
from gateway.model import Model
from gateway.question import learnt
from gateway.quick import Fit, QuickJob
from gateway.tensor import Array
from tests.live_gateway import told


class Call:
    """Only its bytes are looked at."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


def asked(*arrays: Array, alike: bool = True) -> list[QuickJob]:
    """A plain request for each array of rows; where they are not `alike`, of a question of its own."""
    wording: Any = None
    made: dict[Any, tuple[Any, Fit]] = {}
    jobs = []
    for number, rows in enumerate(arrays):
        message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[rows.tobytes()])
        message.inputs.add(name="x", datatype="FP32", shape=rows.shape)
        payload = message.SerializeToString()
        key = rows.shape if alike else number
        if key not in made:
            question = learnt(payload, message, plain_infer.FORM)
            assert question is not None
            intake = Intake(inputs=(), batched=True, preprocess=None, forbid_nan=True, rows_max=64)
            fit = Fit(intake=intake, rows=len(rows), dtype=rows.dtype, row=rows.shape[1:], group=("plain",))
            made[key] = question, fit
        call: Any = Call(payload)
        jobs.append(QuickJob(call, *made[key], "client", wording, Metrics()))
    return jobs


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("width", [3, 2_000])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_are_joined_in_order(tmp_path: Path, count: int, width: int, alike: bool) -> None:
    """Small or large, in a slab of a model's or not, of one question or of several."""
    path = tmp_path / "model.onnx"
    path.write_bytes(told(1, width=width))
    model = Model.load(path, device="cpu", threads=1)
    parts = [np.random.default_rng(number).random((2, width), np.float32) for number in range(count)]
    jobs, slab = asked(*parts, alike=alike), model.slab(2 * count)
    assert (slab is None) == (width > 3)
    for given in (None, slab):
        (array,) = joined(jobs, given).values()
        np.testing.assert_array_equal(array, np.concatenate(parts))
        assert (slab is not None and array is slab.input) == (given is not None)


def test_a_slab_for_other_rows_is_left_alone(tmp_path: Path) -> None:
    """What the bytes mean is for the request to say."""
    path = tmp_path / "model.onnx"
    path.write_bytes(told(1, width=4))
    slab = Model.load(path, device="cpu", threads=1).slab(1)
    assert slab is not None
    (array,) = joined(asked(np.ones((1, 2, 2), np.float32)), slab).values()
    assert array.shape == (1, 2, 2)
    assert not slab.input.any()


@pytest.mark.parametrize("width", [3, 300])
@pytest.mark.parametrize("bad", [(), (0,), (2,), (1, 3)])
def test_who_has_nan_is_found(bad: tuple[int, ...], width: int) -> None:
    """And nobody else: infinities of both signs in one row are no NaN."""
    parts = [np.ones((2, width), np.float32) for _ in range(4)]
    for part in parts:
        part[1, :2] = np.inf, -np.inf
    for number in bad:
        parts[number][0, 2] = np.nan
    jobs = asked(*parts)
    assert with_nan(np.concatenate(parts), jobs) == [jobs[number] for number in bad]
