"""PredictionService through real channels and a real queue."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from demur.v1 import types_pb2
from fallback.answer import AnswerKind, CantTell, Identity, Json, LabelOption, Task
from fallback.deferral import Lease, OnExpiry, Source, State
from fallback.errors import ConflictError, NotFoundError, OverdueError, StateError
from gateway.client import Client
from gateway.rules import Decision
from gateway.slabs import Slab
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import LABELS, SURE, UNSURE

OTHER = np.array([[0.31, 0.38, 0.31]], np.float32)


@pytest.fixture
async def client(stand: Stand) -> AsyncIterator[Client]:
    async with Client(stand.address, identity=f"client-{uuid.uuid4().hex[:8]}") as found:
        yield found


async def test_a_confident_request_is_answered(client: Client) -> None:
    """With label, confidence, version, outputs, and what every rule said."""
    got = await client.predict("m", inputs={"x": SURE})
    assert (got.decision, got.label, got.version, got.deferral) == (Decision.ANSWERED, "b", "1", None)
    assert got.confidence == pytest.approx(0.9)
    assert np.array_equal(got.outputs["p"], SURE)
    assert [rule.rule for rule in got.rules] == ["threshold", "audit"]
    assert got.rules[0].evaluation == "confidence 0.90 >= 0.80"
    assert got.compute_seconds > 0


async def test_an_uncertain_request_is_parked_and_a_person_answers(stand: Stand, client: Client) -> None:
    """The name comes once the queue has it; the outcome is the person's."""
    got = await client.predict("m", text="look at this", inputs={"x": UNSURE[0]}, attributes={"site": "north"})
    assert got.decision is Decision.DEFERRED
    assert got.deferral is not None
    lease = await asyncio.to_thread(stand.review, "m", "c")
    assert lease.deferral.name == got.deferral.name
    assert lease.subject == b"look at this"
    assert (lease.deferral.attributes, lease.deferral.reasons) == ({"site": "north"}, ("threshold",))
    told = await got.deferral.outcome(timeout_seconds=5)
    assert (told.label, told.reviewed, told.state) == ("c", True, State.RESOLVED)


async def test_what_is_parked_can_be_trained_on(stand: Stand, client: Client) -> None:
    """The inputs as the model took them, and what it said of them."""
    got = await client.predict("m", inputs={"x": UNSURE})
    assert got.deferral is not None
    raw = await asyncio.to_thread(stand.run, stand.gateway.queue.inputs(got.deferral.name))
    (tensor,) = types_pb2.Tensors.FromString(raw).tensors
    assert (tensor.name, tensor.datatype, list(tensor.shape), tensor.raw) == ("x", "FP32", [1, 3], UNSURE.tobytes())
    parked = (await client.get(got.deferral.name)).deferral
    assert parked.prediction is not None
    assert parked.prediction.version == "1"
    assert parked.prediction.confidence == pytest.approx(0.4)
    subject = await asyncio.to_thread(stand.run, stand.gateway.queue.subject(got.deferral.name))
    assert msgspec.json.decode(subject)["x"]["shape"] == [1, 3]
    await got.deferral.cancel()


async def test_an_audit_goes_to_a_person_beside_the_answer(stand: Stand, client: Client) -> None:
    """The client has its answer and no deferral; the draw is on record."""
    got = await client.predict("audited", inputs={"x": SURE}, idempotency_key="k")
    assert (got.decision, got.deferral) == (Decision.ANSWERED, None)
    lease = await asyncio.to_thread(stand.review, "audited", "b")
    assert lease.deferral.audit
    assert lease.deferral.reasons == ("audit",)
    draw = lease.deferral.draw
    assert draw is not None
    assert (draw.q, 0 <= draw.xi < 1) == (1.0, True)
    assert draw.request_key.endswith("\nk")


async def test_a_retry_that_is_deferred_does_not_get_the_audit_of_its_first_answer(
    stand: Stand, client: Client
) -> None:
    """An audit's key is its own."""
    answered = await client.predict("audited", inputs={"x": SURE}, idempotency_key="both")
    assert answered.deferral is None
    wished = await client.predict("audited", inputs={"x": SURE}, idempotency_key="both", wish="person")
    assert wished.deferral is not None
    parked = (await client.get(wished.deferral.name)).deferral
    assert (parked.audit, parked.reasons) == (False, ("wish",))
    for _ in range(2):
        await asyncio.to_thread(stand.review, "audited", "b")


async def test_a_client_may_wish_for_a_person(stand: Stand, client: Client) -> None:
    """However sure the model is."""
    got = await client.predict("m", inputs={"x": SURE}, wish="person")
    assert got.decision is Decision.DEFERRED
    lease = await asyncio.to_thread(stand.review, "m", "b")
    assert lease.deferral.reasons == ("wish",)


