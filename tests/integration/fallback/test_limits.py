"""Every limit of a queue on a real server: what is refused, kept and given back."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from fallback import keys, limits, load
from fallback.answer import Identity, Label, Task
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.deferral import OnExpiry, Parking
from fallback.errors import DemurError, FullError, OverError
from fallback.queue import Parked, Queue
from fallback.records import encode_body, encode_task
from tests.integration.fallback.conftest import TASK
from tests.queueing import MakeParking, OpenQueue, load_of, review, state_of


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a load is not kept."""
    monkeypatch.setattr(limits, "LOAD_SECONDS", 0.0)


def _said(verdicts: list[Parked | DemurError]) -> list[str]:
    """'parked', 'kept', or the limit that was refused."""
    return [
        verdict.limit if isinstance(verdict, OverError) else "kept" if _kept(verdict) else "parked"
        for verdict in verdicts
    ]


def _kept(verdict: Parked | DemurError) -> bool:
    assert isinstance(verdict, Parked), verdict
    return bool(verdict.over)


# Over depth and budget.


@pytest.mark.parametrize(
    ("when_over", "verdicts"),
    [
        ("refuse", ["parked", "parked", "depth_max", "depth_max", "depth_max"]),
        ("answer_unreviewed", ["parked", "parked", "depth_max", "depth_max", "depth_max"]),
        ("keep", ["parked", "parked", "kept", "kept", "open_max"]),
    ],
)
async def test_over_its_depth_a_queue_does_as_its_setting_says(
    open_queue: OpenQueue, parking: MakeParking, when_over: str, verdicts: list[str]
) -> None:
    """Refused, refused for the gateway to answer, or kept up to the hard limit; the state names what is reached."""
    queue = open_queue(depth_max=2, open_max=4, when_over=when_over)
    found = await queue.park([parking() for _ in range(5)])
    assert _said(found) == verdicts
    last = found[-1]
    assert isinstance(last, OverError)
    assert last.unreviewed is (when_over == "answer_unreviewed")
    assert verdicts[-1] in last.message
    assert last.retry_after_seconds
    assert (await state_of(queue)).over == (("depth_max", "open_max") if when_over == "keep" else ("depth_max",))
    assert await queue.reconcile() == []


