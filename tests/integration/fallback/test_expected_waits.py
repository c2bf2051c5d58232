"""How long a queue says that one waits, and the counters that it knows it from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fallback import keys, limits
from fallback.answer import Identity, Label
from fallback.config import Config
from fallback.connection import Connection
from fallback.queue import Parked, Queue
from fallback.recount import recount
from tests.queueing import MakeParking, OpenQueue, load_of, review, state_of


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a load is not kept."""
    monkeypatch.setattr(limits, "LOAD_SECONDS", 0.0)


async def test_nobody_there_is_visible(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """Before anybody answered nothing is said; from then on each is told a time, the longer the more are before it."""
    (first,) = await queue.park([parking()])
    assert isinstance(first, Parked)
    assert first.expected_wait is None
    assert (await state_of(queue)).expected_wait_seconds is None
    assert await queue.expected_wait(await queue.get(first.name)) is None
    await review(queue, ann, Label("7"))
    waits = []
    for _ in range(3):
        (parked,) = await queue.park([parking()])
        assert isinstance(parked, Parked)
        waits.append(parked.expected_wait or 0)
    assert 0 < waits[0] < waits[1] < waits[2]
    assert ((await state_of(queue)).expected_wait_seconds or 0) > waits[2] * 0.9
    assert await queue.expected_wait(await queue.get(first.name)) is None


async def test_the_urgent_are_told_less(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """Each of a batch by those before it; one that somebody holds waits for that person alone."""
    await queue.park([parking()])
    await review(queue, ann, Label("7"))
    await queue.park([parking() for _ in range(20)])
    slow, fast = await queue.park([parking(), parking(priority=9)])
    assert isinstance(slow, Parked)
    assert isinstance(fast, Parked)
    assert slow.expected_wait is not None
    assert fast.expected_wait is not None
    assert fast.expected_wait < slow.expected_wait
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert lease.deferral.name == fast.name
    held = await queue.expected_wait(await queue.get(fast.name))
    waiting = await queue.expected_wait(await queue.get(slow.name))
    assert held is not None
    assert waiting is not None
    assert held < waiting


async def test_no_wait_is_longer_than_the_time_to_review(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """What expires first has its outcome then."""
    await queue.park([parking()])
    await review(queue, ann, Label("7"))
    await queue.park([parking() for _ in range(50)])
    (parked,) = await queue.park([parking(review_seconds=0.001)])
    assert isinstance(parked, Parked)
    assert parked.expected_wait == pytest.approx(0.001)


async def test_a_run_of_park_counts_once_for_each_priority(queue: Queue, parking: MakeParking) -> None:
    """Two fields for two priorities, however many are parked; what is older than an hour goes with the next minute."""
    redis = queue._store.connection.redis
    await redis.hset(keys.index("digits", "load"), mapping={"1:0": 7, "2:reviews": 7})
    await queue.park([*(parking() for _ in range(5)), *(parking(priority=3) for _ in range(2))])
    counted = {field.partition(":")[2]: count for field, count in (await load_of(queue)).items() if field[0].isdigit()}
    assert counted == {"0": 5, "3": 2}


async def test_old_counters_go_with_the_reaper_too(queue: Queue, parking: MakeParking) -> None:
    """A queue where nothing happens any more keeps none."""
    await queue.park([parking()])
    await queue._store.connection.redis.hset(keys.index("digits", "load"), mapping={"1:0": 7, "2:reviews": 7})
    await queue.reap()
    assert not {"1:0", "2:reviews"} & set(await load_of(queue))


async def test_a_recount_finds_nothing_wrong_with_a_queue_at_work(
    queue: Queue, config: Config, parking: MakeParking, ann: Identity
) -> None:
    """The counters of its load stay, as its sequence does."""
    await queue.park([parking(), parking()])
    await review(queue, ann, Label("7"))
    found = await recount(config)
    assert found.problems == []
    assert not [name for name in found.lasting if name.endswith(":load")]


async def test_who_was_parked_does_not_wait_for_how_long_it_takes(
    queue: Queue, open_queue: OpenQueue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the load cannot be read at once, the reply has no expected wait, and it is not tried again for a while."""
    await queue.park([parking(), parking()])
    await review(queue, ann, Label("7"))
    other = open_queue()
    monkeypatch.setattr(limits, "LOAD_SECONDS", 60.0)
    monkeypatch.setattr(limits, "LOAD_READ_SECONDS", 0.05)
    asked = 0

    async def silent(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "time", silent)
        async with asyncio.timeout(3):
            verdicts = [*await other.park([parking()]), *await other.park([parking()])]
    assert [isinstance(one, Parked) and one.expected_wait is None for one in verdicts] == [True, True]
    assert asked == 1
    monkeypatch.setattr(limits, "LOAD_SECONDS", 0.0)
    (parked,) = await other.park([parking()])
    assert isinstance(parked, Parked)
    assert parked.expected_wait is not None
