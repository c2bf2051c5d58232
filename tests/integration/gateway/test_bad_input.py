"""Bad input gets the fitting code and a sentence with field, expected and got; the service goes on."""

from __future__ import annotations

import io
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from demur import kserve
from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import SURE, UNSURE

Code = grpc.StatusCode
SECONDS = 10.0
Caller = Callable[..., Any]
INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/demur.v1.PredictionService/Predict"
# What no message to a client may hold: paths, modules, tracebacks.
_INTERNALS = re.compile(r"/work|site-packages|\.py|Traceback|onnxruntime|Error\(|0x[0-9a-f]{6}")


@pytest.fixture
def call(channel: grpc.Channel) -> Iterator[Caller]:
    """Calls a method with bytes; afterwards proves that the service goes on."""

    def make(method: str, payload: bytes, timeout: float | None = SECONDS) -> bytes:
        ask: Any = channel.unary_unary(method)
        reply: bytes = ask(payload, timeout=timeout)
        return reply

    yield make
    reply = kserve.ModelInferResponse.FromString(make(INFER, _infer(SURE).SerializeToString()))
    assert reply.parameters["demur_decision"].string_param == "answered"


def _infer(x: np.ndarray, *, model: str = "m", name: str = "x", datatype: str = "FP32", **fields: Any) -> Any:
    request = kserve.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name=name, datatype=datatype, shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request


def _predict(x: np.ndarray | None = None, *, model: str = "m", **fields: Any) -> pb.PredictRequest:
    inputs = [] if x is None else [types_pb2.Tensor(name="x", datatype="FP32", shape=x.shape, raw=x.tobytes())]
    return pb.PredictRequest(model=model, inputs=inputs, **fields)


def _refused(call: Caller, method: str, request: Any, code: grpc.StatusCode, sentence: str) -> None:
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        call(method, payload)
    assert caught.value.code() is code
    said = caught.value.details() or ""
    assert re.search(sentence, said), said
    assert not _INTERNALS.search(said), said


INVALID = [
    (_infer(SURE.astype(np.float64), datatype="FP64"), r"inputs\[x\].datatype: expected FP32, got FP64"),
    (_infer(SURE, datatype="FP33"), r"inputs\[x\].datatype: expected one of BOOL, .*, got 'FP33'"),
    (_infer(SURE[0]), r"inputs\[x\].shape: expected 2 axes \[-1, 3\], got 1 \[3\]"),
    (_infer(SURE[:, :2]), r"inputs\[x\].shape: expected \[-1, 3\], got \[1, 2\]"),
    (_infer(np.repeat(SURE, 17, axis=0)), r"inputs\[x\].shape: expected 1 to 16 rows, got 17"),
    (_infer(SURE[:0]), r"inputs\[x\].shape: expected 1 to 16 rows, got 0"),
    (_infer(np.full((1, 3), np.nan, np.float32)), r"inputs\[x\]: expected numbers, got 3 NaN"),
    (_infer(SURE, name="y"), r"inputs: expected x \(FP32 \[-1, 3\]\), got 'y'"),
    (kserve.ModelInferRequest(model_name="m"), r"inputs: expected x .*; got neither"),
    (b"\xff\xff\xff", "request: expected a inference.ModelInferRequest, got bytes that are none"),
]


@pytest.mark.parametrize(("request_", "sentence"), INVALID)
def test_tensors_that_do_not_fit(call: Caller, request_: Any, sentence: str) -> None:
    """Type, rank, size, rows, NaN, name."""
    _refused(call, INFER, request_, Code.INVALID_ARGUMENT, sentence)


@pytest.mark.parametrize("method", [INFER, PREDICT])
@pytest.mark.parametrize("shape", [[1, 2**29], [-1, 3], [2**40, 3], [2**62, 0], [1, 2]])
def test_a_shape_that_is_none_is_refused_each_time_at_no_cost(call: Caller, method: str, shape: list[int]) -> None:
    """What was asked before is known by its bytes: that it was refused must not make anything of it."""
    right = _infer(SURE) if method == INFER else _predict(SURE)
    request = type(right).FromString(right.SerializeToString())
    request.inputs[0].shape[:] = shape
    before = time.process_time()
    for _ in range(3):
        _refused(call, method, request, Code.INVALID_ARGUMENT, r"inputs\[x\]\.(shape|raw): expected ")
    assert time.process_time() - before < 1, "half a billion numbers are not made"


@pytest.mark.parametrize("method", [INFER, PREDICT])
def test_a_model_that_is_not_there(call: Caller, method: str) -> None:
    """Names those that are."""
    request = _infer(SURE, model="nope") if method == INFER else _predict(SURE, model="nope")
    _refused(call, method, request, Code.NOT_FOUND, "model 'nope' is not served here; there are: audited")


def test_a_version_that_is_not_there(call: Caller) -> None:
    """Names the one that is loaded."""
    request = _infer(SURE, model_version="7")
    _refused(call, INFER, request, Code.NOT_FOUND, "has no version '7' loaded; loaded is 1")


