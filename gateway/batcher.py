"""Groups waiting requests into one run, by back-pressure.

Theory of operation. There is one thread for each model, and nobody waits for a batch to fill: while the thread runs one
batch, others queue up, and when it comes back it takes all that waits, up to `rows_max` rows. Where runs are short, the
thread that brought the jobs runs them itself (`drained`); there is one run at a time either way. An idle model thus
answers a lone request at once, and a busy one is given ever larger batches, up to what it can take. What waits is
bounded in rows; beyond that `submit` refuses at once and says when to come back, so that a queue never holds more than
can be answered in time.

Only what fits together (the same `group`: same shapes, types and pinned version) is run together. Groups take turns,
so that a flood of one shape cannot starve another. A job that is cancelled or overdue by the time its batch is formed
is dropped there: its caller has been told, or is gone. Every job that was taken ends in one reply, `execute`'s or
`fail`, whether anybody still listens or not.

A batch that fails is halved and tried again, down to the job that fails alone: one caller's input can fail only its own
call. Nothing that happens to one job, a caller that vanished included, can end the thread.

This module knows no asyncio and no grpc. A job is told its fate by methods that may be called from any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from threading import Condition, Lock, Thread
from typing import Final, Generic, Protocol, TypeVar

from fallback.errors import DemurError, FullError, OverdueError, UnavailableError
from gateway.internal import told

_RETRY_SECONDS_MIN: Final = 0.05
_RETRY_SECONDS_MAX: Final = 30.0
# A run that is shorter is done by whoever brought the jobs: to wake another thread takes about as long.
INLINE_SECONDS_MAX: Final = 0.001
# How long it waits for a run under way that is said to be short.
_HERE_SECONDS_MAX: Final = 0.005
# Of how many runs it is known how long they took.
_RUNS_MAX: Final = 8
# Weight of the newest batch in the running mean of seconds a row.
_NEWEST: Final = 0.2


class Job(Protocol):
    """What waits for a run."""

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch, at least 1."""

    @property
    def group(self) -> Hashable:
        """What it may be run together with: jobs of an equal group."""

    @property
    def deadline(self) -> float | None:
        """When its caller stops waiting, by time.monotonic(); None: never."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""

    def fail(self, error: DemurError) -> None:
        """Tell its caller."""


J = TypeVar("J", bound=Job)


class Batcher(Generic[J]):
    """One model's queue and the thread that runs what waits in it.

    `execute` runs one batch and replies to its jobs; it raises before it has replied to any of them, or not at all.
    `rows_max` may be changed between batches. `queue_rows_max` bounds what waits, in rows; `linger_us` is how long a
    lone job waits for company (0: not at all).
    """

    def __init__(
        self,
        name: str,
        execute: Callable[[Sequence[J]], None],
        *,
        rows_max: int,
        queue_rows_max: int,
        linger_us: int = 0,
    ) -> None:
        self.rows_max = rows_max
        self._name = name
        self._execute = execute
        self._queue_rows_max = queue_rows_max
        self._linger_seconds = linger_us / 1e6
        self._groups: dict[Hashable, deque[J]] = {}
        self._rows = 0
        self._row_seconds = 0.0
        self._runs: deque[float] = deque(maxlen=_RUNS_MAX)
        # Whether somebody runs a batch, one at a time; and whether the thread that brings jobs takes what waits.
        self._running = False
        self._here = False
        self._closed = False
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._thread = Thread(target=self._loop, name=f"batcher-{name}", daemon=True)

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self._rows

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: J, *, driven: bool = False) -> None:
        """Let `job` wait for a run; raises FullError when there is no room, UnavailableError once closed.

        Where it is `driven`, `drained` follows on this thread, and nobody is woken before.
        """
        with self._lock:
            if self._closed:
                raise UnavailableError("the gateway is stopping", retry_after_seconds=1.0)
            if self._rows + job.rows > self._queue_rows_max:
                raise FullError(
                    f"model {self._name!r}: {self._rows} rows wait, the most is {self._queue_rows_max}",
                    retry_after_seconds=retry_after(self._rows, self._row_seconds),
                )
            self._groups.setdefault(job.group, deque()).append(job)
            self._rows += job.rows
            if not driven:
                self._changed.notify()

    def drained(self) -> None:
        """Run what waits on this thread, as long as a run is quicker than waking the other; else wake it."""
        if not self._rows:
            return
        if self._inline():
            self._run_here()
        elif not self._running:
            with self._lock:
                self._changed.notify()

    def _run_here(self) -> None:
        with self._lock:
            self._here = True
            # Of the other thread's run, which is as short.
            self._changed.wait_for(lambda: not self._running, _HERE_SECONDS_MAX)
        try:
            while (batch := self._take(wait=False)) is not None:
                self._work(batch)
        finally:
            with self._lock:
                self._here = False
                if self._groups or self._closed:
                    self._changed.notify()

    def close(self, *, grace_seconds: float) -> None:
        """Take no more jobs, run what waits for up to `grace_seconds`, and refuse the rest."""
        with self._lock:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(grace_seconds)
        with self._lock:
            left = [job for group in self._groups.values() for job in group]
            self._groups.clear()
            self._rows = 0
        for job in left:
            job.fail(UnavailableError("the gateway is stopping", retry_after_seconds=1.0))

    def ran(self, seconds: float) -> None:
        """Hear how long the model itself took for a batch."""
        self._runs.append(seconds)

    def _inline(self) -> bool:
        """Whether a run is known to be quick, and nobody is to be waited for.

        By the shortest of the newest runs: one that took long may have been in another thread's way.
        """
        return bool(self._runs) and min(self._runs) < INLINE_SECONDS_MAX and not self._linger_seconds

    def _loop(self) -> None:
        while (batch := self._take(wait=True)) is not None:
            self._work(batch)
            if self._here:
                with self._lock:
                    self._changed.notify_all()

    def _work(self, batch: list[J]) -> None:
        """Run one batch, and let others take the next."""
        try:
            live = [job for job in batch if not self._dropped(job)]
            if live:
                start = time.monotonic()
                self._run(live)
                each = (time.monotonic() - start) / sum([job.rows for job in live])
                self._row_seconds = _mean(self._row_seconds, each)
        finally:
            with self._lock:
                self._running = False

    def _take(self, *, wait: bool) -> list[J] | None:
        """Return the jobs of the group whose turn it is, and be the one who runs.

        None once closed and empty; where it may not `wait`, also while nothing waits or another runs.
        """
        with self._lock:
            while not self._groups or self._running or (wait and self._here):
                if not wait or (self._closed and not self._groups):
                    return None
                self._changed.wait()
            if wait and self._linger_seconds and not self._closed and self._rows < self.rows_max:
                self._changed.wait_for(lambda: self._closed or self._rows >= self.rows_max, self._linger_seconds)
            self._running = True
            return self._next()

    def _next(self) -> list[J]:
        group, jobs = next(iter(self._groups.items()))
        batch = [jobs.popleft()]
        rows = batch[0].rows
        while jobs and rows + jobs[0].rows <= self.rows_max:
            rows += jobs[0].rows
            batch.append(jobs.popleft())
        del self._groups[group]
        if jobs:
            self._groups[group] = jobs
        self._rows -= rows
        return batch

    def _dropped(self, job: J) -> bool:
        if job.cancelled:
            job.fail(OverdueError("nobody waits for the reply any more"))
            return True
        if job.deadline is not None and job.deadline <= time.monotonic():
            job.fail(OverdueError("the deadline passed while the request waited for its turn"))
            return True
        return False

    def _run(self, jobs: Sequence[J]) -> None:
        """Run `jobs`, halving what fails until what fails fails alone."""
        parts = [jobs]
        while parts:
            part = parts.pop()
            try:
                self._execute(part)
            except Exception as error:  # noqa: BLE001 - the root of the thread: one batch's trouble is its own
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                else:
                    part[0].fail(told(error, model=self._name))


def _mean(before: float, newest: float) -> float:
    """Return the running mean."""
    return _NEWEST * newest + (1 - _NEWEST) * before if before else newest


def retry_after(rows: int, row_seconds: float) -> float:
    """Return when a queue of `rows` that takes `row_seconds` a row should have room again, seconds."""
    return min(_RETRY_SECONDS_MAX, max(_RETRY_SECONDS_MIN, rows * row_seconds))
