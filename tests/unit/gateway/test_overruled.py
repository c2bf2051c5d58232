"""Where a person's answer takes the place of the model's, and where it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fallback.answer import Label
from fallback.deferral import Outcome, Source
from gateway.overruled import overruled
from gateway.request import Result
from gateway.tensor import Array

SCORES = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3]], np.float32)


def said(output: Array, label: str, *, labels: tuple[str, ...] = ("a", "b", "c")) -> list[Any]:
    """What an output beside the scores says where a person answered the second row with `label`."""
    decisions: Any = SimpleNamespace(predicted=np.array([0, 0]))
    outputs = {"p": SCORES, "o": output}
    result = Result(
        model="m", version="1", labels=labels, outputs=outputs, rows=2, decisions=decisions, answer_output="p"
    )
    outcome = Outcome(source=Source.PERSON, answer=Label(label), reviewed=True, create_time=0.0)
    deferral: Any = SimpleNamespace(name="queues/q/deferrals/1", outcome=outcome)
    found = overruled(result, {1: deferral})
    assert found["p"].tolist() == [SCORES[0].tolist(), [float(each == label) for each in labels]]
    assert found["o"].shape == output.shape
    assert found["o"].dtype == output.dtype
    assert SCORES[1, 0] == np.float32(0.4), "what the model said stays as it was"
    everything: list[Any] = found["o"].tolist()
    return everything


@pytest.mark.parametrize(
    ("labels", "output", "label", "expected"),
    [
        ("abc", np.array(["a", "a"], object), "c", ["a", "c"]),
        ("abc", np.array([["a"], ["a"]], object), "b", [["a"], ["b"]]),
        ("abc", np.array([0, 0], np.int64), "c", [0, 2]),
        ("375", np.array([3, 3], np.int32), "5", [3, 5]),
        ("012", np.array([0, 0], np.uint8), "2", [0, 2]),
        ("102", np.array([1, 1], np.int64), "2", [1, 2]),
    ],
)
def test_an_output_that_names_the_label_names_the_persons(
    labels: str, output: Array, label: str, expected: list[Any]
) -> None:
    """By its text, by its place among the labels, or, where labels are numbers, by that number."""
    assert said(output, label, labels=tuple(labels)) == expected


@pytest.mark.parametrize(
    "output",
    [
        np.array(["a", "zebra"], object),
        np.array([0, 7], np.int64),
        np.array([0.0, 0.0], np.float32),
        np.array([[0, 0], [0, 0]], np.int64),
        np.array([True, False]),
    ],
)
def test_any_other_output_is_the_models_own(output: Array) -> None:
    """Whatever it says."""
    assert said(output, "c") == output.tolist()


def test_a_label_that_is_no_number_is_not_made_one() -> None:
    """The model's stays where nothing of its kind could stand for the answer."""
    assert said(np.array([1, 1], np.int64), "none", labels=("1", "none", "x")) == [1, 1]
