"""A reply put together from a template reads as the one that the general path writes."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from demur import kserve
from demur.v1 import prediction_pb2 as pb
from fallback.errors import DemurError
from fallback.queue import Parked
from gateway import plain_infer, plain_predict
from gateway.champion import Live
from gateway.declined import parted
from gateway.intake import Intake
from gateway.joining import joined
from gateway.kserve import InferWaiter
from gateway.metrics import Metrics
from gateway.model import Model
from gateway.policy import Policy
from gateway.question import Form, Question, learnt
from gateway.quick import Answered, Fit, QuickJob, Wording, answer_all, fit, varint
from gateway.registry import ModelVersion
from gateway.request import Result, Waiter
from gateway.rules import Decisions, Rules
from gateway.service import PredictWaiter
from gateway.tensor import Array
from gateway.way import Way
from tests.live_gateway import JUDGED, LABELS, told

REPLIES = 3_000
DTYPES = ("f4", "f8", "f2", "i8", "u1", "?", ">f4")


class Call:
    """A call that remembers its reply."""

    driven = False
    cancelled = False
    deadline = None
    peer = "unix:"
    metadata = ()
    method = "/test"

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.got: bytes | DemurError = b""

    def reply(self, payload: bytes, trailing: object = ()) -> None:
        assert trailing == ()
        self.got = payload

    def fail(self, error: DemurError, trailing: object = ()) -> None:
        assert trailing == ()
        self.got = error

    async def send(self, payload: bytes) -> None:
        raise NotImplementedError

    async def receive(self) -> bytes | None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """A version that takes `x` (rows, 3)."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(told(1))
    model = Model.load(path, device="cpu", threads=1)
    facts = msgspec.structs.replace(JUDGED, model="m", version="1", inputs=model.signature.inputs)
    version = ModelVersion(
        model="m", version="1", folder=path.parent, manifest=facts, sha256="", create_time=datetime.now(tz=UTC)
    )
    intake = Intake(inputs=model.signature.inputs, batched=True, preprocess=None, forbid_nan=True, rows_max=16)
    return Live(
        version=version,
        model=model,
        rules=Rules.compile(facts.policy, LABELS),
        intake=intake,
        way=Way(instances=1, rows_max=16),
    )


def infer_asked(draw: random.Random) -> Any:
    message = kserve.ModelInferRequest(model_name="m", id=draw.choice(("", "7", "an-id-0123", "x" * 127)))
    rows = draw.randrange(1, 4)
    message.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    message.raw_input_contents.append(draw.randbytes(12 * rows))
    for name in draw.sample(("p", "v"), draw.randrange(3)):
        message.outputs.add(name=name)
    return message


def predict_asked(draw: random.Random) -> Any:
    message = pb.PredictRequest(model="m")
    shape = draw.choice(([3], [1, 3]))
    message.inputs.add(name="x", datatype="FP32", shape=shape, raw=draw.randbytes(12))
    return message


def outputs_of(draw: random.Random, rows: int) -> dict[str, Array]:
    """Outputs of any type and shape, one row for each of the batch's."""
    found = {}
    for name in ("p", "v"):
        shape = (rows, *(draw.choice((0, 1, 2, 40)) for _ in range(draw.randrange(3))))
        values = np.frombuffer(draw.randbytes(8 * int(np.prod(shape))), np.uint64).reshape(shape)
        found[name] = (values % 2).astype(draw.choice(DTYPES))
    return found


def judged(draw: random.Random, rows: int) -> Decisions:
    """Some of the policies that answer these rows, and what they decide."""
    policy = Policy(threshold=draw.choice((0.0, 0.25)), audit_share=draw.choice((0.0, 0.05)))
    if draw.random() < 0.3:
        policy = msgspec.structs.replace(policy, alpha=0.1, until_proved="answer", audit_share=0.05)
    if draw.random() < 0.3:
        policy = msgspec.structs.replace(policy, class_thresholds={"a": 0.2, "b": 0.1}, always_person=("z",))
    return Rules.compile(policy, LABELS).decide(
        confidence=np.array([draw.choice((1.0, 0.25 + 0.75 * draw.random())) for _ in range(rows)]),
        predicted=np.array([draw.randrange(3) for _ in range(rows)]),
        scores=np.ones(rows),
        draws=np.array([0.05 + 0.95 * draw.random() for _ in range(rows)]),
    )


