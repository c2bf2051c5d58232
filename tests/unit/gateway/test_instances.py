"""Several runs of a model at once, and several models on the same cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.batcher import Batcher
from gateway.batching import Batching
from gateway.turns import Shares
from tests.unit.gateway.batches import WAIT_SECONDS, Job, made

pytestmark = pytest.mark.usefixtures("timer")


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
    batcher = made(execute)
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
    many, one = made(heavy.execute, shares=shares), made(light.execute, shares=shares)
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
