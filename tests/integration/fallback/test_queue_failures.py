"""What happens to the queue when its server goes away, forgets its scripts, is full, or would lose what it accepted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fallback import embedded
from fallback.answer import Identity, Label
from fallback.config import Config, RedisSettings
from fallback.connection import Connection
from fallback.deferral import State
from fallback.errors import ConfigError, FullError, StateError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.settling import conclude
from fallback.store import Store
from tests import servers
from tests.queueing import MakeParking

QUICK = RedisSettings(connect_timeout_seconds=0.5, command_timeout_seconds=1.0)


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.Server]:
    """A server that the test may kill."""
    running = embedded.Server.start(tmp_path / "valkey")
    running.wait_ready()
    monkeypatch.setenv("DEMUR_REDIS_URL", running.url)
    yield running
    running.stop()


@pytest.fixture
async def own_queue(own_server: embedded.Server, tmp_path: Path) -> AsyncIterator[Queue]:
    """A queue on it."""
    assert own_server.url
    queue = Queue.connect(Config(data_folder=tmp_path, tables={"redis": QUICK}))
    yield queue
    await queue.close()


def _kill(server: embedded.Server) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


def _again(server: embedded.Server) -> embedded.Server:
    again = embedded.Server.start(server.folder)
    again.wait_ready()
    return again


async def test_a_killed_server_comes_back_with_everything_it_accepted(
    own_server: embedded.Server, own_queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """Kill -9 and a restart on the same folder: records, content, holds, reviews, outcomes, outbox; tokens hold on."""
    verdicts = await own_queue.park([parking(idempotency_key=str(number)) for number in range(20)])
    first, second = await own_queue.lease("digits", reviewer=ann, limit=2)
    done = await own_queue.submit(first.token, reviewer=ann, answer=Label("7"), request_id="1")
    _kill(own_server)
    with pytest.raises(UnavailableError) as raised:
        await own_queue.get(done.name)
    assert raised.value.retry_after_seconds
    again = _again(own_server)
    try:
        assert await own_queue.get(done.name) == done
        repeated = await own_queue.park([parking(idempotency_key=str(number)) for number in range(20)])
        names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
        found = [(verdict.name, verdict.created) for verdict in repeated if isinstance(verdict, Parked)]
        assert found == [(name, False) for name in names]
        assert await own_queue.subject(names[5]) == b"a picture"
        assert await own_queue.submit(first.token, reviewer=ann, answer=Label("7"), request_id="1") == done
        await own_queue.submit(second.token, reviewer=ann, answer=Label("8"), request_id="2")
        assert len(await own_queue.outcomes("digits", "0")) == 2
        assert len(await own_queue.due(limit=10)) == 2
        assert await own_queue.reconcile() == []
    finally:
        again.stop()


async def test_those_who_wait_go_on_waiting_through_a_restart(
    own_server: embedded.Server, own_queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """A wait for work and a wait for an outcome end with what comes after the server is back."""
    (parked,) = await own_queue.park([parking()])
    assert isinstance(parked, Parked)
    (lease,) = await own_queue.lease("digits", reviewer=ann)
    outcome = asyncio.create_task(own_queue.wait(parked.name, timeout_seconds=30))
    work = asyncio.create_task(own_queue.lease("digits", reviewer=bob, wait_seconds=30))
    await asyncio.sleep(0.1)
    _kill(own_server)
    await asyncio.sleep(0.3)
    again = _again(own_server)
    try:
        await own_queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
        await own_queue.park([parking()])
        assert (await asyncio.wait_for(outcome, 10)).state is State.RESOLVED
        assert len(await asyncio.wait_for(work, 10)) == 1
    finally:
        again.stop()


async def test_while_the_server_is_away_every_request_gets_its_verdict(config: Config, parking: MakeParking) -> None:
    """Park raises nothing: each request may be tried again, and is told when."""
    nowhere = Config(data_folder=config.data_folder, tables={"redis": QUICK})
    queue = Queue.connect(nowhere)
    queue._store.connection.redis.connection_pool.connection_kwargs["path"] = "/nonexistent/valkey.sock"
    verdicts = await queue.park([parking(), parking(priority=10), parking()])
    assert [isinstance(verdict, UnavailableError) for verdict in verdicts] == [True, False, True]
    with pytest.raises(UnavailableError, match="try again"):
        await queue.states()
    await queue.close()


async def test_a_server_that_hangs_is_given_up_in_time(
    own_server: embedded.Server, own_queue: Queue, parking: MakeParking
) -> None:
    """A stopped server answers nothing; the command's time-out does."""
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        (verdict,) = await asyncio.wait_for(own_queue.park([parking()]), 20)
        assert isinstance(verdict, UnavailableError)
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert isinstance((await own_queue.park([parking()]))[0], Parked)


