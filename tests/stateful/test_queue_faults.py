"""The Hypothesis machine with faults at the Redis boundary: server and model agree whatever happens on the way.

About every second call of a caller is struck by a fault: its reply is lost after the server did its work, once
or for good; it is sent twice; it is held up; the caller's task is cancelled before, in the middle or after; the server
forgets its scripts; the server is killed and comes back. The caller then does what a real client does: it calls again
with the same request id, or idempotency key. What has neither, a lease, is not repeated: nobody knows of that hold, and
it lapses. Who wants to go on elsewhere asks again, too, and gets again what they held.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar, assert_never, cast

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, multiple, rule, run_state_machine_as_test

from fallback import connection, embedded, keys, limits
from fallback.blobs.places import BlobStore
from fallback.config import Config
from fallback.connection import Connection
from fallback.deferral import Parking
from fallback.errors import DemurError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.store import NO_REQUEST, Store
from tests.servers import until
from tests.stateful.queue_model import TIERS
from tests.stateful.queue_people import QUEUE, reviewers, skills
from tests.stateful.test_queue_machine import Machine

T = TypeVar("T")
REPEATS_MAX = 60
KILLS_MAX = 1
STRUCK_MIN = 20
STRIKES_SHARE = 0.5
PARKED_FIRST = 4
# What only compares, between the steps.
WATCHING = frozenset({"close", "reconcile", "states", "outcomes", "list_deferrals"})


# How many calls to the server pass before one is struck: most verbs make one or two.
PASSING = (0, 0, 0, 1, 1, 2)


class Fault(Enum):
    """What happens to one call to the server."""

    LOST_ONCE = auto()
    LOST_FOR_GOOD = auto()
    TWICE = auto()
    LATE = auto()
    CANCELLED_BEFORE = auto()
    CANCELLED_MIDWAY = auto()
    CANCELLED_AFTER = auto()
    FORGOTTEN_SCRIPTS = auto()
    KILLED_BEFORE = auto()
    KILLED_AFTER = auto()


# What leaves a caller without an answer, and what happens instead to one who cannot ask again.
GENTLE = {
    Fault.LOST_FOR_GOOD: Fault.LOST_ONCE,
    Fault.CANCELLED_BEFORE: Fault.LATE,
    Fault.CANCELLED_MIDWAY: Fault.TWICE,
    Fault.CANCELLED_AFTER: Fault.TWICE,
}


class Faulty(Connection):
    """The real connection, to a server of the test's own, with one fault at most on its way."""

    def __init__(self, config: Config, ground: Ground) -> None:
        super().__init__(config)
        self.ground = ground
        # Says for each call of a caller, repeats too, what strikes, and how many calls to the server pass before.
        self.dice: random.Random | None = None
        self.armed: Fault | None = None
        self.pass_by = 0
        self.kills = 0
        # Whether a caller waits who would be struck, for what, and whether they can ask again.
        self.calling = False
        self.verb = ""
        self.gentle = False

    async def attempt(self, call: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
        fault = self._strike()
        if fault is None:
            return await super().attempt(call, once=once)
        attempts = 0

        async def struck() -> T:
            nonlocal attempts
            attempts += 1
            return await (self._suffer(fault, call) if attempts == 1 or fault is Fault.LOST_FOR_GOOD else call())

        return await super().attempt(struck, once=once)

    def arm(self, verb: str) -> None:
        """A caller calls: something strikes, or not."""
        self.calling, self.verb, self.armed = True, verb, None
        if self.dice is not None and self.dice.random() < STRIKES_SHARE:
            self.armed, self.pass_by = self.dice.choice(list(Fault)), self.dice.choice(PASSING)

    def _strike(self) -> Fault | None:
        if self.armed is None or not self.calling:
            return None
        if self.pass_by:
            self.pass_by -= 1
            return None
        fault, self.armed = self.armed, None
        fault = GENTLE.get(fault, fault) if self.gentle else fault
        if fault in {Fault.KILLED_BEFORE, Fault.KILLED_AFTER}:
            self.kills += 1
            # A start takes its time.
            fault = fault if self.kills <= KILLS_MAX else Fault.LOST_ONCE
        self.ground.struck[self.verb, fault] += 1
        note(f"struck: {self.verb}, {fault.name}")
        return fault

    async def _suffer(self, fault: Fault, call: Callable[[], Awaitable[T]]) -> T:
        match fault:
            case Fault.LOST_ONCE | Fault.LOST_FOR_GOOD:
                await call()
                raise ConnectionResetError("Connection lost")
            case Fault.TWICE:
                await call()
            case Fault.LATE:
                await asyncio.sleep(0.005)
            case Fault.CANCELLED_BEFORE | Fault.CANCELLED_AFTER:
                if fault is Fault.CANCELLED_AFTER:
                    await call()
                _this_task().cancel()
                await asyncio.sleep(0)
            case Fault.CANCELLED_MIDWAY:
                asyncio.get_running_loop().call_soon(_this_task().cancel)
            case Fault.FORGOTTEN_SCRIPTS:
                await self.redis.script_flush()
            case Fault.KILLED_BEFORE:
                self.ground.restart()
            case Fault.KILLED_AFTER:
                await call()
                self.ground.restart()
                raise ConnectionResetError("Connection lost")
            case _:
                assert_never(fault)
        return await call()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class UnknownError(Exception):
    """A call that must not be repeated got no answer: it may have been done."""


class Caller:
    """A queue as a real client uses it: who gets no answer asks again, with the same request id or idempotency key."""

    def __init__(self, queue: Queue, faulty: Faulty) -> None:
        self._queue = queue
        self._faulty = faulty
        self._names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._queue, name)
        if name.startswith("_") or name in WATCHING:
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            verb = next((known for known in ("resume", "escalate") if named.get(known)), name)
            for _ in range(REPEATS_MAX):
                done, answer = await self._once(verb, found(*arguments, **named))
                if done:
                    return answer
                if name == "lease":
                    raise UnknownError
            raise AssertionError(f"{name}: no answer after {REPEATS_MAX} calls")

        return call

    async def park(self, parkings: list[Parking]) -> list[Parked | DemurError]:
        """Without a key a client cannot ask again; with one, `created` tells the first answer from the others."""
        self._faulty.gentle = not all(parking.idempotency_key for parking in parkings)
        try:
            for _ in range(REPEATS_MAX):
                done, verdicts = await self._once("park", self._queue.park(parkings))
                if done and not any(isinstance(verdict, UnavailableError) for verdict in verdicts):
                    return [self._first(verdict) for verdict in verdicts]
        finally:
            self._faulty.gentle = False
        raise AssertionError(f"park: no answer after {REPEATS_MAX} calls")

    def _first(self, verdict: Parked | DemurError) -> Parked | DemurError:
        if isinstance(verdict, DemurError):
            return verdict
        new = verdict.name not in self._names
        assert new or not verdict.created
        self._names.add(verdict.name)
        return msgspec.structs.replace(verdict, created=new)

    async def _once(self, verb: str, call: Any) -> tuple[bool, Any]:
        self._faulty.arm(verb)
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait([task])
        finally:
            self._faulty.calling = False
        if task.cancelled() or isinstance(task.exception(), UnavailableError):
            # What was on its way when the caller went has arrived.
            await asyncio.sleep(0.005)
            return False, None
        return True, task.result()