def result_of(decisions: Decisions, job: QuickJob, outputs: dict[str, Array], first: int) -> Result:
    """What the general path has of one request of the batch."""
    return Result(
        model="m",
        version="1",
        labels=LABELS,
        outputs={name: array[first : first + job.rows] for name, array in outputs.items()},
        rows=job.rows,
        first=first,
        decisions=decisions,
        judged=True,
        answer_output="p",
        on_deferral="provisional",
        queue_seconds=7.0 - job.since,
        compute_seconds=0.25,
    )


def general_infer(call: Any, question: Question) -> Waiter:
    service: Any = None  # only what is deferred needs it
    return InferWaiter(call, question.id_of(call.payload).decode(), question.outputs, service)


def general_predict(call: Any, question: Question) -> Waiter:
    del question
    return PredictWaiter(call)


WAYS: dict[str, tuple[Form, Callable[[random.Random], Any], Wording, Any]] = {
    "infer": (plain_infer.FORM, infer_asked, plain_infer.InferWording(general_infer), kserve.ModelInferResponse),
    "predict": (plain_predict.FORM, predict_asked, plain_predict.PredictWording(general_predict), pb.PredictResponse),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_reply_from_a_template_reads_as_the_general_one(live: Live, way: str) -> None:
    """Whatever the outputs, the rows, the id, and what the policy says."""
    form, asked, wording, response = WAYS[way]
    draw, metrics, written = random.Random(5), Metrics(), 0
    while written < REPLIES:
        jobs = _jobs(draw, live, form, asked, wording, metrics)
        rows = sum(job.rows for job in jobs)
        outputs, decisions = outputs_of(draw, rows), judged(draw, rows)
        assert not (decisions.deferred | decisions.audited).any()
        batch = Answered(live, decisions, jobs, outputs, start=7.0, compute_seconds=0.25)
        first = 0
        for at, job in enumerate(jobs):
            general = Call(job.call.payload)
            wording.waiter(general, job.question).answer(result_of(decisions, job, outputs, first))
            job.answer_from(batch, at, first)
            got = job.call.got  # type: ignore[attr-defined]
            assert response.FromString(got) == response.FromString(general.got)
            first += job.rows
            written += 1
        alone = [job.call.got for job in jobs]  # type: ignore[attr-defined]
        some = sorted(draw.sample(range(len(jobs)), draw.randrange(len(jobs) + 1)))
        _forget(jobs)
        answer_all(batch, jobs, some)
        assert [job.call.got for job in jobs] == [  # type: ignore[attr-defined]
            got if number in some else b"" for number, got in enumerate(alone)
        ]


def test_what_is_kept_of_a_batch_is_none_of_the_sessions_arrays(live: Live) -> None:
    """One of them would keep the memory of a version that was replaced, as long as a row waits for a person."""
    form, asked, wording, _ = WAYS["infer"]
    draw = random.Random(3)
    for _ in range(50):
        jobs = _jobs(draw, live, form, asked, wording, Metrics())
        rows = sum(job.rows for job in jobs)
        outputs = outputs_of(draw, rows)
        expected = {name: array.tolist() for name, array in outputs.items()}
        gone = [weakref.ref(array) for array in outputs.values()]
        batch = Answered(live, judged(draw, rows), jobs, outputs, start=7.0, compute_seconds=0.25)
        del outputs
        assert [found() for found in gone] == [None] * len(gone)
        np.testing.assert_equal({name: array.tolist() for name, array in batch.outputs.items()}, expected)
        result = batch.result(jobs[-1], rows - jobs[-1].rows)
        np.testing.assert_equal(
            {name: array.tolist() for name, array in result.outputs.items()},
            {name: values[-jobs[-1].rows :] for name, values in expected.items()},
        )


def test_requests_that_ask_the_same_are_answered_in_one_go(live: Live) -> None:
    """Each with its own rows and its own confidence, and who is not to be answered yet is not."""
    draw, message = random.Random(7), kserve.ModelInferRequest(model_name="m", raw_input_contents=[bytes(24)])
    message.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    message.outputs.add(name="v")
    payload = message.SerializeToString()
    question = learnt(payload, message, plain_infer.FORM)
    assert question is not None
    fits = fit(question, live, one_row=False)
    assert fits is not None
    wording, metrics = plain_infer.InferWording(general_infer), Metrics()
    jobs = [QuickJob(Call(payload), question, fits, "client", wording, metrics) for _ in range(5)]
    outputs = {"v": np.arange(20, dtype=np.float32).reshape(10, 2)}
    batch = Answered(live, judged(draw, 10), jobs, outputs, start=0.0, compute_seconds=0.0)
    assert wording.write_all(batch, jobs, [1, 4]) == [wording.write(batch, jobs[at], at, 2 * at) for at in (1, 4)]
    answer_all(batch, jobs, [1, 4])
    got = [kserve.ModelInferResponse.FromString(jobs[at].call.got) for at in (1, 4)]  # type: ignore[attr-defined]
    assert [np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() for reply in got] == [
        [4.0, 5.0, 6.0, 7.0],
        [16.0, 17.0, 18.0, 19.0],
    ]
    assert [job.call.got for job in (jobs[0], jobs[2], jobs[3])] == [b""] * 3  # type: ignore[attr-defined]


def test_who_is_parked_weighs_what_is_kept_of_the_batch(live: Live) -> None:
    """All of them together no less than that."""
    form, asked, wording, _ = WAYS["infer"]
    draw, metrics = random.Random(7), Metrics()
    jobs = _jobs(draw, live, form, asked, wording, metrics)
    rows = sum(job.rows for job in jobs)
    outputs = outputs_of(draw, rows) | {"embedding": np.zeros((rows, 10_000), np.float32)}
    unsure = Rules.compile(Policy(threshold=0.7, audit_share=0), LABELS).decide(
        confidence=np.zeros(rows), predicted=np.zeros(rows, np.intp), scores=np.zeros(rows), draws=np.ones(rows)
    )
    batch = Answered(live, unsure, jobs, outputs, start=7.0, compute_seconds=0.25)
    _, found = parted(batch, jobs)
    assert len(found) == len(jobs)
    requests = sum(len(job.call.payload) for job in jobs)
    assert requests + batch.weight - len(found) < sum(each.weight for each in found) <= requests + batch.weight
    assert batch.weight >= rows * 40_000


def _forget(jobs: list[QuickJob]) -> None:
    for job in jobs:
        job.call.got = b""  # type: ignore[attr-defined]


def test_a_parked_reply_from_a_template_reads_as_the_general_one(live: Live) -> None:
    """With the names of the rows that are parked, in order, and how long they may wait."""
    form, asked, wording, response = WAYS["infer"]
    draw, metrics, written = random.Random(7), Metrics(), 0
    while written < REPLIES // 10:
        jobs = _jobs(draw, live, form, asked, wording, metrics)
        rows = sum(job.rows for job in jobs)
        outputs = outputs_of(draw, rows)
        sure = np.array([draw.random() for _ in range(rows)])
        decisions = Rules.compile(Policy(threshold=0.7, audit_share=0), LABELS).decide(
            confidence=sure, predicted=np.zeros(rows, np.intp), scores=sure, draws=np.ones(rows)
        )
        batch = Answered(live, decisions, jobs, outputs, start=7.0, compute_seconds=0.25)
        first = 0
        for at, job in enumerate(jobs):
            wait = draw.choice((None, 8.5))
            places = [row for row in range(job.rows) if decisions.deferred[first + row]]
            parked = {row: Parked(name=f"queues/m/deferrals/{row}", created=True, expected_wait=wait) for row in places}
            if parked:
                general = Call(job.call.payload)
                result = replace(
                    result_of(decisions, job, outputs, first),
                    deferrals={row: each.name for row, each in parked.items()},
                    expected_waits={} if wait is None else dict.fromkeys(parked, wait),
                )
                wording.waiter(general, job.question).answer(result)
                assert job.answer_parked(batch, at, first, parked)
                got = job.call.got  # type: ignore[attr-defined]
                assert response.FromString(got) == response.FromString(general.got)
                written += 1
            first += job.rows


def test_what_no_template_is_for_is_left_to_the_general_path(live: Live) -> None:
    """A queue over its limit has its say; a model that refuses or waits does that; Predict has its own words."""
    over = {0: Parked(name="queues/m/deferrals/1", created=True, over="depth_max")}
    refusing = msgspec.structs.replace(live.manifest, on_deferral="refuse")
    other = replace(live, version=replace(live.version, manifest=refusing))
    fine = {0: Parked(name="queues/m/deferrals/1", created=True)}
    for way, version, parked in (("infer", live, over), ("infer", other, fine), ("predict", live, fine)):
        form, asked, wording, _ = WAYS[way]
        draw = random.Random(2)
        jobs = _jobs(draw, version, form, asked, wording, Metrics())
        rows = sum(job.rows for job in jobs)
        batch = Answered(version, judged(draw, rows), jobs, outputs_of(draw, rows), start=7.0, compute_seconds=0.25)
        assert not jobs[0].answer_parked(batch, 0, 0, parked)


def _jobs(
    draw: random.Random, live: Live, form: Form, asked: Any, wording: Wording, metrics: Metrics
) -> list[QuickJob]:
    found = []
    for _ in range(draw.randrange(1, 6)):
        message = asked(draw)
        payload = message.SerializeToString()
        question = learnt(payload, message, form)
        if question is None:
            continue
        fits = fit(question, live, one_row=wording.one_row)
        assert fits is not None
        job = QuickJob(Call(payload), question, fits, "client", wording, metrics)
        job.since = 7.0 - draw.choice((0.0, 1e-6, 0.0005, 1.5, 3 * draw.random()))
        found.append(job)
    return found or _jobs(draw, live, form, asked, wording, metrics)


def test_an_output_that_went_with_a_swap_is_refused(live: Live) -> None:
    """Who asked for it hears so; the others of the batch have their answers."""
    message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[b"abcdefghijkl"])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    message.outputs.add(name="v")
    question = learnt(message.SerializeToString(), message, plain_infer.FORM)
    assert question is not None
    fits = fit(question, live, one_row=False)
    assert fits is not None
    call = Call(message.SerializeToString())
    job = QuickJob(call, question, fits, "client", plain_infer.InferWording(general_infer), Metrics())
    draw = random.Random(1)
    outputs = {"p": np.ones((1, 3), np.float32)}
    job.answer_from(Answered(live, judged(draw, 1), [job], outputs, start=0.0, compute_seconds=0.0), 0, 0)
    assert isinstance(call.got, DemurError)
    assert call.got.message == "outputs: expected some of p, got 'v'"