async def test_a_refused_client_is_told_when_there_may_be_room(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From how fast people answer, where that is known; the least a client is told is a second."""
    monkeypatch.setattr(load, "RETRY_SECONDS_MIN", 0.0)
    queue = open_queue(depth_max=2)
    unknown = (await queue.park([parking() for _ in range(3)]))[2]
    assert isinstance(unknown, OverError)
    assert unknown.retry_after_seconds == limits.FULL_RETRY_SECONDS
    await review(queue, ann, Label("7"))
    known = (await queue.park([parking(), parking()]))[1]
    assert isinstance(known, OverError)
    assert known.retry_after_seconds != limits.FULL_RETRY_SECONDS


@pytest.mark.parametrize("when_over", ["refuse", "answer_unreviewed", "keep"])
async def test_over_its_budget_a_queue_does_as_its_setting_says(
    open_queue: OpenQueue, parking: MakeParking, when_over: str
) -> None:
    """Two reviews each, five an hour: the third is one too many; audits count, and are never refused."""
    queue = open_queue(reviews_wanted=2, budget_per_hour=5, when_over=when_over)
    found = await queue.park([parking(), parking(audit=True), parking(), parking(audit=True), parking(audit=True)])
    third = "kept" if when_over == "keep" else "budget_per_hour"
    assert _said(found) == ["parked", "parked", third, "parked", "parked"]
    assert (await state_of(queue)).over == ("budget_per_hour",)
    assert (await state_of(queue)).asked_last_hour == (10 if when_over == "keep" else 8)
    refused = found[2]
    if isinstance(refused, OverError):
        # The first minute that was asked for in leaves the hour in 60 to 61 minutes.
        assert refused.retry_after_seconds is not None
        assert 3_540 < refused.retry_after_seconds <= 3_660


async def test_a_budget_frees_after_an_hour(open_queue: OpenQueue, parking: MakeParking) -> None:
    """What was asked for before that does not count."""
    queue = open_queue(budget_per_hour=1)
    assert _said(await queue.park([parking(), parking()])) == ["parked", "budget_per_hour"]
    redis, name = queue._store.connection.redis, keys.index("digits", "load")
    (minute,) = [field for field in await load_of(queue) if field.endswith(":asked")]
    await redis.hdel(name, minute)
    await redis.hset(name, f"{int(minute.partition(':')[0]) - 61}:asked", 1)
    assert _said(await queue.park([parking()])) == ["parked"]


async def test_one_more_review_uses_the_budget_too(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Who disagree ask for another person's time."""
    queue = open_queue(reviews_wanted=2, reviews_max=3, budget_per_hour=100)
    await queue.park([parking()])
    for reviewer, label in ((ann, "1"), (bob, "2")):
        (lease,) = await queue.lease("digits", reviewer=reviewer)
        await queue.submit(lease.token, reviewer=reviewer, answer=Label(label), request_id=lease.token)
    assert (await state_of(queue)).asked_last_hour == 3


async def test_being_over_is_said_to_the_log_once_in_a_while(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Not for each request; the first says so at once."""
    queue = open_queue(depth_max=1)
    with capture_logs() as said:
        await queue.park([parking() for _ in range(20)])
    over = [entry for entry in said if entry["event"] == "queue over its limit"]
    assert [(entry["queue"], entry["limit"], entry["does"]) for entry in over] == [("digits", "depth_max", "refuses")]


# Bytes.


def _bytes(parking: Parking) -> int:
    """What one more of an accepted request takes: its content and its body."""
    return len(parking.subject) + len(parking.inputs) + len(encode_body(parking, OnExpiry.ABSTAIN, (1, 3)))


async def test_what_requests_bring_is_counted_while_it_is_stored(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Content, body, and a task once: three fit; a repeat counts once; all is given back once the retention is over."""
    stored = len(encode_task(TASK)[1]) + 3 * _bytes(parking(callback=None))
    queue = open_queue(bytes_max=stored + 50, retention_seconds=1, reviews_wanted=1, reviews_max=3, on_expiry="abstain")
    found = await queue.park([parking(idempotency_key=str(number), callback=None) for number in range(4)])
    assert _said(found) == ["parked", "parked", "parked", "bytes_max"]
    refused = found[3]
    assert isinstance(refused, OverError)
    assert f"stores {stored} bytes" in refused.message
    assert not refused.unreviewed
    await queue.park([parking(idempotency_key="0", callback=None)])
    assert (await state_of(queue)).content_bytes == stored
    assert await queue.reconcile() == []
    for verdict in found[:3]:
        assert isinstance(verdict, Parked)
        await queue.cancel(verdict.name, request_id="")
    # It is kept for the retention time; what is left of it once its content is erased is counted on.
    assert (await state_of(queue)).content_bytes == stored
    assert isinstance(found[2], Parked)
    for repeat in "12":
        await queue.erase(found[2].name, request_id=repeat)
        assert (await state_of(queue)).content_bytes == stored - 16
    assert await queue.reconcile() == []
    await asyncio.sleep(2.1)
    await queue.reap()
    assert (await state_of(queue)).content_bytes == 0
    assert await queue.reconcile() == []
    assert _said(await queue.park([parking()])) == ["parked"]


async def test_a_wrong_count_of_bytes_is_found(queue: Queue, parking: MakeParking) -> None:
    """By the reconciler."""
    await queue.park([parking()])
    await queue._store.connection.redis.hincrby(keys.index("digits", "load"), "bytes", 5)
    (problem,) = await queue.reconcile()
    stored = (await state_of(queue)).content_bytes - 5
    assert problem == f"digits: load: bytes: expected {stored}, got {stored + 5}"


@pytest.mark.parametrize("many", [1, 10])
async def test_the_task_of_a_refused_request_is_not_stored(
    open_queue: OpenQueue, parking: MakeParking, many: int
) -> None:
    """A full queue takes nothing of those that it refuses, however large what they ask is."""
    queue = open_queue(depth_max=1)
    await queue.park([parking()])
    tasks = [Task(question="Which?", guidelines=f"{number}" * 60_000, labels=TASK.labels) for number in range(many)]
    assert _said(await queue.park([parking(task=task) for task in tasks])) == ["depth_max"] * many
    assert await queue._store.connection.redis.keys("*}:t:*") == [keys.task("digits", encode_task(TASK)[0]).encode()]


async def test_new_tasks_and_bodies_fill_a_queue_as_content_does(open_queue: OpenQueue, parking: MakeParking) -> None:
    """A request without a subject may bring 60 KB of guidelines, or of attributes; a task that is there adds none."""
    queue = open_queue(bytes_max=100_000)
    one, other = (Task(question="Which?", guidelines=text * 60_000, labels=TASK.labels) for text in "ab")
    bare = {"subject": b"", "inputs": b""}
    heavy = {f"{number}": "a" * 1_000 for number in range(60)}
    asked = [parking(task=one, **bare), parking(task=other, **bare), parking(task=one, **bare)]
    found = await queue.park([*asked, parking(task=one, attributes=heavy, **bare)])
    assert _said(found) == ["parked", "bytes_max", "parked", "bytes_max"]
    assert await queue.reconcile() == []
    leases = await queue.lease("digits", reviewer=Identity(name="ann"), limit=2)
    assert [lease.deferral.task for lease in leases] == [one] * 2


async def test_drafts_are_counted_while_they_are_kept(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """One in place of another counts once; too many are refused; answering and ending give them back."""
    queue = open_queue(drafts_bytes_max=20)
    await queue.park([parking(), parking()])
    (mine,) = await queue.lease("digits", reviewer=ann)
    (yours,) = await queue.lease("digits", reviewer=bob)
    await queue.save_draft(mine.token, reviewer=ann, draft='"1234567890"', request_id="1")
    await queue.save_draft(mine.token, reviewer=ann, draft='"12345678"', request_id="2")
    with pytest.raises(FullError, match=r"holds 10 bytes of drafts .*drafts_bytes_max"):
        await queue.save_draft(yours.token, reviewer=bob, draft='"123456789"', request_id="3")
    await queue.save_draft(yours.token, reviewer=bob, draft='"12345678"', request_id="4")
    assert (await load_of(queue))["drafts"] == 20
    assert (await state_of(queue)).over == ("drafts_bytes_max",)
    assert await queue.reconcile() == []
    await queue.submit(mine.token, reviewer=ann, answer=Label("7"), request_id="5")
    await queue.cancel(yours.deferral.name, request_id="6")
    assert (await load_of(queue))["drafts"] == 0
    assert await queue.reconcile() == []


# The outbox, and what else grows.


async def test_a_full_outbox_refuses_callbacks_and_nothing_else(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """Dead letters count; once one is told there is room."""
    queue = open_queue(outbox_max=1)
    await queue.park([parking()])
    await review(queue, ann, Label("7"))
    (delivery,) = await queue.due(limit=1)
    await queue.failed(delivery, retry_seconds=None, reason="gone")
    found = await queue.park([parking(), parking(callback=None)])
    assert _said(found) == ["outbox_max", "parked"]
    assert isinstance(found[0], OverError)
    assert "1 outcomes and dead letters still to be told" in found[0].message
    assert (await state_of(queue)).over == ("outbox_max",)
    await queue.delivered(delivery)
    assert _said(await queue.park([parking()])) == ["parked"]


async def test_an_outcome_that_nobody_took_is_never_lost_in_silence(
    open_queue: OpenQueue, parking: MakeParking
) -> None:
    """It stays beyond its retention while it is still to be told; once it was given up, the log names it."""
    queue = open_queue(retention_seconds=1)
    (parked,) = await queue.park([parking()])
    assert isinstance(parked, Parked)
    await queue.cancel(parked.name, request_id="")
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 0
    (delivery,) = await queue.due(limit=1)
    assert delivery.deferral.name == parked.name
    await queue.failed(delivery, retry_seconds=None, reason="nobody there")
    redis = queue._store.connection.redis
    await redis.zadd(keys.index("digits", "ended"), {delivery.id: 1}, xx=True)
    with capture_logs() as said:
        assert (await queue.reap()).purged == 1
    (entry,) = [entry for entry in said if entry["event"] == "outcomes purged that nobody took"]
    assert (entry["queue"], entry["ids"]) == ("digits", [parked.name.rpartition("/")[2]])


async def test_there_are_only_so_many_queues(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come from clients: one too many is refused, those that are there go on."""
    monkeypatch.setattr(limits, "QUEUES_MAX", 2)
    await queue.park([parking(queue="a"), parking(queue="b")])
    found = await queue.park([parking(queue="a"), parking(queue="c")])
    assert isinstance(found[0], Parked)
    assert isinstance(found[1], FullError)
    assert "there are 2 queues, of at most 2" in found[1].message


async def test_an_empty_lease_leaves_nothing_behind(queue: Queue, ann: Identity) -> None:
    """However often somebody looks."""
    for _ in range(3):
        assert await queue.lease("digits", reviewer=ann) == []
        assert await queue.lease("digits", reviewer=ann, resume=True) == []
    assert [key async for key in queue._store.connection.redis.scan_iter()] == []


async def test_waiting_on_names_that_are_no_queues_follows_nothing(queue: Queue, ann: Identity) -> None:
    """No connection is held, no reader stays; the queue is followed once something was parked in it."""
    leases = await asyncio.gather(
        *(queue.lease(f"made-up-{number}", reviewer=ann, wait_seconds=0.3) for number in range(20))
    )
    assert leases == [[]] * 20
    assert queue._waits._tails == {}


async def test_a_waiting_lease_finds_a_queue_that_came_up_meanwhile(
    queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """It looks again by itself until there is something to follow."""
    waiting = asyncio.create_task(queue.lease("digits", reviewer=ann, wait_seconds=20))
    await asyncio.sleep(0.1)
    await queue.park([parking()])
    assert len(await asyncio.wait_for(waiting, 10)) == 1


async def test_only_so_many_queues_are_followed_at_once(config: Config, parking: MakeParking, ann: Identity) -> None:
    """Half of the connections; who waits beyond looks again and again, and gets what comes all the same."""
    tables = {"redis": RedisSettings(connections_max=4)}
    queue = Queue.connect(Config(data_folder=config.data_folder, tables=tables, queues={"default": QueueSettings()}))
    try:
        names = ["a", "b", "c", "d"]
        await queue.park([parking(queue=name) for name in names])
        taken = [await queue.lease(name, reviewer=ann) for name in names]
        assert [len(leases) for leases in taken] == [1] * 4
        waiting = [asyncio.create_task(queue.lease(name, reviewer=ann, wait_seconds=20)) for name in names]
        await asyncio.sleep(0.5)
        assert len(queue._waits._tails) == 2
        await queue.park([parking(queue=name) for name in names])
        assert [len(leases) for leases in await asyncio.wait_for(asyncio.gather(*waiting), 10)] == [1] * 4
    finally:
        await queue.close()
