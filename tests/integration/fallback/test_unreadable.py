"""One record that cannot be read fails alone: the page it is on, the queue it waits in and the outbox go on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity, Label
from fallback.deferral import Parking
from fallback.errors import DemurError, NotFoundError
from fallback.queue import Parked, Queue
from fallback.records import encode_task
from fallback.telling import CallbackState
from fallback.telling_wire import entry_from_wire, entry_to_wire
from tests.queueing import MakeParking, OpenQueue


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that may break things."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def _names(queue: Queue, parkings: list[Parking]) -> list[str]:
    verdicts = await queue.park(parkings)
    return [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]


def _record(name: str) -> str:
    return keys.record("digits", name.rpartition("/")[2])


async def _break(redis: Redis, name: str, how: str) -> None:
    match how:
        case "body":
            await redis.hset(_record(name), "body", "not JSON")
        case "half":
            await redis.hdel(_record(name), "slots", "expire_ms")
        case "gone":
            await redis.delete(_record(name))


async def test_a_page_shows_the_others(queue: Queue, parking: MakeParking, redis: Redis) -> None:
    """List goes on without it; get raises and says which."""
    first, broken, last = await _names(queue, [parking(), parking(), parking()])
    await _break(redis, broken, "body")
    found, _ = await queue.list_deferrals("digits")
    assert [deferral.name for deferral in found] == [last, first]
    with pytest.raises(DemurError, match=f"{broken}: its record cannot be read"):
        await queue.get(broken)


@pytest.mark.parametrize("how", ["body", "half", "gone"])
@pytest.mark.parametrize("limit", [1, 2])
async def test_what_cannot_be_read_goes_out_of_the_way_of_reviewers(
    queue: Queue, parking: MakeParking, redis: Redis, how: str, limit: int
) -> None:
    """Each reviewer gets what is behind it; it stands among what is flagged."""
    broken, one, two = await _names(queue, [parking(priority=9), parking(), parking()])
    await _break(redis, broken, how)
    names = []
    for reviewer in (Identity(name="ann"), Identity(name="bob")):
        (lease, *more) = await queue.lease("digits", reviewer=reviewer, limit=limit)
        names += [lease.deferral.name, *(each.deferral.name for each in more)]
        await queue.submit(lease.token, reviewer=reviewer, answer=Label("7"), request_id="")
        for each in more:
            await queue.release(each.token, reviewer=reviewer, request_id="")
    assert set(names) == {one, two}
    assert await redis.zscore(keys.index("digits", "flagged"), broken.rpartition("/")[2]) is not None


async def test_a_hold_whose_record_is_gone_does_not_stop_others_from_lapsing(
    queue: Queue, parking: MakeParking, redis: Redis, ann: Identity, bob: Identity
) -> None:
    """It goes from the index, and the ones behind it are free again."""
    lost, other = await _names(queue, [parking(priority=9), parking()])
    await queue.lease("digits", reviewer=ann, limit=2)
    await _break(redis, lost, "gone")
    await redis.hset(_record(other), "s0.until", "1")
    for number, name in enumerate((lost, other), start=1):
        await redis.zadd(keys.index("digits", "leases"), {f"{name.rpartition('/')[2]}:0": number})
    (lease,) = await queue.lease("digits", reviewer=bob)
    assert lease.deferral.name == other
    with pytest.raises(NotFoundError):
        await queue.get(lost)


async def test_what_cannot_be_read_is_ended_by_nobody(queue: Queue, parking: MakeParking, redis: Redis) -> None:
    """It stays as it is until somebody repairs it: a process of another version may read what this one cannot."""
    broken, fine = await _names(queue, [parking(), parking()])
    body = await redis.hget(_record(broken), "body")
    assert body is not None
    for name in (broken, fine):
        await redis.hset(_record(name), "expire_ms", "1")
        await redis.zadd(keys.index("digits", "expiry"), {name.rpartition("/")[2]: 1})
    await _break(redis, broken, "body")
    assert (await queue.reap()).expired == 1
    assert await queue.reconcile() == []
    await redis.hset(_record(broken), "body", body)
    assert (await queue.reap()).expired == 1
    assert [event.deferral.name for event in await queue.outcomes("digits", "0")] == [fine, broken]


async def test_an_outcome_that_cannot_be_read_becomes_a_dead_letter(
    queue: Queue, parking: MakeParking, redis: Redis, ann: Identity
) -> None:
    """It is not claimed again and again, and the others are told; operators see it, and tell it once it is repaired."""
    await _names(queue, [parking(), parking()])
    one, two = await queue.lease("digits", reviewer=ann, limit=2)
    for lease in (one, two):
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    body = await redis.hget(_record(one.deferral.name), "body")
    assert body is not None
    await _break(redis, one.deferral.name, "body")
    (told,) = await queue.due(limit=10)
    assert told.deferral.name == two.deferral.name
    (entry,), _ = await queue.callbacks("digits", state=CallbackState.DEAD)
    assert (entry.deferral, entry.callback) == (one.deferral.name, None)
    assert entry.reason.startswith(f"{one.deferral.name}: its record cannot be read")
    assert await queue.callback(entry.name) == entry
    assert entry_from_wire(entry_to_wire(entry)) == entry
    await redis.hset(_record(one.deferral.name), "body", body)
    assert await queue.redeliver_all("digits", request_id="1") == 1
    assert [delivery.deferral.name for delivery in await queue.due(limit=10)] == [one.deferral.name]


async def test_a_task_outlives_every_record_that_names_it(
    open_queue: OpenQueue, parking: MakeParking, redis: Redis, ann: Identity
) -> None:
    """However long an outcome waits to be told, and whatever the queue's retention was set to since."""
    day = 86_400_000
    task = keys.task("digits", encode_task(parking().task)[0])
    long, short = open_queue(retention_seconds=1_000), open_queue(retention_seconds=1)
    await _names(long, [parking(), parking(callback=None)])
    one, two = await long.lease("digits", reviewer=ann, limit=2)
    await long.submit(one.token, reviewer=ann, answer=Label("7"), request_id="")
    assert await redis.pttl(task) == -1
    await short.submit(two.token, reviewer=ann, answer=Label("7"), request_id="")
    assert await redis.pttl(task) > day + 900_000
    # As it is when both retentions are nearly over.
    await redis.pexpire(task, 60_000)
    for deferral in (one.deferral, two.deferral):
        await redis.zadd(keys.index("digits", "ended"), {deferral.id: 1})
    assert (await short.reap()).purged == 1
    assert await redis.pttl(task) > day
    assert [delivery.deferral.name for delivery in await short.due(limit=10)] == [one.deferral.name]