async def test_a_wish_for_the_model_counts_where_the_policy_allows_it(stand: Stand, client: Client) -> None:
    """There the answer is marked; elsewhere the wish is ignored and the reply says so."""
    granted = await client.predict("wishful", inputs={"x": UNSURE}, wish="model")
    assert (granted.decision, granted.deferral) == (Decision.UNREVIEWED, None)
    ignored = await client.predict("m", inputs={"x": UNSURE}, wish="model")
    assert ignored.decision is Decision.DEFERRED
    assert any("ignored" in rule.evaluation for rule in ignored.rules)
    await asyncio.to_thread(stand.review, "m", "b")


async def test_a_model_without_labels_and_task_is_plain(stand: Stand, client: Client) -> None:
    """Unreviewed, never parked; a wish for a person is refused."""
    got = await client.predict("plain", inputs={"x": UNSURE})
    assert (got.decision, got.label, got.deferral) == (Decision.UNREVIEWED, "", None)
    with pytest.raises(StateError, match="without labels and a task"):
        await client.predict("plain", inputs={"x": UNSURE}, wish="person")
    assert await asyncio.to_thread(stand.depth, "plain") == 0


async def test_a_retry_gets_the_same_deferral(stand: Stand, client: Client) -> None:
    """As often as it is made; another input under the same key is refused."""
    first = await client.predict("m", inputs={"x": UNSURE}, idempotency_key="retry")
    again = await client.predict("m", inputs={"x": UNSURE}, idempotency_key="retry", priority=3)
    assert first.deferral is not None
    assert again.deferral is not None
    assert first.deferral.name == again.deferral.name
    with pytest.raises(ConflictError, match="'retry' was used with another input"):
        await client.predict("m", inputs={"x": OTHER}, idempotency_key="retry")
    stand.gateway._remembered._found.clear()  # as in another gateway: the queue itself refuses
    with pytest.raises(ConflictError):
        await client.predict("m", inputs={"x": OTHER}, idempotency_key="retry")
    await first.deferral.cancel()


async def test_a_key_of_an_answered_request_is_remembered(client: Client) -> None:
    """The same input is answered again, another is refused; another client's key is its own."""
    await client.predict("m", inputs={"x": SURE}, idempotency_key="once")
    assert (await client.predict("m", inputs={"x": SURE}, idempotency_key="once")).label == "b"
    with pytest.raises(ConflictError):
        await client.predict("m", inputs={"x": SURE[:, ::-1] * 0.99}, idempotency_key="once")


async def test_a_person_can_be_asked_without_a_model(stand: Stand, client: Client) -> None:
    """RequestReview."""
    task = Task(question="Cat?", labels=(LabelOption(label="yes", key="y"), LabelOption(label="no", key="n")))
    asked = await client.request_review("cats", task, text="a tail", idempotency_key="cat")
    again = await client.request_review("cats", task, text="a tail", idempotency_key="cat")
    assert asked.name == again.name
    lease = await asyncio.to_thread(stand.review, "cats", "yes")
    assert (lease.deferral.task, lease.subject) == (task, b"a tail")
    assert (await asked.outcome(timeout_seconds=5)).label == "yes"


async def test_a_client_says_whom_to_ask_and_whom_not(stand: Stand, client: Client) -> None:
    """The tier to begin at, the people who are never asked, and that the next tier is asked where nobody comes."""
    await client.predict(
        "tiered", inputs={"x": UNSURE}, tier="doctor", excluded_reviewers=["ann"], on_expiry="escalate"
    )
    task = Task(question="Cat?", labels=(LabelOption(label="yes", key="y"), LabelOption(label="no", key="n")))
    await client.request_review(
        "tiered", task, text="a tail", tier="doctor", excluded_reviewers=["ann"], on_expiry="escalate"
    )

    def lease(name: str) -> list[Lease]:
        found: list[Lease] = stand.run(stand.gateway.queue.lease("tiered", reviewer=Identity(name=name), limit=9))
        return found

    assert await asyncio.to_thread(lease, "ann") == []
    found = [lease.deferral for lease in await asyncio.to_thread(lease, "bob")]
    assert [(one.tier, one.on_expiry) for one in found] == [("doctor", OnExpiry.ESCALATE)] * 2


