"""A request that is known by its bytes is treated as the first of its kind was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from demur import kserve
from demur.v1 import prediction_pb2 as pb
from gateway import plain_infer, plain_predict
from gateway.observed import Observed
from gateway.question import Questions
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import SURE, UNSURE

SECONDS = 10.0
TWO = np.concatenate([SURE, UNSURE])
NAN = np.array([[0.05, np.nan, 0.05]], np.float32)
Ask = Callable[..., Any]


def infer_asked(model: str, x: np.ndarray, **fields: Any) -> Any:
    message = kserve.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()], **fields)
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return message


def predict_asked(model: str, x: np.ndarray) -> Any:
    message = pb.PredictRequest(model=model)
    message.inputs.add(name="x", datatype="FP32", shape=x.shape, raw=x.tobytes())
    return message


@pytest.fixture(autouse=True)
def _nothing_known(stand: Stand) -> None:
    """Every test begins with a gateway that knows no question."""
    stand.gateway._inference._questions = Questions(plain_infer.FORM)
    stand.gateway._predictions._questions = Questions(plain_predict.FORM)


@pytest.fixture
def infer(channel: grpc.Channel) -> Ask:
    """Asks by ModelInfer."""
    method = f"/{kserve.SERVICE}/ModelInfer"
    return channel.unary_unary(method, lambda it: it.SerializeToString(), kserve.ModelInferResponse.FromString)


@pytest.fixture
def predict(channel: grpc.Channel) -> Ask:
    """Asks by Predict."""
    method = "/demur.v1.PredictionService/Predict"
    return channel.unary_unary(method, pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString)


def known(stand: Stand, message: Any) -> bool:
    """Whether the gateway would read this one without parsing it."""
    service = stand.gateway._predictions if isinstance(message, pb.PredictRequest) else stand.gateway._inference
    return service._questions.find(message.SerializeToString()) is not None


def twice(stand: Stand, ask: Ask, message: Any, again: Any = None) -> tuple[Any, Any]:
    """The replies to a question while it is unknown, and to it or one like it once it is known."""
    again = message if again is None else again
    assert not known(stand, message)
    first = ask(message, timeout=SECONDS)
    assert known(stand, again)
    return first, ask(again, timeout=SECONDS)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_answer_is_the_same_once_the_question_is_known(stand: Stand, infer: Ask, rows: int) -> None:
    """To the last byte of what it says, with other numbers in between."""
    x = np.repeat(SURE, rows, axis=0)
    first, second = twice(stand, infer, infer_asked("m", x))
    assert first == second
    other = infer(infer_asked("m", x[:, ::-1] * 1.01), timeout=SECONDS)
    assert other.raw_output_contents[0] == (x[:, ::-1] * 1.01).tobytes()
    assert other.parameters["demur_confidence"].double_param == float((x[:, ::-1] * 1.01).max())


def test_each_has_its_own_id_and_the_outputs_it_asked_for(stand: Stand, infer: Ask) -> None:
    """One question, many ids."""
    outputs = [kserve.ModelInferRequest.InferRequestedOutputTensor(name="v")]
    asked = [infer_asked("m", SURE, id=f"call-{number}", outputs=outputs) for number in range(2)]
    first, second = twice(stand, infer, *asked)
    assert (first.id, second.id) == ("call-0", "call-1")
    assert [output.name for output in second.outputs] == ["v"]
    second.id = first.id
    assert first == second


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_a_prediction_is_the_same_once_the_question_is_known(
    stand: Stand, predict: Ask, shape: tuple[int, ...]
) -> None:
    """But for how long it took, and the lot that is drawn for each."""
    first, second = twice(stand, predict, predict_asked("m", SURE.reshape(shape)))
    for reply in (first, second):
        assert reply.HasField("queue_duration")
        reply.ClearField("queue_duration")
        assert reply.compute_duration.nanos > 0
        reply.ClearField("compute_duration")
        assert reply.rules.pop().rule == "audit"
        assert reply.rules
    assert first == second
    assert second.decision == pb.ANSWERED


def test_a_doubt_is_parked_as_ever(stand: Stand, infer: Ask, predict: Ask) -> None:
    """With a name of its own, beside the model's output; of several rows only those in doubt."""
    asked = infer_asked("m", TWO, id="doubt")
    before = stand.depth("m")
    first, second = twice(stand, infer, asked)
    said = [dict(reply.parameters) for reply in (first, second)]
    assert [each["demur_decision"].string_param for each in said] == ["provisional", "provisional"]
    assert said[0]["demur_deferral"] != said[1]["demur_deferral"]
    assert second.id == "doubt"
    sure = infer(infer_asked("m", np.repeat(SURE, 2, axis=0), id="sure!"), timeout=SECONDS)
    assert sure.parameters["demur_decision"].string_param == "answered"
    assert twice(stand, predict, predict_asked("m", UNSURE))[1].deferral
    assert stand.depth("m") == before + 4


