"""An unmodified tritonclient, in the same process, gets what ONNX Runtime itself says."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from demur import kserve
from fallback.answer import CantTell
from fallback.deferral import State
from gateway import tensor
from gateway.kserve import _trailing as _inference_trailing
from gateway.request import Result
from tests.integration.gateway.conftest import MODELS, Stand
from tests.live_gateway import SURE, UNSURE

SECONDS = 10.0
NUMBERS = {
    "fp32": np.float32,
    "fp64": np.float64,
    "fp16": np.float16,
    "int64": np.int64,
    "int8": np.int8,
    "uint16": np.uint16,
    "bool": np.bool_,
}


@pytest.fixture(scope="module")
def client(stand: Stand) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stand.address) as found:
        yield found


@pytest.fixture(scope="module")
def stub(stand: Stand) -> Iterator[Any]:
    with grpc.insecure_channel(stand.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _inputs(**arrays: np.ndarray) -> list[triton.InferInput]:
    found = []
    for name, array in arrays.items():
        each = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        each.set_data_from_numpy(array)
        found.append(each)
    return found


def _infer(client: Any, model: str, x: np.ndarray, **options: Any) -> Any:
    return client.infer(model, _inputs(x=x), client_timeout=SECONDS, **options)


def _said(result: Any) -> dict[str, Any]:
    parameters = result.get_response().parameters
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}


def _trailing(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata())


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
    result = client.infer("echo", _inputs(**arrays), client_timeout=SECONDS)
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
    result = client.infer("m", _inputs(x=SURE), outputs=asked, client_timeout=SECONDS)
    assert [output.name for output in result.get_response().outputs] == ["v"]
    with pytest.raises(InferenceServerException, match="outputs: expected some of p, v, got 'nope'"):
        client.infer("m", _inputs(x=SURE), outputs=[triton.InferRequestedOutput("nope")], client_timeout=SECONDS)


def test_an_output_is_asked_for_once(client: Any) -> None:
    """Or a small request could ask for a reply without end."""
    twice = [triton.InferRequestedOutput("p"), triton.InferRequestedOutput("p")]
    with pytest.raises(InferenceServerException, match="outputs: expected each once, got 'p' again"):
        client.infer("m", _inputs(x=SURE), outputs=twice, client_timeout=SECONDS)


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
            client.infer("m", _inputs(x=SURE), outputs=[output], client_timeout=SECONDS)
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


def test_the_decision_travels_in_the_parameters(client: Any) -> None:
    """A confident request: answered, how sure, no deferral."""
    said = _said(_infer(client, "m", SURE))
    assert said == {"demur_decision": "answered", "demur_confidence": pytest.approx(0.9)}
    assert _said(_infer(client, "plain", SURE)) == {"demur_decision": "unreviewed"}


def test_provisional_is_the_models_answer_marked(stand: Stand, client: Any) -> None:
    """With the name of the deferral."""
    result = _infer(client, "m", UNSURE)
    said = _said(result)
    assert np.array_equal(result.as_numpy("p"), UNSURE)
    assert said["demur_decision"] == "provisional"
    assert said["demur_confidence"] == pytest.approx(0.4)
    lease = stand.review("m", "a")
    assert said["demur_deferral"] == lease.deferral.name


def test_refuse_is_a_status_that_names_the_deferral(stand: Stand, stub: Any) -> None:
    """FAILED_PRECONDITION, and the name again for programs."""
    request = service_pb2.ModelInferRequest(model_name="refuses", raw_input_contents=[UNSURE.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    name = _trailing(caught.value)["demur-deferral"]
    assert name in (caught.value.details() or "")
    assert stand.review("refuses", "a").deferral.name == name


def test_very_many_deferrals_fit_into_the_metadata() -> None:
    """The first names, and that there are more."""
    names = {row: f"queues/{'q' * 63}/deferrals/{uuid.uuid4().hex}" for row in range(4096)}
    result = Result(model="m", version="1", labels=(), outputs={}, rows=4096, deferrals=names)
    ((key, value),) = _inference_trailing(result)
    *first, last = value.split(",")
    assert (key, last) == ("demur-deferral", "...")
    assert first == list(names.values())[: len(first)]
    assert 30 < len(first) < len(value) / 100 < 41


def test_wait_answers_with_the_persons_label(stand: Stand, client: Any) -> None:
    """One-hot in the output, the outcome in the parameters."""
    reviewer = threading.Thread(target=stand.review, args=("waits", "c"))
    reviewer.start()
    result = _infer(client, "waits", UNSURE)
    reviewer.join()
    said = _said(result)
    assert result.as_numpy("p").tolist() == [[0, 0, 1]]
    assert said["demur_decision"] == "deferred"
    (outcome,) = json.loads(said["demur_outcome"])
    assert (outcome["deferral"], outcome["source"], outcome["reviewed"]) == (said["demur_deferral"], "person", True)
    assert outcome["answer"] == {"type": "label", "label": "c"}


def test_wait_answers_with_the_persons_label_in_every_output_that_names_one(stand: Stand, client: Any) -> None:
    """As scikit-learn's classifiers have a label beside their scores; what else a model gives stays."""
    reviewer = threading.Thread(target=stand.review, args=("named", "c"))
    reviewer.start()
    result = _infer(client, "named", np.concatenate([SURE, UNSURE]))
    reviewer.join()
    assert result.as_numpy("p").tolist() == [SURE[0].tolist(), [0, 0, 1]]
    assert result.as_numpy("label").tolist() == [b"b", b"c"]
    assert result.as_numpy("place").tolist() == [1, 2]
    assert result.as_numpy("sum").tolist() == pytest.approx([SURE.sum(), UNSURE.sum()])


