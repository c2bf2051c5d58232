"""Jobs that remember their end, runs that wait for the test, and batchers of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fallback.errors import DemurError
from gateway.batcher import Batcher
from gateway.batching import Batching
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


# What the fixture `timer` started; the last one runs.
TIMERS: list[Timer] = []


def made(
    execute: Callable[[Sequence[Job]], None], *, queue_rows_max: int = 1000, shares: Shares | None = None
) -> Batcher[Job]:
    return Batcher("m", execute, timer=TIMERS[-1], shares=shares or Shares(8), queue_rows_max=queue_rows_max)


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
    batcher = made(gate.execute, queue_rows_max=queue_rows_max)
    batcher.configure(Batching(**settings), rows_max=rows_max, instances=instances)
    batcher.submit(Job("first"))
    assert gate.entered.acquire(timeout=WAIT_SECONDS)
    yield batcher
    gate.open.set()
    batcher.close(grace_seconds=WAIT_SECONDS)
