"""A model runs as ONNX Runtime runs it, and says what it really runs on."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from fallback.errors import ConfigError, InvalidError, StateError
from gateway import model as models
from gateway.model import CPU, CUDA, TENSORRT, Model, pick_providers, probe
from gateway.tensor import Array
from tests.live_gateway import echo, told
from tests.onnx_files import model_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "model.onnx"
    found.write_bytes(told(3))
    return found


def test_a_model_knows_its_signature(path: Path) -> None:
    """By KServe's names, -1 for any size."""
    model = Model.load(path, device="cpu")
    assert [(spec.name, spec.datatype, spec.shape) for spec in model.signature.inputs] == [("x", "FP32", (-1, 3))]
    assert [spec.name for spec in model.signature.outputs] == ["p", "v"]
    assert model.provider == CPU


@pytest.mark.parametrize("bind", [True, False])
def test_runs_take_arrays_of_any_layout(path: Path, bind: bool) -> None:
    """Bound, as on a GPU, or not; read-only, strided, and of different rows one after the other."""
    model = Model.load(path, device="cpu", bind=bind)
    for rows in (1, 5, 2):
        x = np.asfortranarray(np.random.default_rng(rows).random((rows, 6), np.float32))[:, ::2]
        x.flags.writeable = False
        found = model.run({"x": x})
        assert np.array_equal(found["p"], x)
        assert found["v"].tolist() == [[3]] * rows


def test_a_model_with_texts_runs_too(tmp_path: Path) -> None:
    """Though ONNX Runtime cannot bind them; NUL and any script survive."""
    path = tmp_path / "texts.onnx"
    path.write_bytes(echo(s=TensorProto.STRING, i=TensorProto.INT64))
    model = Model.load(path, device="cpu")
    texts = np.array([["a\0b", "é漢"]], object)
    found = model.run({"s": texts, "i": np.array([[1, 2]])})
    assert (found["s_out"] == texts).all()
    assert found["i_out"].tolist() == [[1, 2]]


def test_warming_up_runs_every_bucket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the first real batch of a size is not slow."""
    model = Model.load(path, device="cpu")
    ran: list[int] = []
    run = model.run

    def counted(feeds: dict[str, Array]) -> dict[str, Array]:
        ran.append(len(feeds["x"]))
        return run(feeds)

    monkeypatch.setattr(model, "run", counted)
    model.warm_up([1, 2, 4])
    assert ran == [1, 2, 4]


def test_made_up_inputs_that_do_not_fit_keep_no_session(tmp_path: Path) -> None:
    """Where axes are free, sizes that fail are tried first; once closed the session is gone, without the collector."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "any"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        initializer=[numpy_helper.from_array(np.ones((8, 2), np.float32), "w")],
    )
    path = tmp_path / "free.onnx"
    path.write_bytes(model_of(graph).SerializeToString())
    model = Model.load(path, device="cpu")
    session = weakref.ref(model._session)
    gc.disable()
    try:
        model.warm_up([1])
        model.close()
        assert session() is None
    finally:
        gc.enable()


def test_a_closed_model_says_so(path: Path) -> None:
    """Rather than crash."""
    model = Model.load(path, device="cpu")
    model.close()
    with pytest.raises(StateError, match=r"model.onnx: the model is closed"):
        model.run({"x": np.zeros((1, 3), np.float32)})


def test_a_file_that_is_no_model_is_invalid(tmp_path: Path) -> None:
    """By its name, without its folder."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(InvalidError, match=r"^model.onnx: ONNX Runtime does not load it") as caught:
        Model.load(path, device="cpu")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("available", "gpus", "expected"),
    [([CPU], 0, [CPU]), ([CPU], 1, [CPU]), ([CUDA, CPU], 0, [CPU]), ([CUDA, CPU], 2, [CUDA, CPU])],
)
def test_auto_takes_what_is_there(available: list[str], gpus: int, expected: list[str]) -> None:
    """A GPU wheel without a GPU is the CPU."""
    assert pick_providers("auto", available, gpus=gpus) == expected
    assert pick_providers("cpu", available, gpus=gpus) == [CPU]


def test_tensorrt_comes_first_where_its_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime offers it on every machine; the library is what tells."""
    offered = [TENSORRT, CUDA, CPU]
    monkeypatch.setattr(models, "_library", lambda _: None)
    assert pick_providers("auto", offered, gpus=1) == [CUDA, CPU]
    monkeypatch.setattr(models, "_library", lambda _: object())
    assert pick_providers("auto", offered, gpus=1) == offered


