"""Batches form by back-pressure, within bounds, and one job's fate is its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.errors import DemurError, FullError, OverdueError, UnavailableError
from gateway.batcher import Batcher
from gateway.batching import Batching, QueuePolicy
from gateway.timer import Timer
from gateway.turns import Shares

WAIT_SECONDS = 5.0


class Job:
    """A job that remembers its end."""

    def __init__(
        self,
        name: str,
        *,
        rows: int = 1,
        group: str = "",
        deadline: float | None = None,
        level: int = 0,
        timeout_us: int = 0,
    ) -> None:
        self.name = name
        self.rows = rows
        self.group = group
        self.deadline = deadline
        self.level = level
        self.timeout_us = timeout_us
        self.since = time.monotonic()
        self.until = math.inf
        self.cancelled = False
        self.error: DemurError | None = None
        self.ends = 0
        self.ended = threading.Event()

    def fail(self, error: DemurError) -> None:
        self.error = error
        self.end()

    def end(self) -> None:
        self.ends += 1
        self.ended.set()

    def wait(self) -> DemurError | None:
        assert self.ended.wait(WAIT_SECONDS), f"{self.name} never ended"
        assert self.ends == 1
        return self.error


class Gate:
    """A run that waits until it is let through, so that a test can fill the queue meanwhile."""

    def __init__(self, failing: Callable[[Sequence[Job]], bool] = lambda _: False) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self._failing = failing

    def execute(self, jobs: Sequence[Job]) -> None:
        self.entered.release()
        assert self.open.wait(WAIT_SECONDS)
        self.batches.append([job.name for job in jobs])
        if self._failing(jobs):
            raise RuntimeError("secret detail")
        for job in jobs:
            job.end()


@pytest.fixture(scope="module", autouse=True)
def timer() -> Iterator[Timer]:
    """The thread that looks after what waits."""
    timer = Timer()
    timer.start()
    _TIMERS.append(timer)
    yield timer
    timer.close()


_TIMERS: list[Timer] = []


def _made(
    execute: Callable[[Sequence[Job]], None], *, queue_rows_max: int = 1000, shares: Shares | None = None
) -> Batcher[Job]:
    return Batcher("m", execute, timer=_TIMERS[-1], shares=shares or Shares(8), queue_rows_max=queue_rows_max)


@contextmanager
def batching(
    gate: Gate,
    *,
    rows_max: int = 8,
    queue_rows_max: int = 100,
    instances: int = 1,
    **settings: Any,
) -> Iterator[Batcher[Job]]:
    """A batcher whose thread is busy with a first job until the gate opens."""
    batcher = _made(gate.execute, queue_rows_max=queue_rows_max)
    batcher.configure(Batching(**settings), rows_max=rows_max, instances=instances)
    batcher.submit(Job("first"))
    assert gate.entered.acquire(timeout=WAIT_SECONDS)
    yield batcher
    gate.open.set()
    batcher.close(grace_seconds=WAIT_SECONDS)


def test_what_waits_while_a_batch_runs_is_the_next_batch() -> None:
    """All of it, in order."""
    gate = Gate()
    with batching(gate) as batcher:
        jobs = [Job(f"j{number}") for number in range(5)]
        for job in jobs:
            batcher.submit(job)
        assert batcher.rows == 5
        gate.open.set()
        assert [job.wait() for job in jobs] == [None] * 5
    assert gate.batches == [["first"], ["j0", "j1", "j2", "j3", "j4"]]


def test_a_lone_job_on_an_idle_model_runs_at_once() -> None:
    """Nobody waits for company."""
    gate = Gate()
    gate.open.set()
    with batching(gate) as batcher:
        job = Job("lone")
        batcher.submit(job)
        assert job.wait() is None


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from("xyz")), max_size=30))
def test_batches_hold_one_group_and_no_more_rows_than_the_bound(shapes: list[tuple[int, str]]) -> None:
    """And every job runs exactly once, first come first served within its group."""
    gate = Gate()
    with batching(gate, rows_max=8, queue_rows_max=1000) as batcher:
        jobs = {f"{number}": Job(f"{number}", rows=rows, group=group) for number, (rows, group) in enumerate(shapes)}
        for job in jobs.values():
            batcher.submit(job)
        gate.open.set()
        for job in jobs.values():
            assert job.wait() is None
    for batch in gate.batches[1:]:
        assert len({jobs[name].group for name in batch}) == 1
        assert sum(jobs[name].rows for name in batch) <= 8
    for group in "xyz":
        ran = [name for batch in gate.batches[1:] for name in batch if jobs[name].group == group]
        assert ran == sorted(ran, key=int)


def test_a_flood_of_one_group_does_not_starve_another() -> None:
    """Groups take turns."""
    gate = Gate()
    with batching(gate, rows_max=2) as batcher:
        for number in range(8):
            batcher.submit(Job(f"x{number}", group="x"))
        late = Job("y", group="y")
        batcher.submit(late)
        gate.open.set()
        assert late.wait() is None
    assert gate.batches[2] == ["y"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """Bounded in rows, not in requests."""
    gate = Gate()
    with batching(gate, queue_rows_max=10) as batcher:
        batcher.submit(Job("large", rows=8))
        with pytest.raises(FullError, match="8 rows wait, the most is 10") as caught:
            batcher.submit(Job("too much", rows=3))
        assert caught.value.retry_after_seconds is not None
        assert batcher.refusal() is None
        batcher.submit(Job("fits", rows=2))
        problem = batcher.refusal()
        assert problem is not None
        assert problem.message == "model 'm': 10 rows wait, the most is 10"
        assert problem.retry_after_seconds is not None


def test_cancelled_jobs_are_dropped_when_the_batch_is_formed() -> None:
    """They take no place in it, and still end."""
    gate = Gate()
    with batching(gate) as batcher:
        gone, live = Job("gone"), Job("live")
        for job in (gone, live):
            batcher.submit(job)
        gone.cancelled = True
        gate.open.set()
        assert isinstance(gone.wait(), OverdueError)
        assert live.wait() is None
    assert gate.batches[1:] == [["live"]]


@pytest.mark.parametrize("bad", [{"3"}, {"0", "7"}, {str(number) for number in range(8)}])
def test_a_failing_input_fails_alone(bad: set[str]) -> None:
    """The batch is halved until what fails is found; the others are answered; no detail leaks."""
    gate = Gate(failing=lambda jobs: any(job.name in bad for job in jobs))
    with batching(gate) as batcher:
        jobs = [Job(f"{number}") for number in range(8)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        for job in jobs:
            error = job.wait()
            assert (error is not None) == (job.name in bad)
            assert error is None or ("internal error, id" in error.message and "secret" not in error.message)
        after = Job("after")
        batcher.submit(after)
        assert after.wait() is None


def test_closing_runs_what_waits_and_takes_no_more() -> None:
    """A drain."""
    gate = Gate()
    with batching(gate) as batcher:
        job = Job("waits")
        batcher.submit(job)
        gate.open.set()
        batcher.close(grace_seconds=WAIT_SECONDS)
        assert job.wait() is None
        with pytest.raises(UnavailableError, match="stopping"):
            batcher.submit(Job("late"))


def test_a_batcher_may_be_closed_while_its_threads_are_started() -> None:
    """And starts none afterwards."""
    for _ in range(20):
        batcher = _made(lambda _: None)
        thread = threading.Thread(target=batcher.configure, args=(Batching(),), kwargs={"rows_max": 8, "instances": 4})
        thread.start()
        batcher.close(grace_seconds=WAIT_SECONDS)
        thread.join()
        batcher.configure(Batching(), rows_max=8)
    assert not any(thread.name.startswith("batcher-m") for thread in threading.enumerate())


def test_closing_without_time_refuses_what_waits() -> None:
    """Nobody is left without a reply."""
    gate = Gate()
    with batching(gate) as batcher:
        job = Job("waits")
        batcher.submit(job)
        batcher.close(grace_seconds=0)
        assert isinstance(job.wait(), UnavailableError)


def test_lingering_waits_for_company_up_to_a_full_batch() -> None:
    """Where the operator asks for it."""
    gate = Gate()
    gate.open.set()
    with batching(gate, rows_max=2, max_queue_delay_microseconds=500_000) as batcher:
        assert gate.batches or gate.entered.acquire(timeout=0) is False
        first, second = Job("a"), Job("b")
        batcher.submit(first)
        batcher.submit(second)
        assert first.wait() is None
        assert second.wait() is None
    assert ["a", "b"] in gate.batches


class Where:
    """A run that remembers on which thread it was, and says that the model took so long."""

    def __init__(self, seconds: float) -> None:
        self.threads: list[str] = []
        self.batcher = _made(self._execute)
        self._seconds = seconds
        self.batcher.configure(Batching(), rows_max=8)

    def _execute(self, jobs: Sequence[Job]) -> None:
        self.threads.append(threading.current_thread().name)
        self.batcher.ran(self._seconds)
        for job in jobs:
            job.end()

    def drive(self, name: str) -> None:
        """Bring one job as a transport does, and wait for its end."""
        job = Job(name)
        self.batcher.submit(job, driven=True)
        self.batcher.drained()
        assert job.wait() is None


def test_a_quick_model_runs_where_its_jobs_come_in() -> None:
    """Once it is known to be quick; nobody runs them before all that came is there."""
    where = Where(0.0001)
    where.drive("first")
    jobs = [Job(str(number)) for number in range(20)]
    for job in jobs:
        where.batcher.submit(job, driven=True)
    assert where.batcher.rows == 20
    where.batcher.drained()
    assert [job.wait() for job in jobs] == [None] * 20
    assert where.batcher.rows == 0
    assert where.threads == ["batcher-m-0", *[threading.current_thread().name] * 3]
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_a_model_that_takes_long_never_holds_up_who_brings_its_jobs() -> None:
    """They wake the batcher's thread, which runs them."""
    where = Where(0.01)
    for number in range(5):
        where.drive(str(number))
    assert set(where.threads) == {"batcher-m-0"}
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_a_batch_that_never_waited_is_run_alone() -> None:
    """Once the model is known to be quick, and while no other run is under way."""
    where = Where(0.0001)
    assert not where.batcher.direct
    where.drive("first")
    assert where.batcher.direct
    ran: list[str] = []
    assert where.batcher.on_the_spot(lambda: ran.append(threading.current_thread().name))
    assert ran == [threading.current_thread().name]
    inner: list[bool] = []
    assert where.batcher.on_the_spot(lambda: inner.append(where.batcher.on_the_spot(lambda: ran.append("beside"))))
    assert (inner, len(ran)) == ([False], 1)
    where.batcher.close(grace_seconds=WAIT_SECONDS)
    assert not where.batcher.direct
    assert not where.batcher.on_the_spot(lambda: ran.append("closed"))
    assert len(ran) == 1


