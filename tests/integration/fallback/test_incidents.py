"""What went wrong elsewhere, once each, and that it cannot here; then each again with its defence taken out.

Every incident is a check that asks for what people missed. With the product as it is the check passes; with one
defence out of it the very same check fails: so it is that defence which holds, and the check would notice its loss.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from fallback import embedded, listing, reaper
from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings
from fallback.deferral import Deferral, State
from fallback.errors import ConfigError, DemurError, StateError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.store import Store
from tests import planted
from tests.queueing import MakeParking

ANN, BOB = Identity(name="ann"), Identity(name="bob")
LEASE_SECONDS: Final = 0.4


class Ground:
    """A queue on a real server, and what is done to it over and over."""

    def __init__(self, server: embedded.Server, config: Config, parking: MakeParking) -> None:
        self.server = server
        self.queue = Queue.connect(config)
        self.parking = parking
        self._requests = 0

    def request(self) -> str:
        """Return a new request id."""
        self._requests += 1
        return f"request-{self._requests}"

    async def park(self, **changes: Any) -> str:
        """Park one request; returns the deferral's name."""
        (verdict,) = await self.queue.park([self.parking(**changes)])
        assert isinstance(verdict, Parked), verdict
        return verdict.name

    async def submit(self, token: str, reviewer: Identity, label: str) -> Deferral:
        """Answer."""
        return await self.queue.submit(token, reviewer=reviewer, answer=Label(label), request_id=self.request())

    async def late_submit(self, token: str, reviewer: Identity, label: str) -> str:
        """Answer under a lease that is over; returns what the queue says to that."""
        try:
            await self.submit(token, reviewer, label)
        except StateError as error:
            return error.message
        return "accepted"


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parking: MakeParking) -> AsyncIterator[Ground]:
    """A server of the test's own, which it may do anything to."""
    running = embedded.Server.start(tmp_path / "valkey")
    running.wait_ready()
    monkeypatch.setenv("DEMUR_REDIS_URL", running.url)
    queues = {
        "digits": QueueSettings(lease_seconds=LEASE_SECONDS),
        "pairs": QueueSettings(lease_seconds=LEASE_SECONDS, reviews_wanted=2, reviews_max=3),
    }
    made = Ground(running, Config(data_folder=tmp_path, queues=queues), parking)
    yield made
    await made.queue.close()
    running.stop()


async def double_lease(ground: Ground) -> None:
    """Two complete one job, and the later overwrites the earlier.

    Bull and BullMQ (OptimalBits/bull issue 308, taskforcesh/bullmq issue 439): a worker that is only slow loses its
    lock, another gets the job, and the first one completes it all the same.
    """
    name = await ground.park()
    (slow,) = await ground.queue.lease("digits", reviewer=ANN)
    assert await ground.queue.lease("digits", reviewer=BOB) == [], "two hold one place"
    await asyncio.sleep(LEASE_SECONDS + 0.05)
    (quick,) = await ground.queue.lease("digits", reviewer=BOB)
    assert "is over" in await ground.late_submit(slow.token, ANN, "3"), "an answer from a lease that is over"
    await ground.submit(quick.token, BOB, "8")
    assert "is over" in (said := await ground.late_submit(slow.token, ANN, "3")) or "resolved" in said
    ended = await ground.queue.get(name)
    assert [review.reviewer for review in ended.reviews] == ["bob"]
    assert ended.outcome is not None
    assert ended.outcome.answer == Label("8")


async def all_done(ground: Ground) -> None:
    """People are told that all is done, and it is not.

    Label Studio (HumanSignal/label-studio issues 4190, 4788): the annotator is told that everything is completed
    while others hold what is left, and goes home; nobody asks again when those give it up.
    """
    await ground.park()
    await ground.queue.lease("digits", reviewer=ANN)
    assert await ground.queue.lease("digits", reviewer=BOB) == []
    (state,) = [one for one in await ground.queue.states() if one.name == "digits"]
    assert (state.waiting, state.held, state.open) == (0, 1, 1), "what is held is told"
    assert state.reviewers == 1
    # Who waits gets it as soon as it is given up, not at the next look.
    waiting = asyncio.create_task(ground.queue.lease("digits", reviewer=BOB, wait_seconds=5.0))
    await asyncio.sleep(LEASE_SECONDS + 0.05)
    await ground.queue.reap()
    start = time.monotonic()
    assert len(await waiting) == 1
    assert time.monotonic() - start < 1.0


async def slow_restore(ground: Ground) -> None:
    """What a dead worker had taken is away for long.

    Celery with kombu (celery/celery issue 4984, celery/kombu issue 164, pull request 2558): it comes back after an
    hour by default, ten at a time, and a shorter time-out is looked at every 100 s only.
    """
    names = {await ground.park() for _ in range(30)}
    assert len(await ground.queue.lease("digits", reviewer=ANN, limit=30)) == 30
    # Ann's process is killed: nobody gives anything back, and no reaper runs.
    await asyncio.sleep(LEASE_SECONDS + 0.05)
    back: set[str] = set()
    for _ in range(4):
        back |= {lease.deferral.name for lease in await ground.queue.lease("digits", reviewer=BOB, limit=30)}
    assert back == names, f"{len(back)} of {len(names)} came back with the end of their leases"