def test_raw_contents_of_another_length(call: Caller) -> None:
    """Before anything is read."""
    request = _infer(SURE)
    request.raw_input_contents[0] = b"123"
    _refused(call, INFER, request, Code.INVALID_ARGUMENT, r"inputs\[x\].raw: expected 12 bytes for FP32 .* got 3")


def test_raw_contents_for_another_number_of_inputs(call: Caller) -> None:
    """One for each."""
    request = _infer(SURE)
    request.raw_input_contents.append(b"")
    _refused(call, INFER, request, Code.INVALID_ARGUMENT, "expected one for each of the 1 inputs, got 2")


def test_raw_and_typed_contents_together(call: Caller) -> None:
    """One or the other."""
    request = _infer(SURE)
    request.inputs[0].contents.fp32_contents.append(1.0)
    _refused(call, INFER, request, Code.INVALID_ARGUMENT, r"expected raw_input_contents or contents, got both")


def test_typed_contents_in_the_wrong_field(call: Caller) -> None:
    """Named, with the right one."""
    request = kserve.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp64_contents.extend([1, 2, 3])
    _refused(call, INFER, request, Code.INVALID_ARGUMENT, "expected fp32_contents for FP32, got fp64_contents")


def test_a_shape_that_claims_more_than_there_is(call: Caller) -> None:
    """No memory is taken for a claim."""
    request = _infer(SURE)
    request.inputs[0].shape[:] = [2**40, 2**40]
    _refused(call, INFER, request, Code.INVALID_ARGUMENT, r"inputs\[x\].shape: expected at most")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 100, b"\xff" * 1000])
def test_a_broken_image(call: Caller, content: bytes) -> None:
    """Truncated, another format, noise."""
    request = _predict(model="image", subject=types_pb2.Subject(content=content, media_type="image/png"))
    sentence = "subject.content: expected a whole PNG image, got [0-9]+ bytes that are none"
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, sentence)


def test_an_image_cut_off(call: Caller) -> None:
    """A true beginning is not enough."""
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(whole, "PNG")
    subject = types_pb2.Subject(content=whole.getvalue()[:1500], media_type="image/png")
    request = _predict(model="image", subject=subject)
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, "expected a whole PNG image")


@pytest.mark.parametrize(("side", "got"), [(5_000, "5000 x 5000"), (60_000, "far more")])
def test_a_decompression_bomb(call: Caller, side: int, got: str) -> None:
    """Refused by its header; not a pixel is unpacked."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10**6))
        + chunk(b"IEND", b"")
    )
    request = _predict(model="image", subject=types_pb2.Subject(content=bomb, media_type="image/png"))
    sentence = f"expected an image of at most 16777216 pixels, got {got}"
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "subject.content: expected JSON"),
        (b"[1,2,3]", "subject.content: expected an object with r, g, b"),
        (b'{"r": 1, "g": 2}', "subject.content.b: expected a number, got nothing"),
        (b'{"r": 1, "g": 2, "b": "x"}', "subject.content.b: expected a number, got 'x'"),
        (b'{"r": 1, "g": 2, "b": 3, "a": 4}', "expected only r, g, b, got 'a'"),
        (b"[" * 100_000, "subject.content: expected JSON"),
    ],
)
def test_features_that_are_wrong(call: Caller, content: bytes, sentence: str) -> None:
    """The field is named."""
    request = _predict(model="features", subject=types_pb2.Subject(content=content, media_type="application/json"))
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, sentence)


def test_a_subject_that_the_model_cannot_read(call: Caller) -> None:
    """Without preprocessing, or of another type."""
    request = _predict(model="m", subject=types_pb2.Subject(content=b"a", media_type="text/plain"))
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, "subject: this model has no preprocessing for text/plain")
    request = _predict(model="image", subject=types_pb2.Subject(content=b"a", media_type="text/html"))
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, "subject.media_type: expected image/png or image/jpeg")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"priority": 10}, "priority: expected 0 .* to 9, got 10"),
        ({"wish": 7}, "wish: expected PERSON, MODEL or none, got 7"),
        ({"on_expiry": 4}, "on_expiry: expected ANSWER_UNREVIEWED, ABSTAIN or ESCALATE, got 4"),
        ({"tier": "t" * 65}, "tier: expected at most 64 characters, got 65"),
        (
            {"excluded_reviewers": [f"r{at}" for at in range(33)]},
            "excluded_reviewers: expected at most 32 names, got 33",
        ),
        ({"excluded_reviewers": [""]}, "excluded_reviewers: expected one, got an empty text"),
        ({"idempotency_key": "k" * 129}, "idempotency_key: expected at most 128 characters, got 129"),
        ({"callback": types_pb2.Callback(webhook_url="gopher://x")}, "callback.webhook_url"),
        ({"subject": types_pb2.Subject(content=b"a", media_type="??")}, "subject.media_type"),
    ],
)
def test_fields_of_predict_that_are_wrong(call: Caller, fields: dict[str, Any], sentence: str) -> None:
    """Each is named."""
    _refused(call, PREDICT, _predict(SURE, **fields), Code.INVALID_ARGUMENT, sentence)


def test_more_than_one_row_for_predict(call: Caller) -> None:
    """One question a call."""
    request = _predict(np.repeat(SURE, 2, axis=0))
    _refused(call, PREDICT, request, Code.INVALID_ARGUMENT, r"inputs\[x\].shape: expected one row, got 2")


def test_the_same_key_with_another_input(call: Caller) -> None:
    """ALREADY_EXISTS, over both contracts."""
    call(PREDICT, _predict(SURE, idempotency_key="bad-input").SerializeToString())
    other = _predict(SURE[:, ::-1] * 0.5, idempotency_key="bad-input")
    _refused(call, PREDICT, other, Code.ALREADY_EXISTS, "'bad-input' was used with another input")


def test_an_input_that_the_model_itself_refuses(call: Caller) -> None:
    """An index beyond its table: told as the caller's, without source files; those in its batch are answered."""
    request = _infer(np.array([7], np.int64), model="table", name="i", datatype="INT64")
    _refused(
        call, INFER, request, Code.INVALID_ARGUMENT, "inputs: the model cannot be run on them: .*out of data bounds"
    )


