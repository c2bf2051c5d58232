"""ModelStreamInfer by an unmodified tritonclient and by bare gRPC, over both transports."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from fallback.config import Config
from gateway.server import Gateway
from gateway.streamed import ASKED_MAX
from tests.integration.gateway.conftest import Stand
from tests.integration.gateway.tritons import inputs
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, told

SECONDS = 20.0


def _asked(model: str, x: np.ndarray, id_: str = "") -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id=id_, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return request


def test_tritons_client_streams(stand: Stand) -> None:
    """Every request has its own answer, in order, with its id; one that is wrong is told and ends nothing."""
    heard: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(stand.address) as client:
        client.start_stream(callback=lambda result, error: heard.put((result, error)))
        for number in range(200):
            wrong = number % 50 == 49
            x = np.zeros((1, 9), np.float32) if wrong else SURE * (1 - number / 1000)
            client.async_stream_infer("m", inputs(x=x), request_id=str(number))
        found = [heard.get(timeout=SECONDS) for _ in range(200)]
        client.stop_stream()
    for number, (result, error) in enumerate(found):
        if number % 50 == 49:
            assert "inputs[x].shape: expected [-1, 3], got [1, 9]" in str(error)
            continue
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("p"), SURE * np.float32(1 - number / 1000))
        parameters = result.get_response().parameters
        assert parameters["triton_final_response"].bool_param
        assert parameters["demur_decision"].string_param in {"answered", "provisional"}


def test_a_refusal_names_its_request_and_the_next_is_answered(stub: Any) -> None:
    """Also of a model that is not there, and of one that gives nothing without a person."""
    asked = [_asked("nope", SURE, "a"), _asked("refuses", UNSURE, "b"), _asked("m", SURE, "c")]
    first, second, third = stub.ModelStreamInfer(iter(asked), timeout=SECONDS)
    assert "model 'nope' is not served here" in first.error_message
    assert "a person will answer this" in second.error_message
    assert [each.infer_response.id for each in (first, second, third)] == ["a", "b", "c"]
    assert third.error_message == ""


def test_an_answer_waits_for_those_before_it(stand: Stand, stub: Any) -> None:
    """Also for one that waits for a person."""
    reviewer = threading.Thread(target=stand.review, args=("waits", "c"))
    replies = stub.ModelStreamInfer(iter([_asked("waits", UNSURE, "1"), _asked("m", SURE, "2")]), timeout=SECONDS)
    reviewer.start()
    found = [reply.infer_response for reply in replies]
    reviewer.join()
    assert [each.id for each in found] == ["1", "2"]
    assert found[0].parameters["demur_decision"].string_param == "deferred"
    assert np.frombuffer(found[0].raw_output_contents[0], np.float32).tolist() == [0, 0, 1]


def test_bytes_that_are_no_request_are_refused_in_their_place(stand: Stand) -> None:
    """Without an id, since none can be read."""
    with grpc.insecure_channel(stand.address) as channel:
        stream: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        asked = [b"\xff\xff\xff", _asked("m", SURE, "2").SerializeToString()]
        came = stream(iter(asked), timeout=SECONDS)
        replies = [service_pb2.ModelStreamInferResponse.FromString(each) for each in came]
    assert "expected a inference.ModelInferRequest" in replies[0].error_message
    assert (replies[1].error_message, replies[1].infer_response.id) == ("", "2")


def test_an_empty_stream_ends(stub: Any) -> None:
    """With nothing."""
    assert list(stub.ModelStreamInfer(iter([]), timeout=SECONDS)) == []


@pytest.fixture(params=["cq", "aio"])
def gateway(config: Config, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    own = settings(config, transport=request.param)
    install(config.data_folder, "m", "1", told(1), JUDGED)
    promote(own, "m", "1")
    with running(own) as found:
        yield found


def test_what_is_asked_ahead_is_bounded(gateway: Gateway) -> None:
    """More is read once answers are taken; nothing is lost."""
    sent = []

    def asked() -> Iterator[Any]:
        for number in range(5 * ASKED_MAX):
            sent.append(number)
            yield _asked("m", SURE, str(number))

    with grpc.insecure_channel(gateway.address) as channel:
        replies = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(asked(), timeout=SECONDS)
        found = [reply.infer_response.id for reply in replies]
    assert found == [str(number) for number in range(5 * ASKED_MAX)]


def test_a_client_that_leaves_leaves_nothing_behind(gateway: Gateway) -> None:
    """Its requests are given up, and others are served."""
    with grpc.insecure_channel(gateway.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(20):
            replies = stub.ModelStreamInfer(iter([_asked("m", SURE)] * 30), timeout=SECONDS)
            next(replies)
            replies.cancel()
        (reply,) = stub.ModelStreamInfer(iter([_asked("m", SURE, "last")]), timeout=SECONDS)
        assert reply.infer_response.id == "last"
        until = time.monotonic() + SECONDS
        while gateway.streams.bytes_under_way and time.monotonic() < until:
            time.sleep(0.01)
        assert gateway.streams.bytes_under_way == 0


def test_a_stop_ends_idle_streams_and_says_so(gateway: Gateway) -> None:
    """What was asked is answered first."""
    hold = threading.Event()

    def asked() -> Iterator[Any]:
        yield _asked("m", SURE, "1")
        hold.wait(SECONDS)

    with grpc.insecure_channel(gateway.address) as channel:
        replies = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(asked(), timeout=SECONDS)
        assert next(replies).infer_response.id == "1"
        stopping = threading.Thread(target=gateway.drain)
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "the gateway is stopping" in (caught.value.details() or "")
        hold.set()
        stopping.join(SECONDS)
    assert not stopping.is_alive()
