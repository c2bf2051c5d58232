"""The reconciler finds what does not agree; were it blind, every test that asks it would prove nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity
from fallback.queue import Parked, Queue
from tests.queueing import MakeParking


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that may break things."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def _parked(queue: Queue, parking: MakeParking, ann: Identity) -> tuple[str, str]:
    """Return the ids of a deferral that is held and of one that is free."""
    await queue.park([parking(), parking()])
    (lease,) = await queue.lease("digits", reviewer=ann)
    (free,) = [one for one in (await queue.list_deferrals("digits"))[0] if one.id != lease.deferral.id]
    assert await queue.reconcile() == []
    return lease.deferral.id, free.id


@pytest.mark.parametrize("index", ["open", "free", "expiry"])
async def test_one_that_is_missing_from_an_index_is_found(
    queue: Queue, parking: MakeParking, ann: Identity, redis: Redis, index: str
) -> None:
    """It would wait for ever, or never expire, or not be counted."""
    _, free = await _parked(queue, parking, ann)
    await redis.zrem(keys.index("digits", index), free)
    assert await queue.reconcile() == [f"digits: {free}: in {index}: expected true, got false"]


@pytest.mark.parametrize("index", ["held", "full", "resolved", "free1", "free2", "free3"])
async def test_one_that_stands_in_a_second_index_is_found(
    queue: Queue, parking: MakeParking, ann: Identity, redis: Redis, index: str
) -> None:
    """Exactly one."""
    _, free = await _parked(queue, parking, ann)
    await redis.zadd(keys.index("digits", index), {free: 1})
    assert await queue.reconcile() == [f"digits: {free}: in {index}: expected false, got true"]


@pytest.mark.parametrize("index", ["open", "free", "free1", "free2", "free3", "held", "full", "expiry"])
async def test_one_that_has_no_record_is_found(
    queue: Queue, parking: MakeParking, ann: Identity, redis: Redis, index: str
) -> None:
    """In any index."""
    await _parked(queue, parking, ann)
    await redis.zadd(keys.index("digits", index), {"ghost": 1})
    assert f"digits: ghost: in {index}: expected false, got true" in await queue.reconcile()


async def test_a_hold_that_nobody_would_end_is_found(
    queue: Queue, parking: MakeParking, ann: Identity, redis: Redis
) -> None:
    """Its lease would never lapse; what each reviewer holds disagrees too."""
    held, _ = await _parked(queue, parking, ann)
    await redis.zrem(keys.index("digits", "leases"), f"{held}:0")
    found = await queue.reconcile()
    assert f"digits: {held}: slot 0 in leases: expected true, got false" in found
    assert "digits: holds: leases: expected 0, got 1" in found


async def test_a_state_that_its_indexes_do_not_know_of_is_found(
    queue: Queue, parking: MakeParking, ann: Identity, redis: Redis
) -> None:
    """A record changed behind the scripts' back."""
    (parked,) = await queue.park([parking()])
    assert isinstance(parked, Parked)
    await redis.hset(keys.record("digits", parked.name.rpartition("/")[2]), "state", "resolved")
    found = await queue.reconcile()
    assert len([problem for problem in found if "in open: expected false" in problem]) == 1
    assert len([problem for problem in found if "in resolved: expected true" in problem]) == 1
    assert await queue.lease("nothing", reviewer=ann) == []