@pytest.mark.parametrize("answer", ["z", CantTell()])
def test_wait_refuses_an_answer_that_the_model_could_not_give(stand: Stand, client: Any, answer: Any) -> None:
    """A client that knows nothing of people must not take it for a class."""
    reviewer = threading.Thread(target=stand.review, args=("waits", answer))
    reviewer.start()
    with pytest.raises(InferenceServerException, match="the answer is none that the model could give"):
        _infer(client, "waits", UNSURE)
    reviewer.join()


def test_wait_ends_with_the_calls_deadline(stand: Stand, stub: Any) -> None:
    """The deferral stays and is named."""
    request = service_pb2.ModelInferRequest(model_name="waits", raw_input_contents=[UNSURE.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    name = _trailing(caught.value).get("demur-deferral")
    lease = stand.review("waits", "a")
    assert name in {None, lease.deferral.name}


def test_many_rows_are_judged_one_by_one(stand: Stand, client: Any) -> None:
    """The weakest decision, the lowest confidence, the deferred rows' names in row order."""
    result = _infer(client, "m", np.concatenate([SURE, UNSURE, SURE, UNSURE[:, ::-1]]))
    said = _said(result)
    names = said["demur_deferral"].split(",")
    assert (said["demur_decision"], said["demur_confidence"], len(names)) == ("provisional", pytest.approx(0.4), 2)
    for name in names:
        row = stand.lease("m")
        assert row.deferral.name == name
        stand.run(stand.gateway.queue.cancel(name, request_id=uuid.uuid4().hex))


def test_the_rows_of_a_retry_keep_their_deferrals(stand: Stand, client: Any) -> None:
    """Each row has a key of its own, however long the request's is; another input is refused by the client's key."""
    key = uuid.uuid4().hex * 4
    both = np.concatenate([UNSURE, UNSURE * 0.9])
    first, again = (
        _said(_infer(client, "m", both, parameters={"demur_idempotency_key": key}))["demur_deferral"] for _ in range(2)
    )
    assert first == again
    stand.gateway._remembered._found.clear()
    with pytest.raises(InferenceServerException, match=f"'{key}' was used with another input"):
        _infer(client, "m", both[::-1], parameters={"demur_idempotency_key": key})
    for name in first.split(","):
        stand.run(stand.gateway.queue.cancel(name, request_id=uuid.uuid4().hex))


def test_waiting_rows_are_replaced_and_the_others_stay(stand: Stand, client: Any) -> None:
    """Only the deferred row becomes one-hot."""
    reviewer = threading.Thread(target=stand.review, args=("waits", "a"))
    reviewer.start()
    result = _infer(client, "waits", np.concatenate([SURE, UNSURE]))
    reviewer.join()
    assert np.array_equal(result.as_numpy("p"), np.concatenate([SURE, [[1, 0, 0]]]).astype(np.float32))


@pytest.mark.parametrize(
    ("text", "content", "media_type"),
    [
        ("look", b"look", "text/plain"),
        ('{"a": 1}', b'{"a": 1}', "application/json"),
        ("data:image/png;base64," + base64.b64encode(b"\x89PNG").decode(), b"\x89PNG", "image/png"),
    ],
)
def test_parameters_say_what_a_reviewer_sees(
    stand: Stand, client: Any, text: str, content: bytes, media_type: str
) -> None:
    """Text, JSON or a data: URL; with priority, deadline, key and callback."""
    parameters = {
        "demur_subject": text,
        "demur_priority": 7,
        "demur_attributes": '{"region": "north"}',
        "demur_review_deadline": 60,
        "demur_idempotency_key": uuid.uuid4().hex,
        "demur_callback": "https://example.com/hook",
        "someone_elses": "left alone",
    }
    first, again = (_said(_infer(client, "m", UNSURE, parameters=parameters)) for _ in range(2))
    assert first["demur_deferral"] == again["demur_deferral"]
    lease = stand.lease("m")
    deferral = lease.deferral
    assert (deferral.name, lease.subject, deferral.media_type) == (first["demur_deferral"], content, media_type)
    assert deferral.priority == 7
    assert deferral.attributes["region"] == "north"
    assert deferral.expire_time - deferral.create_time == pytest.approx(60, abs=1)
    assert deferral.callback is not None
    assert deferral.callback.webhook_url == "https://example.com/hook"
    assert stand.run(stand.gateway.queue.cancel(deferral.name, request_id="x")).state is State.CANCELLED


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"demur_priorty": 1}, "'demur_priorty' is not known; did you mean demur_priority"),
        ({"demur_priority": 10}, r"parameters\[demur_priority\]: expected 0 .* got 10"),
        ({"demur_priority": "high"}, "expected a number, got 'high'"),
        ({"demur_attributes": '{"region": 3}'}, r"parameters\[demur_attributes\]: expected a JSON object of texts"),
        ({"demur_review_deadline": -1}, "expected 0 to"),
        ({"demur_subject": "data:image/png;base64,@@"}, "expected base64"),
        ({"demur_subject": 5}, "expected string_param, got 5"),
        ({"demur_callback": "ftp://x"}, r"parameters\[demur_callback\]"),
        ({"demur_idempotency_key": "k" * 129}, "expected at most 128 characters, got 129"),
    ],
)
def test_parameters_that_are_wrong_are_named(client: Any, parameters: dict[str, Any], sentence: str) -> None:
    """INVALID_ARGUMENT with field, expected and got."""
    with pytest.raises(InferenceServerException, match=sentence) as caught:
        _infer(client, "m", SURE, parameters=parameters)
    assert "INVALID_ARGUMENT" in str(caught.value)


def test_priority_and_timeout_change_nothing_where_the_model_has_no_policy_for_them(client: Any) -> None:
    """As on Triton: there are no levels, and nobody may shorten a timeout."""
    assert _said(_infer(client, "m", SURE, priority=2**63, timeout=1))["demur_decision"] == "answered"


def test_a_timeout_below_nothing_is_named(client: Any) -> None:
    """Triton's own parameter."""
    with pytest.raises(InferenceServerException, match=r"parameters\[timeout\]: expected 0 or more, got -1") as caught:
        _infer(client, "m", SURE, timeout=-1)
    assert "INVALID_ARGUMENT" in str(caught.value)
