"""Batches that run where their jobs come in, on the thread of whoever brings them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from gateway.batching import Batching
from tests.unit.gateway.batches import WAIT_SECONDS, Job, made

pytestmark = pytest.mark.usefixtures("timer")


class Where:
    """A run that remembers on which thread it was, and says that the model took so long."""

    def __init__(self, seconds: float) -> None:
        self.threads: list[str] = []
        self.batcher = made(self._execute)
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