async def test_waiting_ends_with_the_outcome_or_the_time(stand: Stand, client: Client) -> None:
    """An open deferral is returned as it is; `outcome` says that nobody came."""
    got = await client.predict("m", inputs={"x": UNSURE})
    assert got.deferral is not None
    assert (await client.wait(got.deferral.name, timeout_seconds=0.1)).state is State.OPEN
    with pytest.raises(OverdueError, match=r"nobody answered within 0\.1 s"):
        await got.deferral.outcome(timeout_seconds=0.1)
    waiting = asyncio.create_task(got.deferral.outcome(timeout_seconds=10))
    await asyncio.to_thread(stand.review, "m", CantTell())
    told = await waiting
    assert (told.state, told.answer, told.label) == (State.RESOLVED, CantTell(), "")


async def test_a_question_can_be_taken_back(client: Client) -> None:
    """Once; with an outcome it is too late."""
    got = await client.predict("m", inputs={"x": UNSURE})
    assert got.deferral is not None
    told = await got.deferral.cancel()
    assert told.state is State.CANCELLED
    assert told.deferral.outcome is not None
    assert told.deferral.outcome.source is Source.CANCELLATION
    with pytest.raises(StateError):
        await got.deferral.cancel()
    with pytest.raises(NotFoundError):
        await client.get("queues/m/deferrals/00000000000000000000000000000000")


async def test_outcomes_are_streamed_and_resumed(stand: Stand, client: Client) -> None:
    """From a cursor on, in order, each once."""
    names: list[str] = []
    for _ in range(3):
        task = Task(question="What?", kind=AnswerKind.JSON)
        names.append((await client.request_review("streamed", task, json={"n": len(names)})).name)
        await asyncio.to_thread(stand.review, "streamed", Json("[]"))
    seen = []
    async for event in client.watch("streamed", "0"):
        seen.append(event)
        if len(seen) == 2:
            break
    async for event in client.watch("streamed", seen[-1].cursor):
        seen.append(event)
        break
    assert [event.deferral.name for event in seen] == names


async def test_a_pinned_version_is_the_live_one_or_none(client: Client) -> None:
    """NOT_FOUND names what is there."""
    assert (await client.predict("m", inputs={"x": SURE}, version="1")).version == "1"
    with pytest.raises(NotFoundError, match="has no version '2' loaded; loaded is 1"):
        await client.predict("m", inputs={"x": SURE}, version="2")
    with pytest.raises(NotFoundError, match="model 'nope' is not served here; there are: audited, "):
        await client.predict("nope", inputs={"x": SURE})


async def test_a_subject_becomes_the_models_tensor(client: Client, png: bytes) -> None:
    """An image, features, raw contents."""
    got = await client.predict("image", image=png)
    assert got.outputs["p"].tolist() == [[0.0, pytest.approx(0.2), pytest.approx(0.4), 1.0]]
    got = await client.predict("features", json={"b": 3, "r": 1, "g": 2})
    assert got.outputs["p"].tolist() == [[1, 2, 3]]
    got = await client.predict("plain", subject=(SURE.tobytes(), "application/octet-stream"))
    assert np.array_equal(got.outputs["p"], SURE)


async def test_many_at_once_are_batched_and_each_gets_its_own(client: Client) -> None:
    """Two hundred callers, every one its own row back."""
    rows = np.random.default_rng(0).dirichlet([1, 1, 1], 200).astype(np.float32)
    found = await asyncio.gather(*(client.predict("plain", inputs={"x": row}) for row in rows))
    assert all(np.array_equal(got.outputs["p"][0], row) for got, row in zip(found, rows, strict=True))


async def test_a_deadline_is_kept_while_a_run_is_under_way(
    stand: Stand, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears in time; those behind it, and a cancelled one, disturb nobody."""
    live = stand.gateway.champions.find("plain").champion.live
    assert live is not None
    entered, leave = threading.Event(), threading.Event()
    run = live.model.run

    def slow(feeds: dict[str, np.ndarray], slab: Slab | None) -> dict[str, np.ndarray]:
        entered.set()
        assert leave.wait(10)
        return run(feeds, slab)

    monkeypatch.setattr(live.model, "run", slow)
    first = asyncio.create_task(client.predict("plain", inputs={"x": SURE}))
    await asyncio.to_thread(entered.wait, 5)
    start = time.monotonic()
    with pytest.raises(OverdueError):
        await client.predict("plain", inputs={"x": SURE}, timeout_seconds=0.2)
    assert time.monotonic() - start < 5
    gone = asyncio.create_task(client.predict("plain", inputs={"x": SURE}))
    await asyncio.sleep(0.1)
    gone.cancel()
    after = asyncio.create_task(client.predict("plain", inputs={"x": SURE}))
    await asyncio.sleep(0.1)
    leave.set()
    assert (await first).decision is Decision.UNREVIEWED
    assert (await after).decision is Decision.UNREVIEWED


def test_the_labels_of_these_tests_are_those_of_the_model() -> None:
    """A guard: the tests above answer with labels by name."""
    assert LABELS == ("a", "b", "c")