async def test_scripts_are_loaded_again_where_the_server_forgot_them(
    open_queue: Callable[..., Queue], parking: MakeParking, ann: Identity, redis_url: str
) -> None:
    """After SCRIPT FLUSH everything goes on, a batch in a pipeline too."""
    queue = open_queue()
    redis = Redis.from_url(redis_url)
    await queue.park([parking()])
    await redis.script_flush()
    verdicts = await queue.park([parking(idempotency_key=str(number)) for number in range(5)])
    assert all(isinstance(verdict, Parked) and verdict.created for verdict in verdicts)
    await redis.script_flush()
    (lease,) = await queue.lease("digits", reviewer=ann)
    await redis.script_flush()
    assert (await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")).state is State.RESOLVED
    await redis.aclose()


async def test_a_repeat_of_our_own_after_a_broken_connection_does_nothing_twice(
    queue: Queue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the server did its work and before the reply: the second attempt gets the reply."""
    redis = queue._store.connection.redis
    await queue.park([parking(), parking(), parking()])
    (known,) = await queue.lease("digits", reviewer=ann)
    await queue.submit(known.token, reviewer=ann, answer=Label("7"), request_id="")
    real, calls = redis.execute_command, []

    async def broken(*arguments: object, **options: object) -> object:
        reply = await real(*arguments, **options)
        if arguments[0] == "EVALSHA":
            calls.append(arguments)
            if len(calls) % 2:
                raise ConnectionResetError("Connection lost")
        return reply

    monkeypatch.setattr(redis, "execute_command", broken)
    (lease,) = await queue.lease("digits", reviewer=ann)
    done = await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    assert len(calls) == 4
    assert done.state is State.RESOLVED
    assert len(done.reviews) == 1
    (digits,) = await queue.states()
    assert (digits.waiting, digits.held, digits.open) == (1, 0, 1)
    assert len(await queue.outcomes("digits", "0")) == 2


async def test_a_batch_whose_replies_were_lost_is_parked_once(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an idempotency key too: the id that we made tells the repeat."""
    redis = queue._store.connection.redis
    real = redis.pipeline
    broken: list[bool] = []

    def pipeline(**options: bool) -> object:
        made = real(**options)
        execute = made.execute

        async def lost(**how: bool) -> object:
            replies = await execute(**how)
            if not broken:
                broken.append(True)
                raise ConnectionResetError("Connection lost")
            return replies

        made.execute = lost
        return made

    monkeypatch.setattr(redis, "pipeline", pipeline)
    verdicts = await queue.park([parking() for _ in range(3)])
    assert [isinstance(verdict, Parked) and verdict.created for verdict in verdicts] == [True] * 3
    (digits,) = await queue.states()
    assert digits.open == 3
    assert [await redis.ttl(key) async for key in redis.scan_iter(match="*}:b:*")] == [-1] * 6


async def test_out_of_memory_refuses_new_work_and_lets_reviewers_finish(
    own_server: embedded.Server, own_queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """Parking is refused with when to come back; leasing, answering and telling go on, for they make room."""
    await own_queue.park([parking(), parking()])
    redis = Redis.from_url(own_server.url)
    await redis.config_set("maxmemory", 1)
    (verdict,) = await own_queue.park([parking()])
    assert isinstance(verdict, FullError)
    assert verdict.retry_after_seconds
    one, two = await own_queue.lease("digits", reviewer=ann, limit=2)
    await own_queue.submit(one.token, reviewer=ann, answer=Label("7"), request_id="1")
    await own_queue.cancel(two.deferral.name, request_id="2")
    for delivery in await own_queue.due(limit=10):
        await own_queue.delivered(delivery)
    await own_queue.reap()
    await redis.config_set("maxmemory", 0)
    assert await own_queue.reconcile() == []
    await redis.aclose()


async def test_a_server_that_could_forget_is_refused(own_server: embedded.Server, own_queue: Queue) -> None:
    """Eviction, and no append-only file, each with what to change."""
    await own_queue.check()
    redis = Redis.from_url(own_server.url)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await own_queue.check()
    await redis.config_set("maxmemory", 10**9)
    with pytest.raises(ConfigError, match="expected maxmemory-policy noeviction, got allkeys-lru"):
        await own_queue.check()
    await redis.config_set("maxmemory-policy", "noeviction")
    await own_queue.check()
    await redis.config_set("appendonly", "no")
    with pytest.raises(ConfigError, match="expected appendonly yes, got no"):
        await own_queue.check()
    await redis.config_set("appendonly", "yes")
    await redis.config_set("appendfsync", "everysec")
    with pytest.raises(ConfigError, match="expected appendfsync always, got everysec"):
        await own_queue.check()
    # A server that writes its first append-only file does not stop when it is told to.
    while (await redis.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.02)
    await redis.aclose()


async def test_a_server_that_still_loads_is_waited_for_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has read its append-only file a Valkey says that it keeps none; that is no reason to give up."""
    with servers.server(tmp_path / "server") as server:
        monkeypatch.setenv("DEMUR_REDIS_URL", f"redis://127.0.0.1:{server.port}")
        queue = Queue.connect(Config(data_folder=tmp_path))
        redis = queue._store.connection.redis
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(4_000):
                pipeline.set(f"k{number}", "v")
            await pipeline.execute()
        await queue.check()
        server.stop()
        # Microseconds for each; it answers now and then meanwhile.
        server.argv += ["--key-load-delay", "1000"]
        server.start(loaded=False)
        with pytest.raises(UnavailableError, match="still reads what it keeps on its disk"):
            await queue.check()
        servers.until(server.answers)
        await queue.check()
        await queue.close()


async def test_a_server_that_could_forget_is_taken_where_that_is_said(
    own_server: embedded.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a loud word at every start; a weaker sync alone has a setting of its own and needs none."""
    redis = Redis.from_url(own_server.url)
    await redis.config_set("appendfsync", "everysec")
    accepted = Queue.connect(Config(data_folder=tmp_path, tables={"redis": RedisSettings(fsync="everysec")}))
    await accepted.check()
    assert capsys.readouterr().out == ""
    unsafe = Queue.connect(Config(data_folder=tmp_path, tables={"redis": RedisSettings(allow_unsafe=True)}))
    for _ in range(2):
        await unsafe.check()
        said = capsys.readouterr().out
        assert "UNSAFE server, allowed by redis.allow_unsafe" in said
        assert "expected appendfsync always, got everysec" in said
    for queue in (accepted, unsafe):
        await queue.close()
    await redis.aclose()


async def test_what_a_managed_server_does_not_tell_is_said_in_a_warning(
    own_server: embedded.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """INFO is enough to start; CONFIG is blocked there."""
    redis = Redis.from_url(own_server.url)
    await redis.acl_setuser(
        "app", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-config"]
    )
    monkeypatch.setenv("DEMUR_REDIS_URL", own_server.url.replace("unix://", "unix://app:pw@"))
    queue = Queue.connect(Config(data_folder=tmp_path))
    await queue.check()
    assert "cannot read its appendfsync (CONFIG is not allowed)" in capsys.readouterr().out
    await redis.config_set("appendonly", "no")
    with pytest.raises(ConfigError, match="expected appendonly yes, got no"):
        await queue.check()
    await queue.close()
    await redis.aclose()


async def test_the_reaper_finishes_what_a_process_left_that_died_between_review_and_outcome(
    open_queue: Callable[..., Queue], parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All reviews in, none settled: the deferral stands in `full`, and any reaper settles or grows it."""
    queue = open_queue(reviews_wanted=2, reviews_max=3)

    async def died(store: Store, name: str, one: str) -> None:
        raise StateError(f"died before it could settle {name} {one} in {store}")

    await queue.park([parking(), parking()])
    monkeypatch.setattr("fallback.leases.foresee", lambda *_: ())
    monkeypatch.setattr("fallback.leases.conclude", died)
    for reviewer, answers in ((ann, ("7", "7")), (Identity(name="bob"), ("7", "1"))):
        for lease, answer in zip(await queue.lease("digits", reviewer=reviewer, limit=2), answers, strict=True):
            with pytest.raises(StateError, match="died"):
                await queue.submit(lease.token, reviewer=reviewer, answer=Label(answer), request_id="")
    monkeypatch.setattr("fallback.leases.conclude", conclude)
    (digits,) = await queue.states()
    assert (digits.open, digits.waiting, digits.held) == (2, 0, 0)
    assert await queue.reconcile() == []
    assert (await queue.reap()).finished == 1
    (digits,) = await queue.states()
    assert (digits.open, digits.waiting) == (1, 1)
    assert len(await queue.outcomes("digits", "0")) == 1
    assert await queue.reconcile() == []


def test_an_address_of_another_kind_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process does not start."""
    monkeypatch.setenv("DEMUR_REDIS_URL", "http://localhost")
    with pytest.raises(ConfigError, match="expected redis://, rediss:// or unix://"):
        Connection(config)
