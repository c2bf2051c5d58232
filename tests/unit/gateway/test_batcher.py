"""Batches form by back-pressure, within bounds, and one job's fate is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.errors import DemurError, FullError, OverdueError, UnavailableError
from gateway.batcher import Batcher, retry_after

WAIT_SECONDS = 5.0


class Job:
    """A job that remembers its end."""

    def __init__(self, name: str, *, rows: int = 1, group: str = "", deadline: float | None = None) -> None:
        self.name = name
        self.rows = rows
        self.group = group
        self.deadline = deadline
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


@contextmanager
def batching(gate: Gate, *, rows_max: int = 8, queue_rows_max: int = 100, linger_us: int = 0) -> Iterator[Batcher[Job]]:
    """A batcher whose thread is busy with a first job until the gate opens."""
    batcher: Batcher[Job] = Batcher(
        "m", gate.execute, rows_max=rows_max, queue_rows_max=queue_rows_max, linger_us=linger_us
    )
    batcher.start()
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


@settings(deadline=None, max_examples=30)
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
        batcher.submit(Job("fits", rows=2))


def test_overdue_and_cancelled_jobs_are_dropped_when_the_batch_is_formed() -> None:
    """They take no place in it, and still end."""
    gate = Gate()
    with batching(gate) as batcher:
        overdue, gone, live = Job("overdue", deadline=time.monotonic() - 1), Job("gone"), Job("live")
        for job in (overdue, gone, live):
            batcher.submit(job)
        gone.cancelled = True
        gate.open.set()
        assert isinstance(overdue.wait(), OverdueError)
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
    with batching(gate, rows_max=2, linger_us=2_000_000) as batcher:
        assert gate.batches or gate.entered.acquire(timeout=0) is False
        first, second = Job("a"), Job("b")
        batcher.submit(first)
        batcher.submit(second)
        assert first.wait() is None
        assert second.wait() is None
    assert ["a", "b"] in gate.batches


@given(st.integers(0, 10**6), st.floats(0, 10))
def test_when_to_come_back_is_bounded(rows: int, row_seconds: float) -> None:
    """Never at once, never in an hour."""
    assert 0.05 <= retry_after(rows, row_seconds) <= 30


class Where:
    """A run that remembers on which thread it was, and says that the model took so long."""

    def __init__(self, seconds: float) -> None:
        self.threads: list[str] = []
        self.batcher: Batcher[Job] = Batcher("m", self._execute, rows_max=8, queue_rows_max=1000)
        self._seconds = seconds
        self.batcher.start()

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
    assert where.threads == ["batcher-m", *[threading.current_thread().name] * 3]
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_a_model_that_takes_long_never_holds_up_who_brings_its_jobs() -> None:
    """They wake the batcher's thread, which runs them."""
    where = Where(0.01)
    for number in range(5):
        where.drive(str(number))
    assert set(where.threads) == {"batcher-m"}
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
    assert not where.batcher._thread.is_alive()
