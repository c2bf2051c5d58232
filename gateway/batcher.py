"""Groups waiting requests into one run, by back-pressure.

Theory of operation. Nobody waits for a batch to fill, unless the model asks for it: while a model's threads (one for
each of its `instances`) run batches, others queue up, and whichever comes back first takes what waits, up to `rows_max`
rows. What is known to be short (`gateway.pace`) the thread that brought the jobs runs itself (`drained`), one run at a
time. An idle model thus answers a lone request at once, and a busy one is given ever larger batches, up to what it can
take. What waits is bounded in rows; beyond that `submit` refuses at once and says when to come back, so that a queue
never holds more than can be answered in time. Nor is taken whose deadline is sooner than its turn can be. A request
larger than the whole queue is taken where nothing waits: it would never be otherwise.

Only what fits together (the same `group`: same shapes, types and pinned version) is run together, in the order that
`gateway.waiting` keeps: by priority level, and groups take turns. Who is out of time while others run is told by the
timer's thread (`_look`), which takes them out of the queue; a job that is cancelled, or overdue by the time its batch
is formed, is dropped there. Every job that was taken ends in one reply, `execute`'s or `fail`, whether anybody still
listens or not. A batch that fails is halved and tried again, down to the job that fails alone: one caller's input can
fail only its own call. Nothing that happens to one job, a caller that vanished included, can end a thread.

Where replies are to go out in order, each batch has a ticket, and `in_order` waits until those before it have replied.

This module knows no asyncio and no grpc. A job is told its fate by methods that may be called from any thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from threading import Condition, Lock, Thread
from typing import Final, Generic, TypeVar

from fallback.errors import FullError, OverdueError, UnavailableError
from gateway.batching import Batching
from gateway.order import Order
from gateway.pace import Pace
from gateway.timer import Lookout, Timer
from gateway.turns import Shares
from gateway.waiting import Job, Waiting, end, execute_halved, retry_after

# How long it waits for a run under way that is said to be short.
_HERE_SECONDS_MAX: Final = 0.005
_GONE_SECONDS: Final = 0.02

J = TypeVar("J", bound=Job)


class Batcher(Generic[J]):
    """One model's queue and the threads that run what waits in it.

    `execute` runs one batch and replies to its jobs; it raises before it has replied to any of them, or not at all.
    `queue_rows_max` bounds what waits, in rows. `rows_max` says how many one run may have, `quick` whether some are so
    short that who brings jobs does them.
    """

    def __init__(
        self,
        name: str,
        execute: Callable[[Sequence[J]], None],
        *,
        timer: Timer,
        shares: Shares,
        queue_rows_max: int,
    ) -> None:
        self._name = name
        self._execute = execute
        self._lookout = Lookout(timer, self._look)
        self._shares = shares
        self._queue_rows_max = queue_rows_max
        self._batching = Batching()
        self._plain = True
        self._direct = False
        self._linger_seconds = 0.0
        self.rows_max = 1
        self._instances = 1
        self._on_cores = True
        self._waiting: Waiting[J] = Waiting()
        self._pace = Pace()
        self.quick = False
        # When the newest run began.
        self.began = 0.0
        # How many run a batch; those batches that are not known to be short; whether who brings jobs takes what waits.
        self._running = 0
        self._long: set[int] = set()
        self._here = False
        self._closed = False
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._order = Order(self._lock)
        self._threads: dict[int, Thread] = {}

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self._waiting.rows

    @property
    def direct(self) -> bool:
        """Whether a driven job that asks for nothing special need not wait: `on_the_spot` runs it."""
        return self._direct and not self._waiting.rows

    def configure(self, batching: Batching, *, rows_max: int, instances: int = 1, on_cores: bool = True) -> None:
        """Batch so from the next run on: `rows_max` rows of one run, `instances` runs at a time; start the threads.

        `on_cores`: runs share the cores with other models'.
        """
        with self._lock:
            self._batching = batching
            self._plain = batching.plain
            self._linger_seconds = batching.max_queue_delay_microseconds / 1e6
            self.rows_max = rows_max
            self._instances = instances
            self._on_cores = on_cores
            self._waiting.ordered = batching.preserve_ordering
            self._pace.renew()
            self._judge_quick()
            for number in range(instances):
                if number not in self._threads and not self._closed:
                    name = f"batcher-{self._name}-{number}"
                    thread = Thread(target=self._loop, args=(number,), name=name, daemon=True)
                    self._threads[number] = thread
                    thread.start()
            self._changed.notify_all()

    def submit(self, job: J, *, driven: bool = False) -> None:
        """Let `job` wait for a run.

        Where it is `driven`, `drained` follows on this thread, and nobody is woken before. Raises FullError where there
        is no room or its deadline is sooner than its turn, OverdueError where that has passed, UnavailableError once
        closed.
        """
        with self._lock:
            if self._closed:
                raise UnavailableError("the gateway is stopping", retry_after_seconds=1.0)
            waiting = self._waiting
            if waiting.rows and waiting.rows + job.rows > self._queue_rows_max:
                raise self._full()
            level = 0 if self._plain else self._level(job)
            # What is run on the spot next is not minded by the timer: it is done before that could look.
            idle = self._direct and not self._running and not waiting.rows
            if not (driven and idle and self._pace.is_short(job.group, job.rows)):
                self._mind(job, level)
            waiting.add(job, level)
            if not driven:
                self._changed.notify()

    def refusal(self) -> FullError | None:
        """Return why no job can be taken now, None where one of a row can; from any thread."""
        return None if self._waiting.rows < self._queue_rows_max or self._closed else self.full()

    def full(self, beside: int = 0) -> FullError:
        """Return what one is told for whom there is no room; from any thread. `beside`: rows that wait elsewhere."""
        with self._lock:
            return self._full(beside)

    def _full(self, beside: int = 0) -> FullError:
        self._lookout.by(time.monotonic() + _GONE_SECONDS)  # it sees who of those that wait has gone
        wait = self._expected(rows := self._waiting.rows + beside)
        problem = f"model {self._name!r}: {rows} rows wait, the most is {self._queue_rows_max}"
        return FullError(problem, retry_after_seconds=retry_after(wait))

    def _level(self, job: J) -> int:
        """Return the level that `job` waits at; raises FullError where it is full."""
        level = self._batching.level(job.level)
        most = self._batching.policy(level).max_queue_size
        if most and self._waiting.count(level) >= most:
            problem = f"model {self._name!r}: {most} requests of its priority level wait, which is the most"
            raise FullError(problem, retry_after_seconds=retry_after(self._wait_seconds(level, time.monotonic())))
        return level

    def _mind(self, job: J, level: int) -> None:
        """Have the timer look when `job` is out of time; raises where that is sooner than its turn can be."""
        now, until = time.monotonic(), math.inf
        if not self._plain and (timeout_us := self._batching.policy(level).timeout_us(job.timeout_us)):
            until = now + timeout_us / 1e6
        if job.deadline is not None:
            left, wait = job.deadline - now, self._wait_seconds(level, now)
            if left <= 0:
                raise OverdueError("the deadline had passed before the request could wait for its turn")
            # Behind a full run its own will be one too, and as long.
            own = self._pace.run_seconds if self._waiting.rows_before(level) >= self.rows_max else 0.0
            if left < wait + own:
                problem = f"model {self._name!r}: the wait is about {wait:.3f} s, the deadline is in {left:.3f} s"
                raise FullError(problem, retry_after_seconds=retry_after(wait))
            until = min(until, job.deadline)
        job.until = until
        self._lookout.by(until)

    def _wait_seconds(self, level: int, now: float) -> float:
        """Return how long one of `level` that comes now has to wait, as the newest runs tell."""
        free = self._running < self._instances
        rest_seconds = 0.0 if free else max(0.0, self.began + self._pace.run_seconds - now)
        return self._expected(self._waiting.rows_before(level), rest_seconds)

    def _expected(self, rows: int, rest_seconds: float = 0.0) -> float:
        most, instances = self.rows_max, self._instances
        return self._pace.expected_wait(rows, rows_max=most, instances=instances, rest_seconds=rest_seconds)

    def _look(self) -> None:
        """Tell those who are out of time, or let them wait behind the others; on the timer's thread."""
        now, ended = time.monotonic(), []
        with self._lock:
            self._lookout.began()
            for job, level in self._waiting.remove(lambda job: job.until <= now or job.cancelled):
                if job.cancelled or self._is_over(job, now):
                    ended.append(job)
                else:
                    job.until = math.inf if job.deadline is None else job.deadline
                    self._waiting.add(job, level, late=True)
            soonest = min((job.until for job in self._waiting), default=math.inf)
            self._lookout.ended(now)
            self._lookout.by(soonest)
        for job in ended:
            end(job, now)

    def _is_over(self, job: J, now: float) -> bool:
        """Whether one that is out of time is refused: its caller waits no more, or the model lets it wait no more."""
        late = job.deadline is not None and job.deadline <= now
        return late or not self._batching.policy(self._batching.level(job.level)).delays

    def drained(self, until: float = math.inf) -> None:
        """Run what waits on this thread up to `until`, while runs are quicker than waking another; then wake one."""
        if self.quick:
            self._run_here(until)
        if self._waiting.rows and self._running < self._instances:
            with self._lock:
                self._changed.notify()

    def run_batch(self) -> bool:
        """Run one batch on this thread, if it is short; returns whether more may be. `drained` follows."""
        return self._run_here(0.0)

    def on_the_spot(self, run: Callable[[], None], group: Hashable, rows: int) -> bool:
        """Have `run` run one batch on this thread that never waited here; False where it is to be let wait after all.

        That is where such a batch is not known to be short, another run does not end, this is closed, or `run` raised,
        before it replied to anybody.
        """
        with self._lock:
            if not self._pace.is_short(group, rows):
                return False
            self._begin_here()
            if self._running or self._closed or (self._waiting.ordered and self._waiting.rows):
                self._end_here()
                return False
            self._running += 1
            self.began = start = time.monotonic()
        try:
            run()
        except Exception:  # noqa: BLE001 - it is run once more, in halves, and then told
            return False
        else:
            return True
        finally:
            with self._lock:
                self._running -= 1
                self._pace.ran(time.monotonic() - start)
                self._end_here()

    def _run_here(self, until: float) -> bool:
        """Run what waits on this thread up to `until`, while it is short; returns whether more may be run here."""
        with self._lock:
            if not self._next_is_short():
                return False
            self._begin_here()
        try:
            while (batch := self._take(None)) is not None:
                self._work(batch)
                if time.monotonic() >= until:
                    return self._waiting.rows > 0
            return False
        finally:
            with self._lock:
                self._end_here()

    def _next_is_short(self) -> bool:
        """Whether the next batch is known to be short; False where nothing waits."""
        return self._waiting.rows > 0 and self._pace.is_short(*self._waiting.next_batch(self.rows_max))

    def _begin_here(self) -> None:
        self._here = True
        if self._running and not self._long:
            # Of another thread's run, which is as short.
            left = self.began + _HERE_SECONDS_MAX - time.monotonic()
            self._changed.wait_for(lambda: not self._running, max(0.0, left))

    def _end_here(self) -> None:
        self._here = False
        if self._closed or self._waiting.rows:
            self._changed.notify_all()

    def offer(self) -> bool:
        """Take notice of a free core; returns whether there is use for it."""
        with self._lock:
            self._changed.notify()
            return bool(self._waiting.rows)

    def close(self, *, grace_seconds: float) -> None:
        """Take no more jobs, run what waits for up to `grace_seconds`, and refuse the rest."""
        with self._lock:
            self._closed = True
            self._judge_quick()
            self._changed.notify_all()
            threads = list(self._threads.values())
        until = time.monotonic() + grace_seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            left = self._waiting.remove(lambda _: True)
        self._lookout.forget()
        self._shares.forget(self)
        for job, _ in left:
            job.fail(UnavailableError("the gateway is stopping", retry_after_seconds=1.0))

    def ran(self, group: Hashable, rows: int, seconds: float) -> None:
        """Hear how long the model itself took for a batch of so many rows."""
        with self._lock:
            if self._pace.computed(group, rows, seconds):
                self._judge_quick()

    def _judge_quick(self) -> None:
        self.quick = self._pace.short and not self._linger_seconds
        self._direct = self.quick and self._plain and not self._closed

    def in_order(self) -> None:
        """Return when what came before this thread's batch has replied; at once where the model does not ask for it."""
        self._order.wait()

    def _loop(self, number: int) -> None:
        while (batch := self._take(number)) is not None:
            start = time.monotonic()
            self._work(batch)
            self._shares.give(self, time.monotonic() - start)
            if self._here:
                with self._lock:
                    self._changed.notify_all()

    def _work(self, batch: list[J]) -> None:
        """Run one batch, and let others take the next."""
        start = time.monotonic()
        live = [job for job in batch if not self._dropped(job, start)]
        try:
            if live:
                execute_halved(live, self._execute, self._name)
        finally:
            self._order.wait()
            with self._lock:
                self._running -= 1
                self._long.discard(id(batch))
                if live:
                    self._pace.ran(time.monotonic() - start)
                self._order.end()

    def _take(self, number: int | None) -> list[J] | None:
        """Return the next batch, and be one who runs; on thread `number`, or where it was brought (None).

        On a thread: None once closed and empty, or where there are fewer instances by now. Where it was brought: None
        while what waits is not known to be short or another runs.
        """
        with self._lock:
            if number is None:
                return self._next() if not self._running and self._next_is_short() else None
            while number < self._instances and not (self._closed and not self._waiting.rows):
                left = self._lingers() if self._waiting.rows else None
                if left == 0 and self._may_run():
                    return self._next()
                self._changed.wait(left or None)
            self._threads.pop(number, None)
            return None

    def _may_run(self) -> bool:
        """Whether one more thread may run a batch; if so, it has its share."""
        if self._here or self._running >= self._instances:
            return False
        return self._shares.take(self, beside=self._running > 0 and self._on_cores)

    def _lingers(self) -> float:
        """Return how long what waits is to wait for company still, seconds."""
        first = self._waiting.first()
        if not self._linger_seconds or first is None or self._closed or self._waiting.rows >= self.rows_max:
            return 0.0
        return max(0.0, first.since + self._linger_seconds - time.monotonic())

    def _next(self) -> list[J]:
        self._running += 1
        self.began = time.monotonic()
        rows = self._waiting.rows
        batch = self._waiting.take(self.rows_max)
        if not self._pace.is_short(batch[0].group, rows - self._waiting.rows):
            self._long.add(id(batch))
        if self._waiting.ordered:
            self._order.give()
        if self._waiting.rows and self._running < self._instances:
            self._changed.notify()
        return batch

    def _dropped(self, job: J, now: float) -> bool:
        if job.cancelled or (job.until <= now and self._is_over(job, now)):
            end(job, now)
            return True
        return False