def test_what_is_audited_is_parked_and_answered(stand: Stand, infer: Ask) -> None:
    """The answer goes out at once; the audit reaches the queue."""
    before = stand.depth("audited")
    first, second = twice(stand, infer, infer_asked("audited", SURE))
    assert first == second
    _reach(stand, "audited", before + 2)


def test_what_is_wrong_is_refused_in_the_same_words(stand: Stand, infer: Ask) -> None:
    """Whether the question was known or not; one caller's NaN is nobody else's trouble."""
    outputs = [kserve.ModelInferRequest.InferRequestedOutputTensor(name="nothing")]
    for asked in (
        infer_asked("m", NAN, id="nan"),
        infer_asked("m", SURE, outputs=outputs),
        infer_asked("m", np.ones((1, 4), np.float32)),
        infer_asked("m", np.ones((17, 3), np.float32)),
        infer_asked("none such", SURE),
        infer_asked("m", SURE, model_version="7"),
    ):
        said = []
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                infer(asked, timeout=SECONDS)
            said.append((caught.value.code(), caught.value.details()))
        assert said[0] == said[1]
        assert known(stand, asked)


def test_doubts_beside_what_is_wrong_are_parked_once(stand: Stand, infer: Ask) -> None:
    """Many of both at a time, so that they meet in batches: each has its own end, and the queue has no doubt twice."""
    before = stand.depth("m")
    infer(infer_asked("m", UNSURE), timeout=SECONDS)
    mixed = [infer_asked("m", x) for _ in range(40) for x in (UNSURE, NAN)]
    calls = [infer.future(asked, timeout=SECONDS) for asked in mixed]  # type: ignore[attr-defined]
    assert {call.code() for call in calls[1::2]} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert len({call.result().parameters["demur_deferral"].string_param for call in calls[::2]}) == 40
    infer(infer_asked("m", UNSURE), timeout=SECONDS)
    assert stand.depth("m") == before + 42


def test_audits_go_to_the_queue_together(stand: Stand, infer: Ask) -> None:
    """Nobody waits for them: what comes within a moment is one round, and all of it arrives."""
    before, parked = stand.depth("audited"), stand.gateway.metrics.stage_seconds.labels("audited", "park")
    rounds = _count(parked)
    for _ in range(20):
        infer(infer_asked("audited", SURE), timeout=SECONDS)
    _reach(stand, "audited", before + 20)
    assert 1 <= _count(parked) - rounds < 20


def test_those_who_wait_share_rounds(stand: Stand, infer: Ask) -> None:
    """Many at once, each with a name of its own."""
    parked = stand.gateway.metrics.stage_seconds.labels("m", "park")
    rounds = _count(parked)
    calls = [infer.future(infer_asked("m", UNSURE), timeout=SECONDS) for _ in range(100)]  # type: ignore[attr-defined]
    names = {call.result().parameters["demur_deferral"].string_param for call in calls}
    assert len(names) == 100
    assert 1 <= _count(parked) - rounds < 100


def _reach(stand: Stand, queue: str, depth: int) -> None:
    """Wait until so many are open."""
    until = time.monotonic() + SECONDS
    while stand.depth(queue) < depth and time.monotonic() < until:
        time.sleep(0.01)
    assert stand.depth(queue) == depth


def _count(stage: Observed) -> float:
    buckets, _ = stage.read()
    return buckets[-1][1]
