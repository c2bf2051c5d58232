"""WatchOutcomes and WaitDeferral over what may come between: a gateway, a server, a cursor that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fallback import embedded
from fallback.answer import Identity, Label
from fallback.config import Config, FallbackSettings, QueueSettings, RedisSettings, load
from fallback.deferral import Parking, State
from fallback.errors import TrimmedError, UnavailableError
from fallback.queue import Parked, Queue
from gateway.client import Client
from tests.live_gateway import TASK, credentials, running, settings

QUICK = RedisSettings(connect_timeout_seconds=0.5, command_timeout_seconds=1.0)
SETTLER = Identity(name="settler")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[embedded.Server, Config]]:
    """A server that the test may stop, and a gateway's configuration on it."""
    server = embedded.Server.start(tmp_path / "valkey")
    server.wait_ready()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMUR_REDIS_URL", server.url)
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DEMUR_CONFIG", raising=False)
    yield server, settings(load(), {"redis": QUICK}, drain_seconds=1.0)
    server.stop()


async def _ask(client: Client, count: int) -> list[str]:
    return [(await client.request_review("asked", TASK, text="?")).name for _ in range(count)]


async def _settle(queue: Queue, count: int) -> None:
    for _ in range(count):
        (lease,) = await queue.lease("asked", reviewer=SETTLER)
        await queue.submit(lease.token, reviewer=SETTLER, answer=Label("a"), request_id="")


async def _until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not there():  # noqa: ASYNC110 - a cursor that moves tells nobody
            await asyncio.sleep(0.01)


async def _seen(client: Client, cursor: str, count: int) -> tuple[list[str], str]:
    """Watch until `count` outcomes came; their names and the last cursor."""
    names: list[str] = []
    async with asyncio.timeout(30):
        async for event in client.watch("asked", cursor):
            names.append(event.deferral.name)
            cursor = event.cursor
            if len(names) == count:
                break
    return names, cursor


def test_a_watch_goes_on_after_the_gateway_and_after_the_server_came_back(own: tuple[embedded.Server, Config]) -> None:
    """From the last cursor, each outcome once and in order, those that came meanwhile included."""
    server, config = own
    seen: list[str] = []

    async def first(address: str) -> str:
        queue = Queue.connect(config)
        async with Client(address) as client:
            await _ask(client, 9)
            await _settle(queue, 3)
            names, cursor = await _seen(client, "0", 2)
        await _settle(queue, 2)
        await queue.close()
        seen.extend(names)
        return cursor

    with running(config) as gateway:
        cursor = asyncio.run(first(gateway.address))

    async def second(address: str, cursor: str) -> None:
        queue = Queue.connect(config)
        async with Client(address) as client:
            names, cursor = await _seen(client, cursor, 3)
            seen.extend(names)
            stream = client.watch("asked", cursor)
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.stop)
            with pytest.raises(UnavailableError):
                await waiting
            again = await asyncio.to_thread(embedded.Server.start, server.folder)
            again.wait_ready()
            try:
                await _settle(queue, 4)
                names, _ = await _seen(client, cursor, 4)
                seen.extend(names)
                whole, _ = await _seen(client, "0", 9)
                assert seen == whole
                assert len(set(seen)) == 9
            finally:
                await queue.close()
                await asyncio.to_thread(again.stop)

    with running(config) as gateway:
        asyncio.run(second(gateway.address, cursor))