async def early_restore(ground: Ground) -> None:
    """What somebody works on is given to another.

    Celery with kombu (celery/kombu pull request 905, issue 1098): a worker that starts restores what others still
    work on, whatever the time-out says, and everything runs twice.
    """
    await ground.park()
    (held,) = await ground.queue.lease("digits", reviewer=ANN)
    # Another replica starts: it reaps, and asks for work.
    await ground.queue.reap()
    assert await ground.queue.lease("digits", reviewer=BOB) == [], "taken from who still works on it"
    ended = await ground.submit(held.token, ANN, "3")
    assert ended.state is State.RESOLVED


async def half_an_ack(ground: Ground) -> None:
    """Of what belongs to one step only a part is written.

    The process or the connection goes in between. In asynq (hibiken/asynq issue 1051) tasks are done, but still among
    the active ones; in RQ (rq/rq issue 758) they are there, but in no list that anybody reads.
    """
    name = await ground.park()
    (lease,) = await ground.queue.lease("digits", reviewer=ANN)
    settled = await ground.submit(lease.token, ANN, "3")
    # Nothing runs any more but another process, later.
    assert settled.state is State.RESOLVED
    assert await ground.queue.reconcile() == []
    assert [event.deferral.name for event in await ground.queue.outcomes("digits", "0")] == [name]
    assert [delivery.deferral.name for delivery in await ground.queue.due(limit=10)] == [name], "never told"


async def lost_reply(ground: Ground) -> None:
    """The server acted and the reply was lost: the repeat acts again, or is told that nothing was done.

    BullMQ (taskforcesh/bullmq issue 596): a job that was completed is completed again, is refused for its missing
    lock, and the worker fails with it.
    """
    await ground.park(queue="pairs")
    (lease,) = await ground.queue.lease("pairs", reviewer=ANN)
    request = ground.request()
    said: list[str | list[str]] = []
    for _ in range(2):
        try:
            done = await ground.queue.submit(lease.token, reviewer=ANN, answer=Label("3"), request_id=request)
        except StateError as error:
            said.append(error.message)
        else:
            said.append([review.reviewer for review in done.reviews])
    assert said == [["ann"], ["ann"]], "the repeat gets the reply that was lost"


async def stuck(ground: Ground) -> None:
    """Active for ever, because who was to take the next step died.

    In asynq (hibiken/asynq issue 1144), arq (python-arq/arq issue 343) and RQ (rq/rq issue 507) such a job stands in
    no list from which anybody would take it again, or only hours later.
    """
    name = await ground.park(queue="pairs")
    for reviewer, label in ((ANN, "3"), (BOB, "8")):
        (lease,) = await ground.queue.lease("pairs", reviewer=reviewer)
        # The process dies as soon as the script has run: what the reviews add up to is never looked at.
        with dying():
            try:
                await ground.submit(lease.token, reviewer, label)
            except UnavailableError:
                continue
    assert (await ground.queue.get(name)).state is State.OPEN
    await ground.queue.reap()
    cid = Identity(name="cid")
    leases = await ground.queue.lease("pairs", reviewer=cid)
    assert len(leases) == 1, "two disagree: a third is asked, although who saw it died"
    assert (await ground.submit(leases[0].token, cid, "8")).state is State.RESOLVED


async def eviction(ground: Ground) -> None:
    """The server forgets what it accepted.

    BullMQ (taskforcesh/bullmq issues 921, 1046): on a server that is also a cache jobs and locks are evicted when
    memory is short; a warning in a log was all there was.
    """
    store = Store(Config(data_folder=ground.server.folder))
    redis = store.connection.redis
    try:
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", used + 2_000_000)
        await redis.config_set("maxmemory-policy", "allkeys-random")
    finally:
        await store.connection.close()
    try:
        await ground.queue.check()
    except ConfigError:
        return  # Nothing is accepted, nothing can be lost.
    accepted = []
    for _ in range(60):
        accepted += await ground.queue.park([ground.parking(subject=b"x" * 20_000) for _ in range(10)])
    there = 0
    for one in accepted:
        if isinstance(one, Parked):
            try:
                there += await ground.queue.subject(one.name) != b""
            except DemurError:
                continue
    assert there == len(accepted), f"{len(accepted) - there} of {len(accepted)} are gone, or were never accepted"


async def two_tabs(ground: Ground) -> None:
    """One person answers twice.

    Label Studio (HumanSignal/label-studio pull request 5308): whoever opens the label stream in two tabs may get one
    task in both; the manual asks people not to.
    """
    name = await ground.park(queue="pairs")
    (first,) = await ground.queue.lease("pairs", reviewer=ANN)
    assert await ground.queue.lease("pairs", reviewer=ANN) == [], "the second tab gets what the first one holds"
    await ground.submit(first.token, ANN, "3")
    assert await ground.queue.lease("pairs", reviewer=ANN) == [], "the second tab gets what the first one answered"
    assert [review.reviewer for review in (await ground.queue.get(name)).reviews] == ["ann"]


