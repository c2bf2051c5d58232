"""The slow side: parks what goes to a person, and tells the client its name once the queue has it.

One asyncio loop in a thread of its own does everything that waits for Redis. The hot path hands over a batch's rows and
goes on; all of them go to the queue in one call. A client that was deferred hears the names only after that; one that
was answered has its answer already, and an audit of it that cannot be parked is counted and logged, nothing more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

import structlog

from fallback.deferral import Parking
from fallback.ending import end_all
from fallback.errors import ConflictError, DemurError, FullError, OverdueError, OverError, UnavailableError
from fallback.queue import Parked, Queue
from gateway.champion import Live
from gateway.hold_off import HoldOff
from gateway.intake import Prepared
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.parking import Sampling, parking
from gateway.remembered import conflict
from gateway.request import Request, Result
from gateway.unparked import Unparked
from gateway.verdict import Verdict

_FULL_RETRY_SECONDS: Final = 1.0
_LOOP_SECONDS: Final = 10.0

RedisAway = Literal["refuse", "answer_unreviewed"]
log = structlog.get_logger(__name__)


class SlowLoop:
    """One asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="slow", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.loop = asyncio.new_event_loop()
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], *, timeout_seconds: float | None = None) -> Any:
        """Run `work` there and return its result; called from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let `work` run there; trouble is logged. From any thread. False where the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(self._start, work)
        except RuntimeError:
            work.close()
            return False
        return True

    def stop(self, grace_seconds: float, *, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let what was spawned finish for up to `grace_seconds`, do `last`, cancel the rest, end the thread."""
        if not self._thread.is_alive():
            return
        try:
            self.run(self._drain(grace_seconds, last), timeout_seconds=grace_seconds + _LOOP_SECONDS)
        except concurrent.futures.TimeoutError:
            log.error("the slow loop did not drain in time")  # noqa: TRY400 - a traceback would say nothing more
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_LOOP_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, grace_seconds: float, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        await last()
        await end_all(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


class Asker(Protocol):
    """Who asked: a request under way."""

    @property
    def request(self) -> Request:
        """What was asked."""

    @property
    def prepared(self) -> Prepared:
        """Its rows."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def answer(self, result: Result) -> None:
        """Give the result."""

    def fail(self, error: DemurError) -> None:
        """Refuse."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Declined:
    """A request with rows for a person: `deferred` before it is answered, `audited` beside its answer.

    `samplings`: how rows were recorded whose model is under certification. Their audits are not here: these are parked
    from the spool (`gateway.shipping`).
    """

    asker: Asker
    result: Result
    deferred: tuple[int, ...]
    audited: tuple[int, ...]
    samplings: Mapping[int, Sampling] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows are to be parked."""
        return len(self.deferred) + len(self.audited)


class Deferring:
    """Parks. `parkings_max` bounds the rows on their way; `redis_away` says what a client gets while Redis is."""

    def __init__(
        self,
        *,
        queue: Queue,
        slow: SlowLoop,
        metrics: Metrics,
        parkings_max: int,
        redis_away: RedisAway,
        hold_off: HoldOff | None = None,
        unparked: Unparked | None = None,
    ) -> None:
        self.hold_off = hold_off or HoldOff()
        self._unparked = unparked or Unparked()
        self._queue = queue
        self._slow = slow
        self._metrics = metrics
        self._parkings_max = parkings_max
        self._redis_away = redis_away
        self._lock = threading.Lock()
        self._rows = 0

    def take(self, batch: Sequence[Declined], live: Live) -> None:
        """Park the rows of a batch and reply to those that were deferred; from any thread, returns at once."""
        taken: list[Declined] = []
        for declined in batch:
            with self._lock:
                room = self._rows + declined.rows <= self._parkings_max
                self._rows += declined.rows if room else 0
            if room:
                taken.append(declined)
            else:
                self._refuse(declined, live)
        if taken and not self._slow.spawn(self._park(taken, live)):
            self._leave(taken)
            for declined in taken:
                self._lose(declined, UnavailableError("the gateway is stopping", retry_after_seconds=1.0))

    def hold(self, declined: Declined, error: DemurError) -> None:
        """Reply to who is held off as to who could not be parked for `error`; from any thread."""
        self._tell(declined, dict.fromkeys(declined.deferred, error))

    def _refuse(self, declined: Declined, live: Live) -> None:
        error = FullError(
            f"{self._parkings_max} rows are on their way to the queue, the most at a time",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        )
        self.hold_off.failed(live.manifest.review_queue, error)
        self._lose(declined, error)

    def _fail(self, declined: Declined, error: DemurError) -> None:
        """Refuse who was deferred; who was answered has the answer, and only the audit is lost."""
        if declined.deferred:
            declined.asker.fail(error)
        else:
            self._lose_audits(len(declined.audited), error)

    def _lose(self, declined: Declined, error: DemurError) -> None:
        """Refuse who was not even sent to the queue."""
        for row in declined.samplings:
            self._remember(declined, row, error)
        self._fail(declined, error)

    def _leave(self, batch: Sequence[Declined]) -> None:
        with self._lock:
            self._rows -= sum(declined.rows for declined in batch)

    async def _park(self, batch: Sequence[Declined], live: Live) -> None:
        start = time.monotonic()
        # Nothing was promised to who has left: a retry with its key is parked then.
        wanted: list[Declined] = []
        for declined in batch:
            if declined.deferred and declined.asker.cancelled:
                self._lose(declined, OverdueError("nobody waits for the reply any more"))
            else:
                wanted.append(declined)
        try:
            rows = [(declined, row) for declined in wanted for row in (*declined.deferred, *declined.audited)]
            verdicts = await self._send([_parking(declined, row, live) for declined, row in rows])
            parked: dict[int, dict[int, Parked | DemurError]] = {}
            for (declined, row), verdict in zip(rows, verdicts, strict=True):
                parked.setdefault(id(declined), {})[row] = verdict
                self._note(live, verdict)
                self._remember(declined, row, verdict)
            for declined in wanted:
                self._tell(declined, parked[id(declined)])
        except Exception as error:  # noqa: BLE001 - the root of the task: its callers are told
            problem = told(error, model=live.version.model)
            for declined in wanted:
                self._fail(declined, problem)
        finally:
            self._leave(batch)
            self._metrics.stage_seconds.labels(live.version.model, "park").observe(time.monotonic() - start)

    def _note(self, live: Live, verdict: Parked | DemurError) -> None:
        """Remember whether the queue takes anything now."""
        queue = live.manifest.review_queue
        if isinstance(verdict, Parked):
            self.hold_off.heard(queue)
        else:
            self.hold_off.failed(queue, verdict)

    def _remember(self, declined: Declined, row: int, verdict: Parked | DemurError) -> None:
        """Remember whether a recorded row is parked. A conflict is one of what is parked already."""
        sampling, model = declined.samplings.get(row), declined.result.model
        if sampling is None or isinstance(verdict, ConflictError):
            return
        heard = self._unparked.parked if isinstance(verdict, Parked) else self._unparked.lost
        heard(model, sampling.draw.place, again=sampling.again)

    async def _send(self, parkings: Sequence[Parking]) -> Sequence[Parked | DemurError]:
        if not parkings:
            return []
        try:
            return await self._queue.park(parkings)
        except DemurError as error:
            return [error] * len(parkings)

    def _tell(self, declined: Declined, verdicts: dict[int, Parked | DemurError]) -> None:
        model = declined.result.model
        for row, verdict in verdicts.items():
            self._count_over(declined, row, verdict)
        for row in declined.audited:
            verdict = verdicts[row]
            if isinstance(verdict, DemurError):
                self._lose_audits(1, verdict)
            else:
                self._metrics.audits.labels(model).inc(verdict.created)
        if not declined.deferred:
            return
        parked = {row: found for row in declined.deferred if isinstance(found := verdicts[row], Parked)}
        failed = {row: found for row in declined.deferred if isinstance(found := verdicts[row], DemurError)}
        for found in parked.values():
            self._metrics.parked.labels(model).inc(found.created)
        if any(isinstance(error, UnavailableError) for error in failed.values()):
            self._metrics.redis_errors.labels("park").inc()
        for row, error in failed.items():
            if not self._excused(declined, row, error):
                key = declined.asker.request.idempotency_key
                declined.asker.fail(conflict(key) if isinstance(error, ConflictError) else error)
                return
        declined.asker.answer(
            replace(
                declined.result,
                deferrals={row: found.name for row, found in parked.items()},
                unparked=bool(failed),
                notes=_notes(parked, failed),
                expected_waits={
                    row: found.expected_wait for row, found in parked.items() if found.expected_wait is not None
                },
            )
        )

    def _excused(self, declined: Declined, row: int, error: DemurError) -> bool:
        """Whether the operator has a row that could not be parked answered all the same, by the model alone."""
        if isinstance(error, UnavailableError):
            return self._redis_away == "answer_unreviewed"
        # No confidence excuses what always goes to a person, and no want of people either.
        decisions, place = declined.result.decisions, declined.result.first + row
        insists = decisions is not None and decisions.insists(place)
        return isinstance(error, OverError) and error.unreviewed and not insists

    def _count_over(self, declined: Declined, row: int, verdict: Parked | DemurError) -> None:
        """Count a row that met a queue over its limit, by what is done with it."""
        if isinstance(verdict, OverError):
            unreviewed = row in declined.deferred and self._excused(declined, row, verdict)
            done = "answered_unreviewed" if unreviewed else "refused"
            self._metrics.over.labels(verdict.queue, verdict.limit, done).inc()
        elif isinstance(verdict, Parked) and verdict.over:
            self._metrics.over.labels(verdict.name.split("/")[1], verdict.over, "kept").inc()

    def _lose_audits(self, count: int, error: DemurError) -> None:
        self._metrics.redis_errors.labels("audit").inc(count)
        log.warning("audits were not parked", count=count, error=error.message)


def _notes(parked: Mapping[int, Parked], failed: Mapping[int, DemurError]) -> dict[int, Verdict]:
    """Return what is to be said of rows whose queue is over a limit or away."""
    kept = {
        row: Verdict(
            rule="over", defers=False, evaluation=f"the queue is over its limit {found.over}; parked all the same"
        )
        for row, found in parked.items()
        if found.over
    }
    unparked = {
        row: Verdict(
            rule="over" if isinstance(error, OverError) else "away",
            defers=False,
            evaluation=f"{error.message.partition(';')[0]}; answered unreviewed",
        )
        for row, error in failed.items()
    }
    return kept | unparked


def _parking(declined: Declined, row: int, live: Live) -> Parking:
    asker, decisions = declined.asker, declined.result.decisions
    assert decisions is not None, "what nothing judged is never declined"
    first, sampling = declined.result.first, declined.samplings.get(row)
    return parking(asker.request, asker.prepared, live, decisions, first=first, row=row, sampling=sampling)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - the root of a task: it is logged and ends
        told(error, where="slow loop")
