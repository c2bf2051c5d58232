"""Receivers that fail, hang, ask for less or are gone for good, and what that does to all others: nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis

from fallback import keys
from fallback.config import FallbackSettings
from fallback.deferral import Callback
from fallback.queue import Queue
from fallback.telling import CallbackState
from tests.integration.fallback.edges.test_dispatcher import (
    QUICK,
    Listen,
    Receiver,
    dead_letters,
    dispatching,
    listen,
    until,
)

__all__ = ["listen"]

PILE = 10_000


@asynccontextmanager
async def hanging(host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A receiver that takes connections and never answers."""
    writers = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, host, 0, backlog=1_000)
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for writer in writers:
            writer.close()


def pile_up(redis_url: str, name: str, count: int) -> None:
    """Lay down `count` copies of an outcome that is due, as if as many had ended at once."""
    one = name.rpartition("/")[2]
    with redis.Redis.from_url(redis_url) as client:
        pipeline = client.pipeline(transaction=False)
        now = time.time() * 1000 - count
        for number in range(count):
            pipeline.copy(keys.record("digits", one), keys.record("digits", f"{one}x{number}"))
            pipeline.zadd(keys.index("digits", "outbox"), {f"{one}x{number}": now + number})
        pipeline.execute()


async def told_after(queue: Queue, settle: Any, quick: Receiver, url: str) -> float:
    """Return how long after its outcome a callback came to a receiver that is well, seconds."""
    name = await settle(callback=Callback(webhook_url=url))
    outcome = (await queue.get(name)).outcome
    assert outcome is not None
    one = name.rpartition("/")[2]
    start = time.time()
    await until(lambda: any(got == one for got, _ in quick.got), 20)
    return time.time() - min(start, outcome.create_time)


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
async def test_ten_thousand_for_a_dead_receiver_hold_up_nobody(
    queue: Queue, settle: Any, listen: Listen, redis_url: str, kind: str
) -> None:
    """What is for another receiver meanwhile is told within a second; what could not be attempted is not counted."""
    quick = Receiver()
    url = await listen(quick)
    async with hanging("127.0.0.2") as silent:
        dead = silent if kind == "hangs" else "http://127.0.0.1:1/"
        pile_up(redis_url, await settle(callback=Callback(webhook_url=dead)), PILE)
        settings = FallbackSettings()
        async with dispatching(queue, settings):
            waits = []
            for _ in range(7):
                waits.append(await told_after(queue, settle, quick, url))
                await asyncio.sleep(0.2)
    assert statistics.median(waits) < 1.0, waits
    entries, _ = await queue.callbacks("digits", state=CallbackState.PENDING, page_size=1_000)
    assert len(entries) == 1_000
    assert max(entry.attempt for entry in entries) <= 2
    assert await queue.dead_letters("digits") == []


async def test_many_receivers_that_hang_hold_up_nobody(
    queue: Queue, settle: Any, listen: Listen, redis_url: str
) -> None:
    """Attempts that take long leave the count that others wait for."""
    quick = Receiver()
    url = await listen(quick)
    settings = msgspec.structs.replace(QUICK, callback_timeout_seconds=40.0)
    async with hanging("127.0.0.2") as first, hanging("127.0.0.3") as second, hanging("127.0.0.4") as third:
        for silent in (first, second, third):
            pile_up(redis_url, await settle(callback=Callback(webhook_url=silent)), 50)
        async with dispatching(queue, settings):
            await asyncio.sleep(1.5)
            assert await told_after(queue, settle, quick, url) < 5


async def test_a_backlog_for_a_receiver_that_is_well_is_told_fast_and_once(
    queue: Queue, settle: Any, listen: Listen, redis_url: str
) -> None:
    """What waits in its line is put back and comes again, and none of it is told twice."""
    receiver = Receiver()
    pile_up(redis_url, await settle(callback=Callback(webhook_url=await listen(receiver))), 1_000)
    async with dispatching(queue, FallbackSettings()):
        await until(lambda: len(receiver.got) >= 1_001, 60)
        await asyncio.sleep(0.2)
    assert len(receiver.got) == len({one for one, _ in receiver.got}) == 1_001
    assert await queue.callbacks("digits", state=CallbackState.PENDING) == ([], "")


