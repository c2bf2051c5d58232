"""What an unmodified tritonclient gets for what a person is asked, and what it may ask beside its tensors."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from fallback.answer import CantTell
from fallback.deferral import State
from gateway.kserve import _trailing as _inference_trailing
from gateway.request import Result
from tests.integration.gateway.conftest import Stand
from tests.integration.gateway.tritons import SECONDS, infer, parameters_of, trailing
from tests.live_gateway import SURE, UNSURE


def test_the_decision_travels_in_the_parameters(client: Any) -> None:
    """A confident request: answered, how sure, no deferral."""
    said = parameters_of(infer(client, "m", SURE))
    assert said == {"demur_decision": "answered", "demur_confidence": pytest.approx(0.9)}
    assert parameters_of(infer(client, "plain", SURE)) == {"demur_decision": "unreviewed"}


def test_provisional_is_the_models_answer_marked(stand: Stand, client: Any) -> None:
    """With the name of the deferral."""
    result = infer(client, "m", UNSURE)
    said = parameters_of(result)
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
    name = trailing(caught.value)["demur-deferral"]
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
    result = infer(client, "waits", UNSURE)
    reviewer.join()
    said = parameters_of(result)
    assert result.as_numpy("p").tolist() == [[0, 0, 1]]
    assert said["demur_decision"] == "deferred"
    (outcome,) = json.loads(said["demur_outcome"])
    assert (outcome["deferral"], outcome["source"], outcome["reviewed"]) == (said["demur_deferral"], "person", True)
    assert outcome["answer"] == {"type": "label", "label": "c"}


def test_wait_answers_with_the_persons_label_in_every_output_that_names_one(stand: Stand, client: Any) -> None:
    """As scikit-learn's classifiers have a label beside their scores; what else a model gives stays."""
    reviewer = threading.Thread(target=stand.review, args=("named", "c"))
    reviewer.start()
    result = infer(client, "named", np.concatenate([SURE, UNSURE]))
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
        infer(client, "waits", UNSURE)
    reviewer.join()


def test_wait_ends_with_the_calls_deadline(stand: Stand, stub: Any) -> None:
    """The deferral stays and is named."""
    request = service_pb2.ModelInferRequest(model_name="waits", raw_input_contents=[UNSURE.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    name = trailing(caught.value).get("demur-deferral")
    lease = stand.review("waits", "a")
    assert name in {None, lease.deferral.name}


def test_many_rows_are_judged_one_by_one(stand: Stand, client: Any) -> None:
    """The weakest decision, the lowest confidence, the deferred rows' names in row order."""
    result = infer(client, "m", np.concatenate([SURE, UNSURE, SURE, UNSURE[:, ::-1]]))
    said = parameters_of(result)
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
        parameters_of(infer(client, "m", both, parameters={"demur_idempotency_key": key}))["demur_deferral"]
        for _ in range(2)
    )
    assert first == again
    stand.gateway._remembered._found.clear()
    with pytest.raises(InferenceServerException, match=f"'{key}' was used with another input"):
        infer(client, "m", both[::-1], parameters={"demur_idempotency_key": key})
    for name in first.split(","):
        stand.run(stand.gateway.queue.cancel(name, request_id=uuid.uuid4().hex))


def test_waiting_rows_are_replaced_and_the_others_stay(stand: Stand, client: Any) -> None:
    """Only the deferred row becomes one-hot."""
    reviewer = threading.Thread(target=stand.review, args=("waits", "a"))
    reviewer.start()
    result = infer(client, "waits", np.concatenate([SURE, UNSURE]))
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
    first, again = (parameters_of(infer(client, "m", UNSURE, parameters=parameters)) for _ in range(2))
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
        infer(client, "m", SURE, parameters=parameters)
    assert "INVALID_ARGUMENT" in str(caught.value)


def test_priority_and_timeout_change_nothing_where_the_model_has_no_policy_for_them(client: Any) -> None:
    """As on Triton: there are no levels, and nobody may shorten a timeout."""
    assert parameters_of(infer(client, "m", SURE, priority=2**63, timeout=1))["demur_decision"] == "answered"


def test_a_timeout_below_nothing_is_named(client: Any) -> None:
    """Triton's own parameter."""
    with pytest.raises(InferenceServerException, match=r"parameters\[timeout\]: expected 0 or more, got -1") as caught:
        infer(client, "m", SURE, timeout=-1)
    assert "INVALID_ARGUMENT" in str(caught.value)
