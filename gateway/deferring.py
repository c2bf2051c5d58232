"""The slow side: parks what goes to a person, and tells the client its name once the queue has it.

The hot path hands over a batch's rows and goes on. Those of plain requests go to the clerk (`gateway.clerk`), where
there is one; the others, and what a clerk did not do, are parked here, on the asyncio loop on which this process does
everything that waits for Redis. They go to the queue in rounds: what comes while rounds are under way goes with the
next one, in one call, so that many rows cost little more than one. A client that was deferred hears the names only
after that; one that was answered has its answer already, so nobody waits for an audit: audits wait a moment for others.
One that cannot be parked is counted and logged, nothing more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import structlog

from fallback import keys
from fallback.deferral import Parking
from fallback.errors import ConflictError, DemurError, OverdueError, OverError, UnavailableError
from fallback.queue import Parked, Queue
from gateway.backlog import Backlog
from gateway.champion import Live
from gateway.clerk import Clerk, Verdicts
from gateway.clerk_rounds import Given
from gateway.declined import Declined
from gateway.hold_off import HoldOff
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.notes import notes
from gateway.parking import parking
from gateway.remembered import conflict
from gateway.slow import SlowLoop
from gateway.unparked import Unparked

# Rounds at a time for those who wait, rows of one and bytes of its requests; how long audits alone wait for company.
ROUNDS_MAX: Final = 2
ROUND_ROWS_MAX: Final = 256
ROUND_BYTES_MAX: Final = 16 * 1024 * 1024
AUDITS_LINGER_SECONDS: Final = 0.25

RedisAway = Literal["refuse", "answer_unreviewed"]
log = structlog.get_logger(__name__)


_Waiting: TypeAlias = tuple[Declined, Live]


class Deferring:
    """Parks. `backlog` bounds what is on its way; `redis_away` says what a client gets while Redis is."""

    def __init__(
        self,
        *,
        queue: Queue,
        slow: SlowLoop,
        metrics: Metrics,
        backlog: Backlog,
        redis_away: RedisAway,
        hold_off: HoldOff | None = None,
        unparked: Unparked | None = None,
        clerk: Clerk | None = None,
    ) -> None:
        self.hold_off = hold_off or HoldOff()
        self._unparked = unparked or Unparked()
        self._queue = queue
        self._slow = slow
        self._metrics = metrics
        self.backlog = backlog
        self._redis_away = redis_away
        self._lock = threading.Lock()
        # What waits for a round, each with its version; how many of it have a client that waits too.
        self._waiting: deque[_Waiting] = deque()
        self._awaited = 0
        self._rounds = 0
        self._lingering = False
        self._clerk = clerk
        if clerk is not None:
            clerk.start(self._heard, self._park_left, self._hopeless)

    def close(self, grace_seconds: float) -> None:
        """Let the clerk, where there is one, do what it was given for up to `grace_seconds`."""
        if self._clerk is not None:
            self._clerk.close(grace_seconds)

    def take(self, batch: Sequence[Declined], live: Live) -> None:
        """Park the rows of a batch and reply to those that were deferred; from any thread, returns at once."""
        wanted, refused = self.backlog.admit(batch)
        for declined, error in refused:
            self.hold_off.failed(live.manifest.review_queue, error)
            self._lose(declined, error)
        if hopeless := [(declined, why) for declined in wanted if (why := self._hopeless(declined, live))]:
            self._give_up(hopeless, live)
            gone = {id(declined) for declined, _ in hopeless}
            wanted = [declined for declined in wanted if id(declined) not in gone]
        left = wanted if self._clerk is None else self._clerk.take(wanted, live)
        if left:
            self._wait([(declined, live) for declined in left])

    def _give_up(self, hopeless: Sequence[tuple[Declined, DemurError]], live: Live) -> None:
        """Tell those whose rows are not sent."""
        try:
            for declined, error in hopeless:
                self._told(declined, live, error)
        finally:
            self.backlog.leave(declined for declined, _ in hopeless)

    def _told(self, declined: Declined, live: Live, error: DemurError) -> None:
        """Tell one whose rows are not sent; what goes wrong there is its own trouble."""
        try:
            self._hear(declined, live, [error] * declined.rows)
        except Exception as problem:  # noqa: BLE001 - others of its batch are answered already
            self._fail(declined, told(problem, model=live.version.model))

    def _hopeless(self, declined: Declined, live: Live) -> DemurError | None:
        """Return why rows need not be sent: who asked has left, or the queue's server is away, as was heard before.

        One round after the other would wait for a server that hangs; when it is back somebody else finds out. What is
        recorded as evidence is tried all the same: each that is lost counts as an error.
        """
        if declined.deferred and declined.asker.cancelled:
            # Nothing was promised to who has left: a retry with its key is parked then.
            return OverdueError("nobody waits for the reply any more")
        return None if declined.samplings else self.hold_off.gone(live.manifest.review_queue)

    def _park_left(self, left: Sequence[Given]) -> None:
        """Park what a clerk did not, or parked and did not tell."""
        log.warning("the clerk's errands are parked by the gateway", count=len(left))
        self._wait(left)

    def _wait(self, waiting: Sequence[_Waiting]) -> None:
        """Let them wait for a round."""
        with self._lock:
            self._waiting.extend(waiting)
            self._awaited += sum(bool(declined.deferred) for declined, _ in waiting)
        for awaited in (True, False):
            if self._starts(awaited=awaited) and not self._slow.spawn(self._work(linger=not awaited)):
                self._lose_all(UnavailableError("the gateway is stopping", retry_after_seconds=1.0))

    def _starts(self, *, awaited: bool) -> bool:
        """Whether one more round is to start: at once for those who are waited for, after a while for the others."""
        with self._lock:
            if awaited:
                starts = self._awaited > 0 and self._rounds < ROUNDS_MAX
                self._rounds += starts
            else:
                starts = bool(self._waiting) and not self._awaited and not self._lingering
                self._lingering |= starts
            return starts

    def _lose_all(self, error: DemurError) -> None:
        while batch := self._next():
            self.backlog.leave(declined for declined, _ in batch)
            for declined, _ in batch:
                self._lose(declined, error)

    async def _work(self, *, linger: bool) -> None:
        """Park what waits; a moment later where nobody waits for it."""
        while True:
            if linger:
                await asyncio.sleep(AUDITS_LINGER_SECONDS)
                with self._lock:
                    self._lingering = False
                    self._rounds += 1
            await self._round()
            linger = self._starts(awaited=False)
            if not linger:
                return

    async def _round(self) -> None:
        """Park what waits now, and then what is waited for by then."""
        while True:
            if batch := self._next():
                await self._park(batch)
            with self._lock:
                if not self._awaited:
                    self._rounds -= 1
                    return

    def _next(self) -> list[_Waiting]:
        """Return what waits, up to what one round takes."""
        found: list[_Waiting] = []
        rows = weight = 0
        with self._lock:
            while self._waiting:
                declined, live = self._waiting[0]
                rows += declined.rows
                weight += declined.weight
                if found and (rows > ROUND_ROWS_MAX or weight > ROUND_BYTES_MAX):
                    break
                self._waiting.popleft()
                self._awaited -= bool(declined.deferred)
                found.append((declined, live))
        return found

    def hold(self, declined: Declined, error: DemurError) -> None:
        """Reply to who is held off as to who could not be parked for `error`; from any thread."""
        self._tell(declined, dict.fromkeys(declined.deferred, error))

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

    async def _park(self, batch: Sequence[_Waiting]) -> None:
        start = time.monotonic()
        wanted, parkings, ids = self._wanted(batch)
        try:
            verdicts = iter(await self._send(parkings, ids))
            for declined, live in wanted:
                self._hear(declined, live, [next(verdicts) for _ in range(declined.rows)])
        except Exception as error:  # noqa: BLE001 - the root of the task: its callers are told
            problem = told(error)
            for declined, _ in wanted:
                self._fail(declined, problem)
        finally:
            self.backlog.leave(declined for declined, _ in batch)
            seconds = time.monotonic() - start
            for model in {live.version.model for _, live in batch}:
                self._metrics.stage_seconds.labels(model, "park").observe(seconds)

    def _heard(self, audited: Sequence[Given], said: Sequence[tuple[Given, Verdicts]]) -> None:
        """Hear which audits the clerk parked, and tell those that wait what became of their rows."""
        now, fine = time.monotonic(), Counter[tuple[str, str]]()
        for declined, live in audited:
            fine["audited", declined.model] += declined.rows
            fine["queue", live.manifest.review_queue] += 1
        for (declined, live), verdicts in said:
            try:
                if not self._hear_fine(declined, live, verdicts, fine):
                    self._hear(declined, live, verdicts)
            except Exception as error:  # noqa: BLE001 - the root of the clerk's thread: the caller is told
                self._fail(declined, told(error))
            self._metrics.stage_seconds.labels(live.version.model, "park").observe(now - declined.since)
        for (what, name), count in fine.items():
            if what == "queue":
                self.hold_off.heard(name)
            else:
                (self._metrics.parked if what == "parked" else self._metrics.audits).labels(name).inc(count)
        self.backlog.leave(declined for declined, _ in (*audited, *(given for given, _ in said)))

    def _hear_fine(self, declined: Declined, live: Live, verdicts: Verdicts, fine: Counter[tuple[str, str]]) -> bool:
        """Tell a request whose rows are parked as they should be, and count that; False where there is more to say."""
        kept = [verdict for verdict in verdicts if isinstance(verdict, Parked) and not verdict.over]
        rows, plain = len(declined.deferred), declined.plain
        if len(kept) < len(verdicts) or plain is None:
            return False
        if rows:
            if not plain.answer(dict(zip(declined.deferred, kept, strict=False))):
                return False
            fine["parked", declined.model] += sum([each.created for each in kept[:rows]])
        if declined.audited:
            fine["audited", declined.model] += sum([each.created for each in kept[rows:]])
        fine["queue", live.manifest.review_queue] += 1
        return True

    def _hear(self, declined: Declined, live: Live, verdicts: Verdicts) -> None:
        """Tell a request what became of its rows."""
        for verdict in verdicts:
            self._note(live, verdict)
        found = dict(zip((*declined.deferred, *declined.audited), verdicts, strict=True))
        for row in declined.samplings:
            self._remember(declined, row, found[row])
        self._tell(declined, found)

    def _wanted(self, batch: Sequence[_Waiting]) -> tuple[list[_Waiting], list[Parking], list[str]]:
        """Return who is to be parked, each row as the queue takes it, and what it is called; the others are told.

        A round holds many requests: one of which no Parking can be made is its own trouble.
        """
        wanted: list[_Waiting] = []
        parkings: list[Parking] = []
        ids: list[str] = []
        for declined, live in batch:
            if problem := self._hopeless(declined, live):
                self._told(declined, live, problem)
                continue
            try:
                made = [_parking(declined, row, live) for row in (*declined.deferred, *declined.audited)]
            except Exception as error:  # noqa: BLE001 - one request's trouble is its own
                self._fail(declined, told(error, model=live.version.model))
                continue
            wanted.append((declined, live))
            parkings += made
            ids += declined.ids or [keys.fresh_id() for _ in made]
        return wanted, parkings, ids

    def _note(self, live: Live, verdict: Parked | DemurError) -> None:
        """Remember whether the queue takes anything now."""
        queue = live.manifest.review_queue
        if isinstance(verdict, Parked):
            self.hold_off.heard(queue)
        else:
            self.hold_off.failed(queue, verdict)

    def _remember(self, declined: Declined, row: int, verdict: Parked | DemurError) -> None:
        """Remember whether a recorded row is parked. A conflict is one of what is parked already."""
        sampling, model = declined.samplings[row], declined.model
        if isinstance(verdict, ConflictError):
            return
        heard = self._unparked.parked if isinstance(verdict, Parked) else self._unparked.lost
        heard(model, sampling.draw.place, again=sampling.again)

    async def _send(self, parkings: Sequence[Parking], ids: Sequence[str]) -> Sequence[Parked | DemurError]:
        if not parkings:
            return []
        try:
            return await self._queue.park(parkings, ids)
        except DemurError as error:
            return [error] * len(parkings)

    def _tell(self, declined: Declined, verdicts: dict[int, Parked | DemurError]) -> None:
        model = declined.model
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
        self._metrics.parked.labels(model).inc(sum(found.created for found in parked.values()))
        if not failed and declined.plain is not None and declined.plain.answer(parked):
            return
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
                notes=notes(parked, failed),
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


def _parking(declined: Declined, row: int, live: Live) -> Parking:
    asker, decisions = declined.asker, declined.result.decisions
    assert decisions is not None, "what nothing judged is never declined"
    first, sampling = declined.result.first, declined.samplings.get(row)
    return parking(asker.request, asker.prepared, live, decisions, first=first, row=row, sampling=sampling)
