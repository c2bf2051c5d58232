"""An unmodified tritonclient, in the same process, gets what ONNX Runtime itself says."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from demur import kserve
from gateway import tensor
from tests.integration.gateway.conftest import MODELS
from tests.integration.gateway.tritons import SECONDS, inputs
from tests.live_gateway import SURE

NUMBERS = {
    "fp32": np.float32,
    "fp64": np.float64,
    "fp16": np.float16,
    "int64": np.int64,
    "int8": np.int8,
    "uint16": np.uint16,
    "bool": np.bool_,
}


def _reference() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODELS["echo"][0], providers=["CPUExecutionProvider"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rows=st.integers(1, 4))
def test_raw_contents_of_every_type_are_answered_as_onnx_runtime_answers(
    client: Any, data: st.DataObject, rows: int
) -> None:
    """Bit for bit, NaN included, whatever the values."""
    arrays = {name: data.draw(st_numpy.arrays(dtype, (rows, 2))) for name, dtype in NUMBERS.items()}
    texts = data.draw(st.lists(st.text(max_size=5), min_size=rows * 2, max_size=rows * 2))
    arrays["bytes"] = np.array(texts, object).reshape(rows, 2)
    result = client.infer("echo", inputs(**arrays), client_timeout=SECONDS)
    expected = dict(
        zip([f"{name}_out" for name in arrays], _reference().run([f"{n}_out" for n in arrays], arrays), strict=True)
    )
    for name in NUMBERS:
        assert result.as_numpy(f"{name}_out").tobytes() == expected[f"{name}_out"].tobytes()
    got = [value.decode() for value in result.as_numpy("bytes_out").ravel()]
    assert got == expected["bytes_out"].ravel().tolist()


def test_typed_contents_are_answered_as_raw_ones(stub: Any) -> None:
    """Of every type that has them; the reply is always raw."""
    request = service_pb2.ModelInferRequest(model_name="echo", id="seven")
    typed = {
        "fp32": ("FP32", "fp32_contents", [1.5, -2.0]),
        "fp64": ("FP64", "fp64_contents", [0.1, 1e300]),
        "int64": ("INT64", "int64_contents", [-(2**62), 3]),
        "int8": ("INT8", "int_contents", [-128, 127]),
        "uint16": ("UINT16", "uint_contents", [0, 65535]),
        "bool": ("BOOL", "bool_contents", [True, False]),
        "bytes": ("BYTES", "bytes_contents", [b"a", "é".encode()]),
    }
    for name, (datatype, field, values) in typed.items():
        each = request.inputs.add(name=name, datatype=datatype, shape=[1, 2])
        getattr(each.contents, field).extend(values)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=SECONDS)
    assert "fp16" in (caught.value.details() or "")  # the model wants it too; it has no typed contents
    each = request.inputs.add(name="fp16", datatype="FP16", shape=[1, 2])
    with pytest.raises(grpc.RpcError, match="FP16 has no typed contents"):
        stub.ModelInfer(request, timeout=SECONDS)


@pytest.mark.parametrize("model", ["plain", "m"])
def test_typed_and_raw_floats_give_the_same_reply(stub: Any, model: str) -> None:
    """Byte for byte in the outputs."""
    typed = service_pb2.ModelInferRequest(model_name=model, id="seven")
    each = typed.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    raw = service_pb2.ModelInferRequest()
    raw.CopyFrom(typed)
    each.contents.fp32_contents.extend(SURE.ravel().tolist())
    raw.raw_input_contents.append(SURE.tobytes())
    one, other = stub.ModelInfer(typed, timeout=SECONDS), stub.ModelInfer(raw, timeout=SECONDS)
    assert list(one.raw_output_contents) == list(other.raw_output_contents)
    assert one.raw_output_contents[0] == SURE.tobytes()
    assert (one.id, one.model_name, one.model_version) == ("seven", model, "1")
    assert not one.outputs[0].HasField("contents")


def test_only_the_outputs_asked_for_come_back(client: Any) -> None:
    """In the order they were asked for."""
    asked = [triton.InferRequestedOutput("v")]
    result = client.infer("m", inputs(x=SURE), outputs=asked, client_timeout=SECONDS)
    assert [output.name for output in result.get_response().outputs] == ["v"]
    with pytest.raises(InferenceServerException, match="outputs: expected some of p, v, got 'nope'"):
        client.infer("m", inputs(x=SURE), outputs=[triton.InferRequestedOutput("nope")], client_timeout=SECONDS)


def test_an_output_is_asked_for_once(client: Any) -> None:
    """Or a small request could ask for a reply without end."""
    twice = [triton.InferRequestedOutput("p"), triton.InferRequestedOutput("p")]
    with pytest.raises(InferenceServerException, match="outputs: expected each once, got 'p' again"):
        client.infer("m", inputs(x=SURE), outputs=twice, client_timeout=SECONDS)


@pytest.mark.parametrize(
    ("model", "datatype", "shape", "code", "sentence"),
    [
        ("m", "INT64", [1, 3], "INVALID_ARGUMENT", "inputs[x].datatype: expected FP32, got INT64"),
        ("m", "FP32", [1, 4], "INVALID_ARGUMENT", "inputs[x].shape: expected [-1, 3], got [1, 4]"),
        ("m", "FP32", [4096, 3], "INVALID_ARGUMENT", "rows, got 4096"),
        ("nobody", "FP32", [1, 3], "NOT_FOUND", "model 'nobody' is not served here"),
    ],
)
def test_typed_contents_that_no_model_takes_are_not_read(
    stub: Any,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    datatype: str,
    shape: list[int],
    code: str,
    sentence: str,
) -> None:
    """What is said of them is enough: to read them takes long."""
    monkeypatch.setattr(tensor, "from_values", lambda *_, **__: pytest.fail("they are read"))
    request = service_pb2.ModelInferRequest(model_name=model)
    each = request.inputs.add(name="x", datatype=datatype, shape=shape)
    name = "int64_contents" if datatype == "INT64" else "fp32_contents"
    getattr(each.contents, name).extend([1] * int(np.prod(shape)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=10)
    assert caught.value.code().name == code
    assert sentence in (caught.value.details() or "")


def test_contents_in_another_place_or_form_are_unimplemented(client: Any) -> None:
    """Shared memory and classification: to answer as if nothing had been asked would give a client stale contents."""
    shared, classes = triton.InferRequestedOutput("p"), triton.InferRequestedOutput("p", class_count=2)
    shared.set_shared_memory("region", 12)
    for output, name in ((shared, "shared_memory_region"), (classes, "classification")):
        with pytest.raises(
            InferenceServerException, match=f"UNIMPLEMENTED.*outputs.p..parameters.{name}.: not served;"
        ):
            client.infer("m", inputs(x=SURE), outputs=[output], client_timeout=SECONDS)
    there = triton.InferInput("x", [1, 3], "FP32")
    there.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*inputs.x..parameters.shared_memory_region"):
        client.infer("m", [there], client_timeout=SECONDS)


def test_the_server_says_what_it_is_and_what_works(client: Any) -> None:
    """Live, ready, metadata; the extensions listed are those served."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("m", "9")
    assert not client.is_model_ready("nope")
    server = client.get_server_metadata()
    served = ["model_configuration", "parameters", "schedule_policy", "statistics"]
    assert (server.name, list(server.extensions)) == ("demur", served)
    found = client.get_model_metadata("m")
    assert (found.name, list(found.versions), found.platform) == ("m", ["1"], "onnxruntime_onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in found.inputs] == [("x", "FP32", [-1, 3])]
    assert [each.name for each in found.outputs] == ["p", "v"]
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.get_model_metadata("nope")
    with pytest.raises(InferenceServerException, match="has no version '9' loaded; loaded is 1"):
        client.get_model_metadata("m", "9")


def test_what_is_not_served_is_unimplemented(client: Any) -> None:
    """Every method of the protocol that is not in ours; the refusal names those that are."""
    served = sorted(method.name for method in kserve.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods)
    about = ["ModelConfig", "ModelMetadata", "ModelReady", "ModelStatistics", "RepositoryIndex"]
    assert served == sorted([*about, "ModelInfer", "ModelStreamInfer", "ServerLive", "ServerMetadata", "ServerReady"])
    said = f"expected one of {', '.join(served)}, got 'LogSettings'"
    with pytest.raises(InferenceServerException, match=rf"UNIMPLEMENTED\] inference.GRPCInferenceService: {said}"):
        client.get_log_settings()
    for ask in (client.get_trace_settings, client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
            ask()