async def test_410_is_remembered_until_somebody_redelivers(queue: Queue, settle: Any, listen: Listen) -> None:
    """What comes later for that URL is given up without a call and says why; another URL of the host goes on."""
    receiver = Receiver(410)
    url = await listen(receiver)
    first = await settle(callback=Callback(webhook_url=url))
    async with dispatching(queue):
        (dead,) = await dead_letters(queue)
        assert (dead.attempt, "answered 410" in dead.reason) == (1, True)
        second = await settle(callback=Callback(webhook_url=url))
        other = await settle(callback=Callback(webhook_url=url + "?other"))
        await until(lambda: len(receiver.got) == 2)
        assert other.endswith(receiver.got[1][0])
        entry = await _dead(queue, second)
        assert entry.disabled
        assert entry.reason.startswith("not attempted: the receiver answered 410")
        assert await queue.redeliver("digits", [second.rpartition("/")[2]]) == 1
        await until(lambda: len(receiver.got) == 3)
        third = await settle(callback=Callback(webhook_url=url))
        await until(lambda: len(receiver.got) == 4)
    assert {one for one, _ in receiver.got} == {name.rpartition("/")[2] for name in (first, second, third, other)}
    (left,) = await queue.dead_letters("digits")
    assert first.endswith(left.id)


async def test_a_target_can_be_enabled_by_itself(queue: Queue, settle: Any, listen: Listen) -> None:
    """What comes from then on is told; what was given up stays so until it is redelivered."""
    receiver = Receiver(410)
    url = await listen(receiver)
    await settle(callback=Callback(webhook_url=url))
    async with dispatching(queue):
        await dead_letters(queue)
        assert await queue.enable_target("digits", url) is True
        assert await queue.enable_target("digits", url) is False
        await settle(callback=Callback(webhook_url=url))
        await until(lambda: len(receiver.got) == 2)
    assert len(await queue.dead_letters("digits")) == 1


async def test_one_that_asks_for_less_gets_less_and_then_more_again(
    queue: Queue, settle: Any, listen: Listen, redis_url: str
) -> None:
    """After a burst of refusals there is a pause, then single attempts, then as many at once as before."""

    async def one(status: int) -> None:
        receiver = Receiver(*[status] * 2)
        receiver.delay_seconds = 0.05
        callback = Callback(webhook_url=await listen(receiver))
        for _ in range(8):
            await settle(callback=callback)
        await until(lambda: len(receiver.got) >= 2)
        start = time.monotonic()
        await until(lambda: len(receiver.got) >= 3, 20)
        assert time.monotonic() - start > 0.8
        await until(lambda: len({one for one, _ in receiver.got}) == 8, 60)
        await until(lambda: len(receiver.got) == 10, 60)
        receiver.at_once_max = 0
        pile_up(redis_url, await settle(callback=callback), 20)
        await until(lambda: len(receiver.got) == 31, 60)
        assert receiver.at_once_max == 2

    async with dispatching(queue):
        await asyncio.gather(one(429), one(502), one(504))


async def test_stopping_counts_no_attempt_that_was_not_made(queue: Queue, settle: Any, listen: Listen) -> None:
    """What was claimed and waits is due again at once, for whoever comes next."""
    receiver = Receiver()
    receiver.delay_seconds = 0.3
    callback = Callback(webhook_url=await listen(receiver))
    for _ in range(6):
        await settle(callback=callback)
    async with dispatching(queue) as dispatcher:
        await until(lambda: receiver.at_once == 2)
        dispatcher.stop()
    entries, _ = await queue.callbacks("digits", state=CallbackState.PENDING)
    assert [entry.attempt for entry in entries] == [0] * 4
    assert len(await queue.due(limit=10)) == 4


async def _dead(queue: Queue, name: str) -> Any:
    callback = name.replace("/deferrals/", "/callbacks/")
    for _ in range(1_000):
        if (entry := await queue.callback(callback)).state is CallbackState.DEAD:
            return entry
        await asyncio.sleep(0.01)
    raise AssertionError("it was not given up")
