"""Counting anew from the records, on the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fallback import keys
from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings
from fallback.queue import Parked, Queue
from fallback.recount import recount
from fallback.store import Store
from tests.queueing import MakeParking


@pytest.fixture
async def store(config: Config) -> AsyncIterator[Store]:
    """The server past the queue's door."""
    opened = Store(config)
    yield opened
    await opened.connection.close()


async def _busy(queue: Queue, parking: MakeParking, ann: Identity, bob: Identity) -> None:
    """Leave one resolved, one cancelled, one held, one with a review and one untouched."""
    verdicts = await queue.park([parking(idempotency_key=str(number)) for number in range(5)])
    assert all(isinstance(verdict, Parked) for verdict in verdicts)
    first, second = await queue.lease("digits", reviewer=ann, limit=2)
    await queue.submit(first.token, reviewer=ann, answer=Label("3"), request_id="1")
    other = next(one for one in await queue.lease("digits", reviewer=bob, limit=5) if one.deferral.name)
    await queue.cancel(other.deferral.name, request_id="2")
    assert second.token


async def test_counters_and_records_agree(
    queue: Queue, config: Config, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """After parking, leasing, answering and cancelling nothing differs, and what was accepted is known."""
    await _busy(queue, parking, ann, bob)
    found = await recount(config)
    assert found.problems == []
    assert found.accepted == {"digits": 5}
    assert found.records == 5
    assert 0 < found.bytes_lapsing < found.bytes_used


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("zadd", ("holds", {"ann\0nothing:0": 0})),
        ("hincrby", ("tasks", "nobody's", 1)),
        ("zremrangebyrank", ("open", 0, 0)),
        ("zremrangebyrank", ("resolved", 0, 0)),
    ],
)
async def test_a_counter_that_is_wrong_is_named(
    queue: Queue,
    config: Config,
    store: Store,
    parking: MakeParking,
    ann: Identity,
    bob: Identity,
    command: str,
    arguments: tuple[Any, ...],
) -> None:
    """One too many or too few in any of them shows."""
    await _busy(queue, parking, ann, bob)
    name, *rest = arguments
    await getattr(store.connection.redis, command)(keys.index("digits", name), *rest)
    (problem,) = (await recount(config)).problems
    assert problem.startswith(f"digits: {name}: counted ")


async def test_a_key_that_would_stay_for_ever_is_named(config: Config, queue: Queue, store: Store) -> None:
    """Nothing lasts but what must."""
    assert await queue.states() == []
    await store.connection.redis.set(keys.record("digits", "lost"), "1")
    await store.connection.redis.delete(keys.record("digits", "lost"))
    assert (await recount(config)).lasting == []
    await store.connection.redis.hset(keys.drafts("digits", "lost"), "0:ann", "{}")
    assert (await recount(config)).lasting == [keys.drafts("digits", "lost")]


async def test_what_is_purged_meanwhile_is_no_difference(
    open_queue: Callable[..., Queue], config: Config, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Records and index entries that go while it counts are in neither or in the index alone."""
    queue = open_queue(retention_seconds=1)
    await _busy(queue, parking, ann, bob)
    settings = Config(data_folder=config.data_folder, queues={"default": QueueSettings(retention_seconds=1)})
    for _ in range(30):
        await queue.reap()
        assert (await recount(settings)).problems == []
        await asyncio.sleep(0.05)
