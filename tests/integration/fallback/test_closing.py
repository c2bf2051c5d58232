"""Undo windows end when their time is over: many in one step, each once, whatever is wrong with one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from fallback import keys
from fallback.answer import Identity, Label
from fallback.closing import PAUSE_SECONDS_MIN, Closer, pause_seconds
from fallback.connection import Argument, Connection, Reply, Script
from fallback.deferral import Deferral, State
from fallback.errors import UnavailableError
from fallback.queue import Parked, Queue
from tests.queueing import MakeParking, OpenQueue


@asynccontextmanager
async def closing(queue: Queue, told: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Runs a closer, and no reaper."""
    stop = asyncio.Event()
    running = asyncio.create_task(Closer(queue, closed=told).run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def answered(queue: Queue, parking: MakeParking, reviewer: Identity, count: int) -> list[Deferral]:
    """Park, lease and answer `count`; their windows are open."""
    assert all(isinstance(one, Parked) for one in await queue.park([parking() for _ in range(count)]))
    leases = await queue.lease("digits", reviewer=reviewer, limit=count)
    submits = (queue.submit(one.token, reviewer=reviewer, answer=Label("7"), request_id="") for one in leases)
    return [await submit for submit in submits]


async def test_a_window_ends_at_its_time_and_not_at_the_reapers_next_round(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """Also one that begins while the loop sleeps; whoever tells outcomes is woken."""
    queue = open_queue(undo_seconds=0.4)
    await queue.park([parking()])
    (lease,) = await queue.lease("digits", reviewer=ann)
    woken = asyncio.Event()
    async with closing(queue, woken.set):
        await asyncio.sleep(0.3)
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
        await asyncio.wait_for(woken.wait(), 10)
    ((event),) = await queue.outcomes("digits", "0")
    assert event.deferral.outcome is not None
    assert 0.4 <= event.deferral.outcome.create_time - event.deferral.reviews[0].create_time < 5
    assert await queue.reconcile() == []


async def test_many_windows_end_in_few_steps_and_each_once(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many processes close: an outcome each, and a step for up to 32 of them."""
    queue = open_queue(undo_seconds=1.5)
    await answered(queue, parking, ann, 70)
    await asyncio.sleep(1.6)
    steps = 0
    run = Connection.run

    async def counted(self: Connection, what: Script, *arguments: object, **options: bool) -> object:
        nonlocal steps
        steps += what.name == "close"
        return await run(self, what, *arguments, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Connection, "run", counted)
    closed, left = await queue.close_windows(["digits"])
    assert (closed, left, steps) == (70, None, 3)
    await asyncio.gather(*(queue.close_windows(["digits"]) for _ in range(3)))
    assert len(await queue.outcomes("digits", "0")) == 70
    assert await queue.reconcile() == []


async def test_two_closers_end_each_window_once(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """Any number of processes may close."""
    queue = open_queue(undo_seconds=0.2)
    async with closing(queue), closing(open_queue(undo_seconds=0.2)):
        await answered(queue, parking, ann, 40)
        for _ in range(200):
            if len(found := await queue.outcomes("digits", "0")) >= 40:
                break
            await asyncio.sleep(0.05)
    assert len({event.deferral.name for event in found}) == len(found) == 40
    assert await queue.reconcile() == []


@pytest.mark.parametrize("missing", ["outcome", "task", "everything"])
async def test_one_that_cannot_be_ended_keeps_no_other_waiting(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, redis_url: str, missing: str
) -> None:
    """It stays as it is until somebody repairs it."""
    queue = open_queue(undo_seconds=0.3)
    broken, fine = await answered(queue, parking, ann, 2)
    async with Redis.from_url(redis_url) as redis:
        record = keys.record("digits", broken.id)
        before = await redis.hgetall(record)
        await (redis.delete(record) if missing == "everything" else redis.hdel(record, missing))
        await asyncio.sleep(0.4)
        assert await queue.close_windows(["digits"]) == (1, None)
        assert (await queue.reap()).closed == 0
        assert (await queue.get(fine.name)).state is State.RESOLVED
        await redis.hset(record, items=[part for pair in before.items() for part in pair])
        assert await queue.close_windows(["digits"]) == (1, None)
        assert (await queue.get(broken.name)).state is State.RESOLVED


async def test_a_queue_without_windows_is_not_looked_at(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Nor does a young window end."""
    queue = open_queue()
    await queue.park([parking()])
    assert await queue.undo_windows() == {}
    assert await queue.close_windows([]) == (0, None)
    assert await open_queue(undo_seconds=3.0).undo_windows() == {"digits": 3.0}


@pytest.mark.parametrize(
    ("next_seconds", "windows", "expected"),
    [
        (None, [5.0], 0.5),
        (None, [0.1, 5.0], 0.1),
        (0.2, [5.0], 0.2),
        (-1.0, [5.0], PAUSE_SECONDS_MIN),
        (9.0, [5.0], 0.5),
    ],
)
def test_a_sleep_ends_with_the_next_window_or_the_shortest_that_may_begin(
    next_seconds: float | None, windows: list[float], expected: float
) -> None:
    """And never lasts longer than a bound."""
    assert pause_seconds(next_seconds, windows) == expected


@pytest.mark.parametrize("broken", ["index", "script"])
async def test_a_queue_whose_windows_cannot_be_closed_keeps_no_other_waiting(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The others end in time; it is said once, and the queue goes on when it is repaired."""
    queue = open_queue(undo_seconds=0.3)
    for each in ("a", "b", "c"):
        await queue.park([parking(queue=each)])
        (lease,) = await queue.lease(each, reviewer=ann)
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    run, redis, key = Connection.run, queue._store.connection.redis, keys.index("b", "settling")

    async def refused(
        self: Connection, what: Script, names: Sequence[str], *arguments: Argument, raw: bool = False
    ) -> Reply:
        if what.name == "close" and "{b}" in names[0]:
            raise UnavailableError("refused", retry_after_seconds=1)
        return await run(self, what, names, *arguments, raw=raw)

    await asyncio.sleep(0.4)
    with monkeypatch.context() as patch, capture_logs() as said:
        if broken == "script":
            patch.setattr(Connection, "run", refused)
        else:
            await redis.rename(key, f"{key}.away")
            await redis.set(key, "of another kind")
        found = [await queue.close_windows(["a", "b", "c"]) for _ in range(3)]
    assert found == [(2, None), (0, None), (0, None)]
    assert [one["queue"] for one in said if "going on" in one["event"]] == ["b"]
    if broken == "index":
        await redis.rename(f"{key}.away", key)
    await asyncio.sleep(1.1)
    assert await queue.close_windows(["a", "b", "c"]) == (1, None)
