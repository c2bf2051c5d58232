"""A run in a slab gives what any other run gives, and what it gives does not change afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fallback.errors import InvalidError, StateError
from gateway.model import Model
from gateway.slabs import Slab
from gateway.tensor import Array
from tests.live_gateway import echo, table, told

ROWS_MAX = 32


def loaded(folder: Path, content: bytes, *, bind: bool | None = None) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Model.load(path, device="cpu", threads=1, bind=bind)


def run_in_slab(model: Model, array: Array) -> dict[str, Array]:
    slab = model.slab(len(array))
    assert slab is not None
    assert slab.takes(array.dtype, array.shape[1:])
    slab.content[:] = array.tobytes()
    return model.run({"x": slab.input}, slab)


def test_a_run_in_a_slab_gives_what_any_run_gives(tmp_path: Path) -> None:
    """For each number of rows, and once more in the same room; what was found before stays as it was."""
    model, other = loaded(tmp_path, told(3)), loaded(tmp_path, told(3), bind=False)
    kept: list[tuple[dict[str, Array], dict[str, Array]]] = []
    for rows in (1, 2, ROWS_MAX, 1, 2):
        x = np.random.default_rng(len(kept)).random((rows, 3), np.float32)
        kept.append((run_in_slab(model, x), other.run({"x": x})))
    for found, expected in kept:
        np.testing.assert_equal(found, expected)
    assert model.slab(ROWS_MAX + 1) is None


def test_each_thread_has_its_own(tmp_path: Path) -> None:
    """Runs at a time do not write into each other's room."""
    model, found = loaded(tmp_path, told(3)), [object()]
    thread = threading.Thread(target=lambda: found.append(model.slab(1)))
    thread.start()
    thread.join()
    assert model.slab(1) is model.slab(1)
    assert found[1] is not None
    assert found[1] is not model.slab(1)


@pytest.mark.parametrize(
    "content",
    [
        echo(s=TensorProto.STRING),
        echo(x=TensorProto.FLOAT, i=TensorProto.INT64),
        told(1, width=1_024),
    ],
)
def test_what_has_none(tmp_path: Path, content: bytes) -> None:
    """Texts, several inputs, and large rows."""
    assert loaded(tmp_path, content).slab(1) is None


def test_a_slab_takes_rows_of_its_own_type_and_shape(tmp_path: Path) -> None:
    """And no others, whose bytes might be as many."""
    slab = loaded(tmp_path, told(1)).slab(2)
    assert slab is not None
    assert slab.takes(np.dtype(np.float32), (3,))
    assert not slab.takes(np.dtype(np.int32), (3,))
    assert not slab.takes(np.dtype(np.float32), (3, 1))


def test_an_input_that_fails_is_told_as_ever_and_costs_nobody_the_slab(tmp_path: Path) -> None:
    """What is wrong is the caller's."""
    model = loaded(tmp_path, table())
    slab = model.slab(1)
    assert slab is not None
    slab.input[0] = 7
    with pytest.raises(InvalidError, match="inputs: the model cannot be run on them"):
        model.run({"i": slab.input}, slab)
    slab.input[0] = 1
    assert model.run({"i": slab.input}, slab)["y"].tolist() == [[3, 4]]
    assert model.slab(1) is slab


def test_a_run_that_fails_by_chance_costs_nobody_the_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once more, without."""
    model = loaded(tmp_path, told(1))
    slab = model.slab(2)
    assert slab is not None

    def fail(_: Slab) -> dict[str, Array]:
        raise RuntimeError("no memory now")

    with monkeypatch.context() as failing:
        failing.setattr(Slab, "run", fail)
        found = run_in_slab(model, np.ones((2, 3), np.float32))
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in run_in_slab(model, np.ones((2, 3), np.float32)).items()
    }
    assert model.slab(2) is slab


def test_where_every_run_in_a_slab_fails_the_model_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few: each would be made twice for good."""
    model, tried = loaded(tmp_path, told(1)), list[Slab]()

    def fail(slab: Slab) -> dict[str, Array]:
        tried.append(slab)
        raise RuntimeError("never")

    monkeypatch.setattr(Slab, "run", fail)
    while model.slab(1) is not None:
        assert run_in_slab(model, np.ones((1, 3), np.float32))
    assert 1 < len(tried) < 20


def test_a_model_that_gives_other_shapes_than_it_says_is_run_without(tmp_path: Path) -> None:
    """From the first time on; its answer is what it always was."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[0], keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL),
        helper.make_node("Compress", ["x", "any"], ["some"], axis=1),
    ]
    model = loaded(tmp_path, some(nodes))
    assert run_in_slab(model, np.ones((1, 3), np.float32))["some"].tolist() == [[1, 1, 1]]
    assert model.slab(1) is not None
    assert run_in_slab(model, np.array([[1, 0, 1]], np.float32))["some"].tolist() == [[1, 1]]
    assert model.slab(1) is None


def test_inputs_for_which_a_model_gives_other_rows_cost_nobody_the_slab(tmp_path: Path) -> None:
    """However many: they are refused."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL),
        helper.make_node("Compress", ["x", "any"], ["some"], axis=0),
    ]
    model = loaded(tmp_path, some(nodes))
    slab = model.slab(1)
    for _ in range(50):
        assert run_in_slab(model, np.zeros((1, 3), np.float32))["some"].tolist() == []
    assert run_in_slab(model, np.ones((1, 3), np.float32))["some"].tolist() == [[1, 1, 1]]
    assert model.slab(1) is slab is not None


def some(nodes: list[onnx.NodeProto]) -> bytes:
    """A model that says of `x` and of `some` that they are (rows, 3)."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in ("x", "some")]
    graph = helper.make_graph(nodes, "some", tensors[:1], tensors[1:])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = whole.SerializeToString()
    return content


def test_a_closed_model_has_none(tmp_path: Path) -> None:
    """And runs none that is held still."""
    model = loaded(tmp_path, told(1))
    slab = model.slab(1)
    model.close()
    assert model.slab(1) is None
    with pytest.raises(StateError):
        model.run({}, slab)
