"""Batches that run where their jobs come in, on the thread of whoever brings them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from fallback.errors import OverdueError
from gateway.batching import Batching
from tests.unit.gateway.batches import WAIT_SECONDS, Job, made

pytestmark = pytest.mark.usefixtures("timer")


BATCHER = "batcher-m-0"


class Where:
    """A run that remembers on which thread it was, and says that the model took so long, by group or always."""

    def __init__(self, seconds: float, **groups: float) -> None:
        self.threads: list[str] = []
        self.batcher = made(self._execute)
        self.seconds = seconds
        self.groups = groups
        self.batcher.configure(Batching(), rows_max=8)

    def _execute(self, jobs: Sequence[Job]) -> None:
        self.threads.append(threading.current_thread().name)
        group = jobs[0].group
        self.batcher.ran(group, sum(job.rows for job in jobs), self.groups.get(group, self.seconds))
        for job in jobs:
            job.end()

    def drive(self, name: str, *, rows: int = 1, group: str = "") -> str:
        """Bring one job as a transport does, and wait for its end; returns the thread that it ran on."""
        job = Job(name, rows=rows, group=group)
        self.batcher.submit(job, driven=True)
        self.batcher.drained()
        assert job.wait() is None
        return self.threads[-1]

    def spot(self, run: Callable[[], None]) -> bool:
        """Have a row run that never waited."""
        return self.batcher.on_the_spot(run, "", 1)


def here() -> str:
    return threading.current_thread().name


def test_a_quick_model_runs_where_its_jobs_come_in() -> None:
    """Once it is known to be quick; nobody runs them before all that came is there."""
    where = Where(0.0001)
    where.drive("first", rows=8)
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


def test_only_what_is_like_what_was_short_runs_where_it_comes_in() -> None:
    """Of another group, or with more rows, the first is run elsewhere; fewer rows are not."""
    where = Where(0.0001)
    assert [where.drive("four", rows=4) for _ in range(2)] == [BATCHER, here()]
    assert where.drive("three", rows=3) == here()
    assert [where.drive("eight", rows=8) for _ in range(2)] == [BATCHER, here()]
    assert [where.drive("other", group="other") for _ in range(2)] == [BATCHER, here()]
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_one_group_that_takes_long_leaves_the_others_where_they_come_in() -> None:
    """Whichever came first, and however many of it there were."""
    where = Where(0.0001, long=0.5)
    where.drive("short")
    assert {where.drive("long", group="long") for _ in range(5)} == {BATCHER}
    assert where.drive("short") == here()
    assert not where.batcher.on_the_spot(lambda: None, "long", 1)
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_who_brings_jobs_does_not_wait_for_a_run_that_is_not_known_to_be_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not for a moment: the others go on, and what is short waits for the batcher's thread."""
    where, entered, gate = Where(0.0001), threading.Event(), threading.Event()
    where.drive("short")

    def wait(jobs: Sequence[Job]) -> None:
        if jobs[0].group == "long":
            entered.set()
            assert gate.wait(WAIT_SECONDS)
        where._execute(jobs)

    where.batcher._execute = wait
    long, short = Job("long", group="long"), Job("short")
    where.batcher.submit(long)
    assert entered.wait(WAIT_SECONDS)
    with monkeypatch.context() as watched:
        watched.setattr(where.batcher._changed, "wait", lambda _: pytest.fail("it waits"))
        assert not where.spot(lambda: None)
        where.batcher.submit(short, driven=True)
        where.batcher.drained()
    gate.set()
    assert [long.wait(), short.wait()] == [None, None]
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_a_run_that_takes_long_by_surprise_keeps_the_model_off_the_spot() -> None:
    """Until far more runs were short; a new version begins anew."""
    where = Where(0.0001)
    assert [where.drive("first") for _ in range(2)] == [BATCHER, here()]
    where.seconds = 1.0
    assert where.drive("long") == here()
    where.seconds = 0.0001
    assert {where.drive("short") for _ in range(100)} == {BATCHER}
    assert {where.drive("other", group="other") for _ in range(100)} == {BATCHER}
    where.batcher.configure(Batching(), rows_max=8)
    assert [where.drive("renewed") for _ in range(2)] == [BATCHER, here()]
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_what_is_not_run_on_the_spot_is_told_that_its_time_is_over() -> None:
    """Though it was brought, to a model that is quick with others, and no run ends."""
    where, entered, gate = Where(0.0001), threading.Event(), threading.Event()
    where.drive("short")

    def wait(jobs: Sequence[Job]) -> None:
        entered.set()
        assert gate.wait(WAIT_SECONDS)
        where._execute(jobs)

    where.batcher._execute = wait
    where.batcher.submit(Job("long", group="long"))
    assert entered.wait(WAIT_SECONDS)
    late = Job("late", deadline=time.monotonic() + 0.01)
    where.batcher.submit(late, driven=True)
    where.batcher.drained()
    assert isinstance(late.wait(), OverdueError)
    gate.set()
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_a_batch_that_never_waited_is_run_alone() -> None:
    """Once the model is known to be quick, and while no other run is under way."""
    where = Where(0.0001)
    assert not where.batcher.direct
    where.drive("first")
    assert where.batcher.direct
    ran: list[str] = []
    assert where.spot(lambda: ran.append(threading.current_thread().name))
    assert ran == [threading.current_thread().name]
    inner: list[bool] = []
    assert where.spot(lambda: inner.append(where.spot(lambda: ran.append("beside"))))
    assert (inner, len(ran)) == ([False], 1)
    where.batcher.close(grace_seconds=WAIT_SECONDS)
    assert not where.batcher.direct
    assert not where.spot(lambda: ran.append("closed"))
    assert len(ran) == 1


def test_a_batch_that_fails_on_the_spot_is_given_back() -> None:
    """Its jobs wait for a run of their own then; the batcher goes on."""
    where = Where(0.0001)
    where.drive("first")

    def fail() -> None:
        raise RuntimeError("the model has hiccups")

    assert not where.spot(fail)
    where.drive("second")
    where.batcher.close(grace_seconds=WAIT_SECONDS)


def test_what_comes_from_elsewhere_meanwhile_is_run_afterwards() -> None:
    """Nobody has to bring another job for it."""
    where, job = Where(0.0001), Job("other")
    where.drive("first")
    assert where.spot(lambda: where.batcher.submit(job))
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
    where.drive("first", rows=8)
    jobs = [Job(str(number)) for number in range(24)]
    for job in jobs:
        where.batcher.submit(job, driven=True)
    where.batcher.drained(until=0.0)
    assert [job.wait() for job in jobs] == [None] * 24
    assert where.threads == ["batcher-m-0", threading.current_thread().name, "batcher-m-0", "batcher-m-0"]
    where.batcher.close(grace_seconds=WAIT_SECONDS)