@pytest.mark.parametrize(
    ("available", "gpus", "missing"),
    [([CPU], 1, "install onnxruntime-gpu in place of onnxruntime"), ([CUDA, CPU], 0, "no NVIDIA GPU")],
)
def test_cuda_that_cannot_be_had_is_refused(available: list[str], gpus: int, missing: str) -> None:
    """With what is missing."""
    with pytest.raises(ConfigError, match=missing):
        pick_providers("cuda", available, gpus=gpus)


@pytest.mark.skipif(models.count_gpus() > 0, reason="here the CUDA provider does load")
def test_a_session_that_fell_back_to_the_cpu_in_silence_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself does the falling back: it is told of a GPU that is not there."""
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    monkeypatch.setattr(models, "count_gpus", lambda: 1)
    for start in (lambda: Model.load(path, device="cuda"), lambda: probe("cuda")):
        with pytest.raises(ConfigError, match="got only CPUExecutionProvider: the CUDA provider did not load"):
            start()
    assert probe("auto") == CPU


def divides(tmp_path: Path) -> Model:
    """A model whose only node fails where its input has a 0: one divided by it."""
    graph = helper.make_graph(
        [helper.make_node("Div", ["one", "x"], ["y"])],
        "divides",
        [helper.make_tensor_value_info("x", TensorProto.INT32, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", 3])],
        initializer=[numpy_helper.from_array(np.array(1, np.int32), "one")],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(graph).SerializeToString())
    return Model.load(path, device="cpu", threads=1)


def test_input_that_makes_a_node_fail_is_the_callers_fault(tmp_path: Path) -> None:
    """In a slab and without; the next run is as ever."""
    model = divides(tmp_path)
    slab = model.slab(1)
    assert slab is not None
    slab.input[:] = 0
    for room in (None, slab):
        with pytest.raises(InvalidError, match=r"inputs: the model cannot be run on them: .*division by zero"):
            model.run({"x": slab.input}, room)
    assert model.run({"x": np.ones((1, 3), np.int32)})["y"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("kind", [ort_errors.Fail, ort_errors.RuntimeException, RuntimeError])
@pytest.mark.parametrize(
    "said",
    ["Failed to allocate memory for requested buffer of size 64", "std::bad_alloc", "CUDA failure 2: out of memory"],
)
def test_what_the_machine_lacks_is_nobodys_fault(tmp_path: Path, kind: type[Exception], said: str) -> None:
    """It is raised as it is, whatever the type of the error."""

    class Session:
        def run(self, *_: object) -> None:
            raise kind(f"Non-zero status code returned while running Div node. {said}")

    model = divides(tmp_path)
    model._session = Session()
    with pytest.raises(kind, match=said):
        model.run({"x": np.ones((1, 3), np.int32)})


@pytest.mark.parametrize("kind", [ort_errors.Fail, ort_errors.RuntimeException])
def test_a_run_that_fails_otherwise_is_the_callers_fault(tmp_path: Path, kind: type[Exception]) -> None:
    """Nodes fail in two ways."""

    class Session:
        def run(self, *_: object) -> None:
            raise kind("Non-zero status code returned while running Reshape node")

    model = divides(tmp_path)
    model._session = Session()
    with pytest.raises(InvalidError, match="cannot be run on them: Non-zero status code"):
        model.run({"x": np.ones((1, 3), np.int32)})