async def lost_annotation(ground: Ground) -> None:
    """Work is gone, and nobody says so.

    Label Studio (HumanSignal/label-studio issue 1101, pull request 4823): after a submit, or after the page was left
    with work unfinished.
    """
    await ground.park()
    (lease,) = await ground.queue.lease("digits", reviewer=ANN)
    await ground.queue.save_draft(lease.token, reviewer=ANN, draft='{"label": "3"}', request_id=ground.request())
    # The browser crashes; the lease lapses; the reaper was here.
    await asyncio.sleep(LEASE_SECONDS + 0.05)
    await ground.queue.reap()
    assert "lapsed" in await ground.late_submit(lease.token, ANN, "3"), "who comes late is told what happened"
    (again,) = await ground.queue.lease("digits", reviewer=ANN)
    assert again.draft == '{"label": "3"}', "the unfinished work is there again"


@contextmanager
def dying() -> Iterator[None]:
    """Have this process lose the server between a review's script and what follows."""
    with pytest.MonkeyPatch.context() as patch:

        async def gone(*_: object) -> None:
            raise UnavailableError("killed")

        patch.setattr("fallback.leases.conclude", gone)
        yield


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


async def _nothing(*_: object, **__: object) -> int:
    return 0


async def _states_of_free(store: Store) -> list[listing.QueueState]:
    return [msgspec.structs.replace(one, held=0, open=one.waiting, reviewers=0) for one in await _states(store)]


_states = listing.states
Check = Callable[[Ground], Awaitable[None]]
Without = Callable[[], AbstractContextManager[None]]
# Each incident beside what takes its defence out.
INCIDENTS: dict[str, tuple[Check, Without]] = {
    "double lease": (double_lease, lambda: planted.scripts(planted.NO_FENCING)),
    "all done while items are held": (all_done, lambda: _replaced(listing, "states", _states_of_free)),
    "restored too slowly": (slow_restore, lambda: planted.scripts(planted.instead("lapse", "return 0"))),
    "restored too early": (
        early_restore,
        lambda: planted.scripts(planted.instead("lapse", "return before((...) + 3600000, (select(2, ...)))")),
    ),
    "half an ack": (half_an_ack, lambda: planted.scripts(planted.NO_OUTBOX)),
    "a lost reply": (lost_reply, lambda: planted.scripts(planted.NO_REPLAY)),
    "stuck without a lease": (stuck, lambda: _replaced(reaper, "_finish", _nothing)),
    "eviction": (eviction, lambda: _replaced(Queue, "check", _nothing)),
    "two tabs": (two_tabs, lambda: planted.scripts(planted.replaced("slot[2] == reviewer", "false"))),
    "a lost annotation": (
        lost_annotation,
        lambda: planted.scripts(planted.instead("draft_of", "return ''")),
    ),
}


async def test_a_lease_that_is_over_changes_nothing_for_who_has_the_next_one(ground: Ground) -> None:
    """Double lease."""
    await double_lease(ground)


async def test_nobody_is_told_that_all_is_done_while_others_hold_the_rest(ground: Ground) -> None:
    """All done while items are held."""
    await all_done(ground)


async def test_what_a_dead_reviewer_held_is_back_with_the_end_of_the_lease(ground: Ground) -> None:
    """Restored too slowly."""
    await slow_restore(ground)


async def test_a_replica_that_starts_takes_nothing_from_who_still_works(ground: Ground) -> None:
    """Restored too early."""
    await early_restore(ground)


async def test_an_answer_its_outcome_and_its_callback_are_one_step(ground: Ground) -> None:
    """Half-applied ack."""
    await half_an_ack(ground)


async def test_who_repeats_after_a_lost_reply_gets_that_reply(ground: Ground) -> None:
    """Half-applied ack, seen from who made the call."""
    await lost_reply(ground)


async def test_what_a_dead_process_left_unfinished_is_finished_by_another(ground: Ground) -> None:
    """Stuck without a lease."""
    await stuck(ground)


async def test_a_server_that_evicts_is_not_used(ground: Ground) -> None:
    """Eviction."""
    await eviction(ground)


async def test_one_person_in_two_tabs_is_one_person(ground: Ground) -> None:
    """Two tabs."""
    await two_tabs(ground)


async def test_unfinished_work_outlives_browser_and_lease(ground: Ground) -> None:
    """Lost annotation."""
    await lost_annotation(ground)


@pytest.mark.parametrize("incident", INCIDENTS)
async def test_the_incident_happens_once_its_defence_is_taken_out(ground: Ground, incident: str) -> None:
    """The very same check fails: it is this defence that holds."""
    check, without = INCIDENTS[incident]
    with ExitStack() as out:
        out.enter_context(without())
        with pytest.raises(AssertionError):
            await check(ground)