class Ground:
    """The server that may be killed, set up as the embedded one is, and how often each fault struck."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.url = embedded.url(folder)
        self.struck: Counter[tuple[str, Fault]] = Counter()
        self.start()

    def start(self) -> None:
        # Without the launcher, which guards the folder against a second server and takes its time.
        self._process = subprocess.Popen(embedded.server_argv(self.folder), stdin=subprocess.DEVNULL)
        until(lambda: embedded.answers(self.folder))

    def stop(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill it, and start it again on the same folder."""
        self.stop()
        self.start()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """One for the module."""
    made = Ground(tmp_path_factory.mktemp("faults") / "valkey")
    yield made
    made.stop()


class FaultyMachine(Machine):
    """What the machine does, with a fault now and then."""

    ground: Ground

    async def open(self, config: Config) -> Queue:
        store = Store(config)
        store.connection = self.faulty = Faulty(config, self.ground)
        store.blobs = BlobStore(config, store.connection)
        return cast("Queue", Caller(Queue(store), self.faulty))

    @initialize(seed=st.integers(0, 2**32))
    def something_is_going_to_happen(self, seed: int) -> None:
        """To about every second call from here on; there is enough to do that most calls find something."""
        for number in range(PARKED_FIRST):
            self.park(key="", digest="x", priority=0, tier="", excluded=(), escalates=number % 2 == 0, opinion=None)
        # One number: a list of faults, drawn, would leave less room for steps.
        self.faulty.dice, self.faulty.kills = random.Random(seed), 0

    @rule(target=Machine.tokens, reviewer=reviewers, limit=st.integers(1, 3), skill=skills)
    def lease(self, reviewer: str, limit: int, skill: str = "") -> Any:
        """As ever; where no answer came, what was taken lapses."""
        try:
            return super().lease(reviewer, limit, skill)
        except UnknownError:
            self._nobody_knows()
            return multiple()

    @rule(target=Machine.tokens, reviewer=reviewers, limit=st.integers(1, 3))
    def resume(self, reviewer: str, limit: int) -> Any:
        """As ever; where no answer came, they ask again. What was taken beside what they held lapses."""
        for _ in range(REPEATS_MAX):
            try:
                return super().resume(reviewer, limit)
            except UnknownError:
                self._nobody_knows()
        raise AssertionError(f"resume: no answer after {REPEATS_MAX} calls")

    def _nobody_knows(self) -> None:
        """Let time pass until holds that nobody has a token of have lapsed."""
        known = {
            f"{item.id}:{number}"
            for item in self.items.values()
            for number, slot in enumerate(item.slots)
            if slot.token and not slot.overdue
        }
        leases = keys.index(QUEUE, "leases")
        for member in self.run(self.redis.zrange(leases, 0, -1)):
            if member.decode() not in known:
                one, _, slot = member.decode().partition(":")
                self.run(self.redis.hset(keys.record(QUEUE, one), f"s{slot}.until", "1"))
                self.run(self.redis.zadd(leases, {member: 1}))
        self.run(self.queue._store.run("lapse", QUEUE, 128, request=NO_REQUEST))
        self.model.lapse()

    def counted(self, got: int, done: int) -> bool:
        """All is done at the end; what was done in a round whose reply was lost is not counted."""
        return got <= done


@pytest.mark.parametrize(("wanted", "limit", "undo_seconds"), [(1, 1, 0.0), (2, 3, 3600.0)])
def test_the_queue_does_what_the_model_does_whatever_happens_on_the_way(
    ground: Ground,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
    limit: int,
    undo_seconds: float,
) -> None:
    """After every step, with calls lost, doubled, late and cancelled, scripts forgotten and the server killed."""
    monkeypatch.setenv("DEMUR_REDIS_URL", ground.url)
    monkeypatch.setattr(connection, "RETRY_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    # Which call is struck follows from how many there were: none is to depend on how long others took.
    monkeypatch.setattr(limits, "LOAD_SECONDS", math.inf)
    ground.struck.clear()
    said = {"wanted": wanted, "limit": limit, "undo_seconds": undo_seconds, "tiers": TIERS, "ground": ground}
    run_state_machine_as_test(
        type("Machine", (FaultyMachine,), {**said, "config": Config(data_folder=tmp_path)}),
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            database=None,
            derandomize=bool(os.environ.get("CI")),
            # Explaining a failure traces every line: minutes with a server behind it.
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert sum(ground.struck.values()) >= STRUCK_MIN, ground.struck
