"""What time brings: leases lapse, deferrals expire, what is old is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity, Label
from fallback.connection import Connection, Run, Script
from fallback.deferral import OnExpiry, Source, State
from fallback.errors import NotFoundError, StateError, UnavailableError
from fallback.queue import Parked, Queue, Reaped
from tests.queueing import MakeParking, OpenQueue


async def test_nothing_to_do_is_nothing_done(queue: Queue, parking: MakeParking) -> None:
    """A round over what is young changes nothing."""
    await queue.park([parking()])
    assert await queue.reap() == Reaped()


async def test_overdue_leases_lapse(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """The slot is free again, and whoever waits is woken."""
    queue = open_queue(lease_seconds=1.0)
    await queue.park([parking(), parking()])
    await queue.lease("digits", reviewer=ann, limit=2)
    # It looks before they lapse, on a slow machine too: else it would lapse them itself.
    waiting = asyncio.create_task(open_queue().lease("digits", reviewer=ann, wait_seconds=20))
    await asyncio.sleep(1.1)
    assert (await queue.reap()).lapsed == 2
    assert len(await asyncio.wait_for(waiting, 5)) == 1
    assert await queue.reconcile() == []


async def test_leases_of_every_kind_lapse_together(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str, ann: Identity
) -> None:
    """At any tier, with one place or several, and beside one whose record is gone; all can be leased again."""
    tiers = ("nurse", "doctor")
    queue = open_queue(lease_seconds=0.5, tiers=tiers)
    twice = open_queue(lease_seconds=0.5, tiers=tiers, reviews_wanted=2, reviews_max=2)
    await queue.park([parking(), parking(tier="doctor"), parking()])
    await twice.park([parking()])
    leases = await queue.lease("digits", reviewer=ann, limit=10)
    assert len(leases) == 4
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.record("digits", leases[0].deferral.id))
    await asyncio.sleep(0.6)
    assert (await queue.reap()).lapsed == 4
    again = await queue.lease("digits", reviewer=ann, limit=10)
    assert {each.deferral.id for each in again} == {each.deferral.id for each in leases[1:]}
    assert await queue.reconcile() != [], "the record that is gone is reported"


@pytest.mark.parametrize("on_expiry", list(OnExpiry))
async def test_a_deferral_that_nobody_came_to_expires(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, on_expiry: OnExpiry
) -> None:
    """With the model's answer marked as unreviewed, or with none; who held it is told."""
    queue = open_queue()
    (parked,) = await queue.park([parking(review_seconds=0.1, on_expiry=on_expiry)])
    assert isinstance(parked, Parked)
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert lease.expire_time == lease.deferral.expire_time
    await asyncio.sleep(0.12)
    assert (await queue.reap()).expired == 1
    done = await queue.get(parked.name)
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.reviewed) == (State.EXPIRED, Source.EXPIRY, False)
    assert done.outcome.answer == (Label("3") if on_expiry is OnExpiry.ANSWER_UNREVIEWED else None)
    with pytest.raises(StateError, match="is expired already"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    (delivery,) = await queue.due(limit=10)
    assert (delivery.type, delivery.deferral) == ("deferral.expired", done)
    assert await queue.reconcile() == []


async def test_an_overdue_deferral_is_not_handed_out(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """Between its end and the reaper's next round nobody is given it to answer in vain."""
    queue = open_queue()
    await queue.park([parking(review_seconds=0.05, priority=9), parking()])
    await asyncio.sleep(0.06)
    (lease,) = await queue.lease("digits", reviewer=ann, limit=5)
    assert lease.deferral.priority == 0


async def test_reviews_that_are_all_in_win_over_the_end_of_time(
    open_queue: OpenQueue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch, ann: Identity
) -> None:
    """A process that died before settling costs nobody their answer, even when the deferral is overdue by then."""
    queue = open_queue()

    async def died(*_: object) -> None:
        raise StateError("died")

    (parked,) = await queue.park([parking(review_seconds=0.3)])
    assert isinstance(parked, Parked)
    (lease,) = await queue.lease("digits", reviewer=ann)
    with monkeypatch.context() as patch:
        patch.setattr("fallback.leases.foresee", lambda *_: ())
        patch.setattr("fallback.leases.conclude", died)
        with pytest.raises(StateError, match="died"):
            await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    await asyncio.sleep(0.35)
    assert await queue.reap() == Reaped(finished=1)
    assert (await queue.get(parked.name)).state is State.RESOLVED


async def test_everything_about_a_deferral_is_forgotten_after_its_retention(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str
) -> None:
    """Record, content, key, outcome, dead letter, task: nothing old stays but the queue's name and counters."""
    queue = open_queue(retention_seconds=1, request_seconds=1)
    (parked,) = await queue.park([parking(idempotency_key="k")])
    assert isinstance(parked, Parked)
    await queue.cancel(parked.name, request_id="1")
    (delivery,) = await queue.due(limit=1)
    await queue.failed(delivery, retry_seconds=None, reason="gone")
    assert len(await queue.outcomes("digits", "0")) == 1
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 1
    assert await queue.reconcile() == []
    with pytest.raises(NotFoundError, match="retention time"):
        await queue.get(parked.name)
    assert await queue.dead_letters("digits") == []
    assert await queue.list_deferrals("digits") == ([], "")
    assert await queue.outcomes("digits", "0") == []
    redis = Redis.from_url(redis_url)
    left = {key.decode() async for key in redis.scan_iter() if b"}:r:" not in key}
    task = {key for key in left if "}:t:" in key}
    streams = {keys.index("digits", name) for name in ("seq", "outcomes", "changes", "load")} | {keys.trimmed("digits")}
    assert left - task == {keys.QUEUES} | streams
    # Tasks outlive what they were asked for by a day; they are few.
    assert [0 < await redis.ttl(key) <= 86_401 for key in task] == [True]
    await redis.aclose()


async def test_content_that_was_never_accepted_is_forgotten(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between content and acceptance leaves nothing for ever; what is accepted stays."""
    queue = open_queue(orphan_seconds=1)
    (kept,) = await queue.park([parking()])
    assert isinstance(kept, Parked)

    async def died(self: Connection, _: Script, runs: Sequence[Run]) -> None:
        for command in runs[0].before:
            await self.redis.execute_command(*command)
        raise UnavailableError("died", retry_after_seconds=1)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "run_all", died)
        await queue.park([parking(), parking()])
    redis = Redis.from_url(redis_url)
    # As a repeat of an accepted request would, that died there too.
    await redis.zadd(keys.index("digits", "arriving"), {kept.name.rpartition("/")[2]: 0})
    await queue.reap()
    assert len([key async for key in redis.scan_iter(match="*}:b:*")]) == 3 * 2
    await asyncio.sleep(1.1)
    await queue.reap()
    assert len([key async for key in redis.scan_iter(match="*}:b:*")]) == 2
    assert await queue.subject(kept.name) == b"a picture"
    assert not await redis.exists(keys.index("digits", "arriving"))
    await redis.aclose()


async def test_a_task_is_kept_while_any_open_deferral_asks_it(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str
) -> None:
    """Stored once a queue; the last one that ends lets it go, and the next one that asks it brings it back."""
    queue = open_queue()
    first, second = await queue.park([parking(), parking()])
    assert isinstance(first, Parked)
    assert isinstance(second, Parked)
    redis = Redis.from_url(redis_url)
    (task,) = [key async for key in redis.scan_iter(match="*}:t:*")]
    await queue.cancel(first.name, request_id="")
    assert await redis.ttl(task) == -1
    await queue.cancel(second.name, request_id="")
    assert await redis.ttl(task) > 0
    await queue.park([parking()])
    assert await redis.ttl(task) == -1
    await redis.aclose()


async def test_one_unreadable_record_does_not_keep_the_others_waiting(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str
) -> None:
    """The reaper logs it and ends the rest."""
    queue = open_queue()
    broken, fine = await queue.park([parking(review_seconds=0.05), parking(review_seconds=0.05)])
    assert isinstance(broken, Parked)
    assert isinstance(fine, Parked)
    redis = Redis.from_url(redis_url)
    await redis.hset(keys.record("digits", broken.name.rpartition("/")[2]), "body", "{")
    await asyncio.sleep(0.06)
    assert (await queue.reap()).expired == 1
    assert (await queue.get(fine.name)).state is State.EXPIRED
    await redis.aclose()


async def test_many_reapers_end_each_deferral_once(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Any number of processes may reap."""
    queue = open_queue()
    await queue.park([parking(review_seconds=0.05) for _ in range(40)])
    await asyncio.sleep(0.06)
    done = await asyncio.gather(*(queue.reap() for _ in range(4)))
    assert sum(one.expired for one in done) == 40
    assert len(await queue.outcomes("digits", "0")) == 40


async def test_a_queue_that_cannot_be_swept_keeps_no_other_waiting(queue: Queue, parking: MakeParking) -> None:
    """It is told of all the same, after the others had their turn."""
    verdicts = await queue.park([parking(queue=name, review_seconds=0.01) for name in ("a", "b", "c")])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    await queue._store.connection.redis.set(keys.index("b", "leases"), "not a sorted set")
    await asyncio.sleep(0.02)
    with pytest.raises(UnavailableError):
        await queue.reap()
    assert [(await queue.get(name)).state for name in names] == [State.EXPIRED, State.OPEN, State.EXPIRED]