def test_a_message_of_64_mib(call: Caller) -> None:
    """RESOURCE_EXHAUSTED by the transport, before it is taken in."""
    _refused(call, PREDICT, b"\0" * 64 * 1024 * 1024, Code.RESOURCE_EXHAUSTED, "larger than max")


def test_a_deadline_already_past(call: Caller, stand: Stand) -> None:
    """DEADLINE_EXCEEDED from the server itself, told over plain HTTP/2 since a gRPC client would not even send it."""
    del call
    payload = _infer(SURE).SerializeToString()
    host, _, port = stand.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": INFER,
            ":authority": stand.address,
            "te": "trailers",
            "content-type": "application/grpc",
            "grpc-timeout": "1n",
        }
        connection.sendall(_frame(1, 4, 1, b"".join(_field(*header) for header in headers.items())))
        # gRPC counts deadlines in milliseconds.
        time.sleep(0.02)
        connection.sendall(_frame(0, 1, 1, b"\0" + struct.pack(">I", len(payload)) + payload))
        received = b""
        while b"grpc-status" not in received:
            block = connection.recv(4096)
            assert block, received
            received += block
    assert b"grpc-status\x014" in received


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def _field(name: str, value: str) -> bytes:
    """One header as a literal that is not indexed (RFC 7541, section 6.2.2); texts shorter than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


@pytest.mark.parametrize("name", ["", "nope", "queues/m/deferrals/", "queues/../deferrals/x", "queues/m/deferrals/é"])
def test_a_name_that_is_none(call: Caller, name: str) -> None:
    """INVALID_ARGUMENT says what one looks like."""
    request = pb.GetDeferralRequest(name=name)
    method = "/demur.v1.PredictionService/GetDeferral"
    _refused(call, method, request, Code.INVALID_ARGUMENT, "name: expected queues/<queue>/deferrals/<id>")


def test_a_task_that_nobody_could_answer(call: Caller) -> None:
    """RequestReview without a question."""
    request = pb.RequestReviewRequest(
        queue="q",
        subject=types_pb2.Subject(content=b"a", media_type="text/plain"),
        task=types_pb2.Task(kind=types_pb2.LABEL),
    )
    method = "/demur.v1.PredictionService/RequestReview"
    _refused(call, method, request, Code.INVALID_ARGUMENT, "task.question: expected a question")


def test_a_tier_that_the_queue_does_not_have(call: Caller) -> None:
    """Named with those there are, where it is parked, by either way."""
    words = "tier: expected one of queue tiered .reader, doctor., got 'nurse'"
    _refused(call, PREDICT, _predict(UNSURE, model="tiered", tier="nurse"), Code.INVALID_ARGUMENT, words)
    request = pb.RequestReviewRequest(
        queue="tiered",
        subject=types_pb2.Subject(content=b"a", media_type="text/plain"),
        task=types_pb2.Task(question="?", kind=types_pb2.NUMBER),
        tier="nurse",
    )
    _refused(call, "/demur.v1.PredictionService/RequestReview", request, Code.INVALID_ARGUMENT, words)


def test_a_caller_that_is_not_who_it_may_be(stand: Stand, channel: grpc.Channel) -> None:
    """A name that cannot be one."""
    del stand
    ask: Any = channel.unary_unary(PREDICT)
    with pytest.raises(grpc.RpcError) as caught:
        ask(b"", metadata=(("demur-identity", " a "),), timeout=SECONDS)
    assert caught.value.code() in {Code.INVALID_ARGUMENT, Code.NOT_FOUND}