def test_a_question_that_does_not_fit_is_left_to_the_general_path(live: Live) -> None:
    """Which says what is wrong."""
    for change in ({"shape": [3, 1]}, {"shape": [3]}, {"datatype": "INT32"}, {"name": "y"}):
        message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[b"abcdefghijkl"])
        message.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [1, 3], **change})
        question = learnt(message.SerializeToString(), message, plain_infer.FORM)
        assert question is not None
        assert fit(question, live, one_row=False) is None


@pytest.mark.parametrize("number", [1, 127, 128, 300, 2**31, 2**64 - 1])
def test_varints_are_protobufs(number: int) -> None:
    """Of all lengths that stand in replies, and beyond."""
    assert kserve.InferParameter(uint64_param=number).SerializeToString()[1:] == varint(number)


@pytest.mark.parametrize("size", [1, 2_000])
def test_rows_are_joined_in_order_whatever_they_weigh(size: int) -> None:
    """Requests of different numbers of rows among them, and a small batch after a large one."""
    draw, metrics = np.random.default_rng(4), Metrics()
    wording = plain_infer.InferWording(general_infer)
    for counts in ((1, 3, 2), (2,), (1, 1, 1, 1), (1,)):
        jobs, rows = [], [draw.normal(size=(count, size)).astype(np.float32) for count in counts]
        for each in rows:
            message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[each.tobytes()])
            message.inputs.add(name="x", datatype="FP32", shape=each.shape)
            payload = message.SerializeToString()
            question = learnt(payload, message, plain_infer.FORM)
            assert question is not None
            nothing: Any = None
            fits = Fit(intake=nothing, rows=len(each), dtype=each.dtype, row=(size,), group=("plain",))
            jobs.append(QuickJob(Call(payload), question, fits, "client", wording, metrics))
        (found,) = joined(jobs).values()
        assert np.array_equal(found, np.concatenate(rows))


def test_what_is_wrong_with_the_rows_is_told_only_when_these_are_prepared(live: Live) -> None:
    """Who lets one wait on the general path must not be stopped by it: others of its batch have their replies."""
    message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[np.full(3, np.nan, "<f4").tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    payload = message.SerializeToString()
    question = learnt(payload, message, plain_infer.FORM)
    assert question is not None
    fits = fit(question, live, one_row=False)
    assert fits is not None
    job = QuickJob(Call(payload), question, fits, "client", plain_infer.InferWording(general_infer), Metrics())
    assert np.isnan(job.request.tensors["x"]).all()
    with pytest.raises(DemurError, match="expected numbers, got 3 NaN"):
        _ = job.prepared