def test_a_batch_that_fails_on_the_spot_is_given_back() -> None:
    """Its jobs wait for a run of their own then; the batcher goes on."""
    where = Where(0.0001)
    where.drive("first")

    def fail() -> None:
        raise RuntimeError("the model has hiccups")

    assert not where.batcher.on_the_spot(fail)
    where.drive("second")
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_what_comes_from_elsewhere_meanwhile_is_run_afterwards() -> None:
    """Nobody has to bring another job for it."""
    where, job = Where(0.0001), Job("other")
    where.drive("first")
    assert where.batcher.on_the_spot(lambda: where.batcher.submit(job))
    assert job.wait() is None
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_jobs_from_everywhere_end_once_each() -> None:
    """Some driven, others from threads that only submit; a close in between ends the thread at once."""
    where = Where(0.0001)
    where.drive("first")
    jobs = [Job(str(number)) for number in range(400)]

    def submit(part: Sequence[Job]) -> None:
        for job in part:
            where.batcher.submit(job)

    threads = [threading.Thread(target=submit, args=(jobs[start : start + 100],)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for job in jobs[300:]:
        where.batcher.submit(job, driven=True)
        where.batcher.drained()
    for thread in threads:
        thread.join()
    assert [job.wait() for job in jobs] == [None] * 400
    where.batcher.close(grace_seconds=WAIT_SECONDS)
    assert not any(thread.name.startswith("batcher-m") for thread in threading.enumerate())


def _soon() -> float:
    return time.monotonic() + 0.05


def test_who_is_out_of_time_is_told_while_a_run_is_under_way() -> None:
    """And gives its room to others; the run is still at its first batch."""
    gate = Gate()
    with batching(gate, queue_rows_max=2) as batcher:
        jobs = [Job("a", deadline=_soon()), Job("b", deadline=_soon())]
        for job in jobs:
            batcher.submit(job)
        for job in jobs:
            error = job.wait()
            assert isinstance(error, OverdueError)
            assert "the deadline passed" in error.message
        assert not gate.open.is_set()
        assert batcher.rows == 0
        batcher.submit(Job("c", rows=2))


def test_a_queues_timeout_is_told_while_a_run_is_under_way() -> None:
    """REJECT, after the model's time or the shorter one that a request asks for."""
    gate = Gate()
    policy = QueuePolicy(default_timeout_microseconds=3_600_000_000, allow_timeout_override=True)
    with batching(gate, default_queue_policy=policy) as batcher:
        short, long = Job("short", timeout_us=20_000), Job("long")
        batcher.submit(short)
        batcher.submit(long)
        error = short.wait()
        assert isinstance(error, OverdueError)
        assert "longer than its model lets it" in error.message
        assert not gate.open.is_set()
        gate.open.set()
        assert long.wait() is None


def test_a_delayed_job_waits_behind_the_others_and_keeps_its_deadline() -> None:
    """DELAY: out of time is not out of the queue; who waits no more is told all the same."""
    gate = Gate()
    policy = QueuePolicy(
        timeout_action="DELAY", default_timeout_microseconds=3_600_000_000, allow_timeout_override=True
    )
    with batching(gate, rows_max=1, default_queue_policy=policy) as batcher:
        late, given_up = Job("late", timeout_us=1), Job("gone", timeout_us=1, deadline=time.monotonic() + 0.1)
        batcher.submit(late)
        batcher.submit(given_up)
        assert isinstance(given_up.wait(), OverdueError)
        jobs = [Job(str(number)) for number in range(3)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        assert [job.wait() for job in (*jobs, late)] == [None] * 4
    assert gate.batches == [["first"], ["0"], ["1"], ["2"], ["late"]]


def test_levels_go_in_their_order() -> None:
    """1 first; who names none, or one that is not there, has the default."""
    gate = Gate()
    with batching(gate, rows_max=1, priority_levels=3, default_priority_level=2) as batcher:
        jobs = [Job("3", level=3), Job("none"), Job("1", level=1), Job("strange", level=9), Job("1 too", level=1)]
        for job in jobs:
            batcher.submit(job)
        gate.open.set()
        assert [job.wait() for job in jobs] == [None] * 5
    assert gate.batches[1:] == [["1"], ["1 too"], ["none"], ["strange"], ["3"]]


def test_a_level_takes_no_more_requests_than_its_policy_says() -> None:
    """Another level has its own bound."""
    gate = Gate()
    with batching(
        gate,
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(max_queue_size=2),
        priority_queue_policy={1: QueuePolicy(max_queue_size=1)},
    ) as batcher:
        for level in (1, 2, 2):
            batcher.submit(Job(f"{level}", level=level))
        for level, most in ((1, 1), (2, 2)):
            with pytest.raises(
                FullError, match=f"{most} requests of its priority level wait, which is the most"
            ) as caught:
                batcher.submit(Job("too many", level=level))
            assert caught.value.retry_after_seconds is not None


def test_a_deadline_sooner_than_the_turn_is_refused_at_once() -> None:
    """As measured: behind a full run, which takes 0.3 s, its own takes as long; one that has passed is overdue."""
    gate = Gate()
    with batching(gate) as batcher:
        time.sleep(0.3)
        gate.open.set()
        batcher.submit(after := Job("after"))
        assert after.wait() is None
        gate.open.clear()
        for number in range(9):
            batcher.submit(Job(str(number)))
        said = r"the wait is about 0\.\d+ s, the deadline is in 0\.\d+ s"
        with pytest.raises(FullError, match=said) as caught:
            batcher.submit(Job("late", deadline=time.monotonic() + 0.5))
        assert caught.value.retry_after_seconds is not None
        with pytest.raises(OverdueError, match="had passed"):
            batcher.submit(Job("over", deadline=time.monotonic() - 1))
        batcher.submit(Job("in time", deadline=time.monotonic() + 3600))


class Pair:
    """Runs that wait for each other: they end only where so many are under way at once."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)
        self.batches: list[list[str]] = []

    def execute(self, jobs: Sequence[Job]) -> None:
        self.barrier.wait(WAIT_SECONDS)
        self.batches.append([job.name for job in jobs])
        for job in jobs:
            job.end()


def _batcher(execute: Callable[[Sequence[Job]], None], *, instances: int, **settings: Any) -> Batcher[Job]:
    batcher = _made(execute)
    batcher.configure(Batching(**settings), rows_max=2, instances=instances)
    return batcher


def test_as_many_runs_are_under_way_as_there_are_instances() -> None:
    """Also where all jobs came at once, by one call."""
    pair = Pair(3)
    batcher = _batcher(pair.execute, instances=3)
    jobs = [Job(str(number), rows=2) for number in range(3)]
    for job in jobs:
        batcher.submit(job, driven=True)
    batcher.drained()
    assert [job.wait() for job in jobs] == [None] * 3
    assert sorted(pair.batches) == [["0"], ["1"], ["2"]]
    batcher.close(grace_seconds=WAIT_SECONDS)


def test_the_number_of_instances_may_change() -> None:
    """Threads come and go with it."""
    pair = Pair(2)
    batcher = _batcher(pair.execute, instances=1)
    for instances in (2, 1, 2):
        batcher.configure(Batching(), rows_max=2, instances=instances)
    jobs = [Job(str(number), rows=2) for number in range(2)]
    for job in jobs:
        batcher.submit(job)
    assert [job.wait() for job in jobs] == [None] * 2
    batcher.close(grace_seconds=WAIT_SECONDS)
    assert not any(thread.name.startswith("batcher-m") for thread in threading.enumerate())


def test_replies_go_out_in_the_order_of_arrival_where_that_is_asked_for() -> None:
    """Though the second batch is done first, of another group."""
    replied: list[str] = []
    done = threading.Event()

    def execute(jobs: Sequence[Job]) -> None:
        if jobs[0].name == "a":
            assert done.wait(WAIT_SECONDS)
        else:
            done.set()
        batcher.in_order()
        replied.extend(job.name for job in jobs)
        for job in jobs:
            job.end()

    batcher = _batcher(execute, instances=2, preserve_ordering=True)
    jobs = [Job("a"), Job("b", group="y"), Job("c"), Job("d")]
    for job in jobs:
        batcher.submit(job, driven=True)
    batcher.drained()
    assert [job.wait() for job in jobs] == [None] * 4
    assert replied == ["a", "b", "c", "d"]
    batcher.close(grace_seconds=WAIT_SECONDS)


class Steps:
    """Runs that wait to be let go one by one."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def execute(self, jobs: Sequence[Job]) -> None:
        self.entered.release()
        assert self.leave.acquire(timeout=WAIT_SECONDS)
        for job in jobs:
            job.end()


def test_a_model_runs_though_another_has_all_cores_and_gets_its_share_of_them() -> None:
    """A first run needs no free core; a run beside it does, and is begun when one gets free."""
    shares = Shares(2)
    heavy, light = Steps(), Steps()
    many, one = _made(heavy.execute, shares=shares), _made(light.execute, shares=shares)
    for batcher in (many, one):
        batcher.configure(Batching(), rows_max=1, instances=2)
    jobs = [Job(str(number)) for number in range(3)]
    for job in jobs:
        many.submit(job)
    for _ in range(2):
        assert heavy.entered.acquire(timeout=WAIT_SECONDS)
    one.submit(lone := Job("light"))
    assert light.entered.acquire(timeout=WAIT_SECONDS)
    heavy.leave.release()
    while not shares._wanting:
        time.sleep(0.001)
    assert many.rows == 1
    light.leave.release()
    assert lone.wait() is None
    assert heavy.entered.acquire(timeout=WAIT_SECONDS)
    heavy.leave.release(2)
    assert [job.wait() for job in jobs] == [None] * 3
    for batcher in (many, one):
        batcher.close(grace_seconds=WAIT_SECONDS)


def test_who_brings_jobs_runs_them_for_a_while_only() -> None:
    """The batcher's thread does the rest; one batch at least is run on the spot."""
    where = Where(0.0001)
    where.drive("first")
    jobs = [Job(str(number)) for number in range(24)]
    for job in jobs:
        where.batcher.submit(job, driven=True)
    where.batcher.drained(until=0.0)
    assert [job.wait() for job in jobs] == [None] * 24
    assert where.threads == ["batcher-m-0", threading.current_thread().name, "batcher-m-0", "batcher-m-0"]
    where.batcher.close(grace_seconds=WAIT_SECONDS)