def test_a_cursor_moves_past_what_others_see(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared queue: who watched all along and comes back is not refused for others' outcomes being trimmed."""
    monkeypatch.setattr("gateway.service.CURSOR_SECONDS", 0.0)
    file = credentials(tmp_path, ann=("client",), bob=("client",))
    config = settings(config, {"fallback": FallbackSettings(credentials_file=file)})

    async def watch(address: str) -> None:
        queue = Queue.connect(config)
        async with Client(address, token="ann") as ann, Client(address, token="bob") as bob:
            stream = ann.watch("asked")
            watching = asyncio.ensure_future(anext(stream))
            # It says where it begins.
            await _until(lambda: stream.cursor)
            (own,) = await _ask(ann, 1)
            await _settle(queue, 1)
            event = await watching
            assert event.deferral.name == own
            watching = asyncio.ensure_future(anext(stream))
            await _ask(bob, 2)
            await _settle(queue, 2)
            last = await queue.last_cursor("asked")
            await _until(lambda: stream.cursor == last)
            assert not watching.done()
            watching.cancel()
            await queue.trim_outcomes("asked", last)
            with pytest.raises(TrimmedError):
                await _seen(ann, event.cursor, 1)
            again = await _ask(ann, 1)
            await _settle(queue, 1)
            assert (await _seen(ann, stream.cursor, 1))[0] == again
        await queue.close()

    with running(config) as gateway:
        asyncio.run(watch(gateway.address))


def test_a_cursor_that_is_too_old_is_said(config: Config) -> None:
    """Trimmed by the ledger or by time: OUT_OF_RANGE instead of a gap; the trimmed cursor itself misses nothing."""
    config = settings(config)

    async def watch(address: str) -> None:
        queue = Queue.connect(config)
        async with Client(address) as client:
            await _ask(client, 4)
            await _settle(queue, 4)
            events = await queue.outcomes("asked", "0")
            await queue.trim_outcomes("asked", events[1].cursor)
            with pytest.raises(TrimmedError, match="no longer kept; go on from 0"):
                await _seen(client, events[0].cursor, 1)
            names, _ = await _seen(client, events[1].cursor, 2)
            assert names == [event.deferral.name for event in events[2:]]
            assert (await _seen(client, "0", 2))[0] == names
        await queue.close()

    with running(config) as gateway:
        asyncio.run(watch(gateway.address))


async def test_what_was_purged_is_said_too(config: Config) -> None:
    """Retention ends an outcome: whoever was not so far hears of it, whoever begins anew does not."""
    short = Config(data_folder=config.data_folder, queues={"asked": QueueSettings(retention_seconds=1.0)})
    queue = Queue.connect(short)
    gone = await _parked(queue)
    await _settle(queue, 1)
    (event,) = await queue.outcomes("asked", "0", whole=True)
    before = f"{int(event.cursor.split('-')[0]) - 1}-0"
    assert [each.deferral.name for each in await queue.outcomes("asked", before, whole=True)] == [gone]
    await asyncio.sleep(1.1)
    await queue.reap()
    with pytest.raises(TrimmedError):
        await queue.outcomes("asked", before, whole=True)
    assert await queue.outcomes("asked", "0", whole=True) == []
    assert await queue.outcomes("asked", event.cursor, whole=True) == []
    assert await queue.outcomes("asked", before) == []
    await queue.close()


def test_a_wait_returns_with_the_outcome_or_in_time_without(config: Config) -> None:
    """WaitDeferral: as soon as there is an outcome; else after its timeout, the deferral still open."""
    config = settings(config)

    async def wait(address: str) -> None:
        queue = Queue.connect(config)
        async with Client(address) as client:
            (name,) = await _ask(client, 1)
            assert (await client.wait(name, timeout_seconds=0.3)).state is State.OPEN
            waiting = asyncio.ensure_future(client.wait(name, timeout_seconds=30))
            await asyncio.sleep(0.2)
            await _settle(queue, 1)
            told: Any = await asyncio.wait_for(waiting, 10)
            assert told.state is State.RESOLVED
        await queue.close()

    with running(config) as gateway:
        asyncio.run(wait(gateway.address))


async def _parked(queue: Queue) -> str:
    asked = Parking(
        queue="asked",
        client="shop",
        idempotency_key="",
        input_digest="0" * 64,
        task=TASK,
        subject=b"?",
        media_type="text/plain",
        attributes={},
    )
    (verdict,) = await queue.park([asked])
    assert isinstance(verdict, Parked)
    return verdict.name
