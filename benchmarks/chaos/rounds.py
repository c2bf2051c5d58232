"""Runs the rounds: has requests sent, strikes at the drawn moments, lets everything recover, and has it checked.

Theory of operation. Before a round every process answers, clients are told to send more, and reviewers rest until
enough is in flight. The round begins with the reviewers back at work; the faults strike, each heals, and it ends when
the backlog is small or its time is over. Between rounds every process must answer again; the server is read past all
proxies (what it keeps, and whether it agrees with itself). Every few rounds everything is settled to the last callback,
and what everybody saw since is checked. Each wait is bounded: what is missing when it ends is for the checker to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.chaos import check
from benchmarks.chaos.check import History
from benchmarks.chaos.ground import CLIENTS, RETENTION_SECONDS, Ground
from benchmarks.chaos.history import Called, Entry, Kept, KeptReview, Watched, tail
from benchmarks.chaos.names import QUEUES
from benchmarks.chaos.plan import LEASE_SECONDS, Fault, Kind, draw
from benchmarks.chaos.processes import Process
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.worker import Orders
from fallback.answer import Answer, Label
from fallback.deferral import Deferral, State
from fallback.errors import DemurError
from fallback.queue import Queue
from fallback.recount import Recount, recount

ROUND_SECONDS_MAX = 8.0
IN_FLIGHT_MIN = 200
REQUESTS_PER_ROUND = 260
# What is in flight when the reviewers go back to work, and how long they are at it when the first fault strikes.
IN_FLIGHT_FULL = 230
LEAD_SECONDS = 0.15
FILL_SECONDS_MAX = 20.0
BACKLOG_MAX = 150
RECOVER_SECONDS_MAX = 30.0
SETTLE_SECONDS_MAX = 45.0
CHECK_EVERY = 10
_TICK_SECONDS = 0.05
# A round ends that much before its time: a tick takes longer on a busy machine.
_MARGIN_SECONDS = 0.4
_PAGE = 1_000
_ENDED = (State.RESOLVED, State.EXPIRED, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: how long it took, what it accepted, what was in flight when the first fault struck, and the faults."""

    seconds: float
    accepted: int
    in_flight: int
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class Results:
    """What a run adds up to. `broken` holds what was found wrong, by promise."""

    rounds: list[Round] = field(default_factory=list)
    broken: dict[str, list[str]] = field(default_factory=dict)
    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    reviews: int = 0
    callbacks: int = 0
    kept_bytes_before: int = 0
    kept_bytes_after: int = 0

    def add(self, promise: str, problems: list[str]) -> None:
        """Note what was found wrong, nothing included, so that each promise is told of."""
        self.broken.setdefault(promise, []).extend(problems)


class Rounds:
    """One run on one ground; `tell` gets a line for people now and then."""

    def __init__(
        self,
        ground: Ground,
        *,
        seed: int,
        tell: Callable[[str], None],
        settle_seconds: float = SETTLE_SECONDS_MAX,
    ) -> None:
        self._settle_seconds = settle_seconds
        self.results = Results()
        self._ground = ground
        self._seed = seed
        self._tell = tell
        self._queue = Queue.connect(ground.config)
        self._tails = {path: tail(path) for path in ground.journals}
        self._entries: list[Entry] = []
        self._total = 0
        self._tally = Tally()
        self._kept: set[str] = set()
        # The cursor of each outcome that a client saw, and how many of each queue.
        self._watched: dict[str, str] = {}
        self._seen: Counter[str] = Counter()

    async def run(self, rounds: int, *, purge: bool = True) -> None:
        """Run all rounds, then settle and compare; with `purge` wait until everything is forgotten as well."""
        try:
            before = await self._recount()
            self.results.kept_bytes_before = before.bytes_used - before.bytes_lapsing
            for number in range(rounds):
                await self._round(number, rounds)
                if (number + 1) % CHECK_EVERY == 0 or number + 1 == rounds:
                    await self._checkpoint()
            await self._end(purge=purge)
        finally:
            await self._queue.close()

    async def _round(self, number: int, rounds: int) -> None:
        begun, already = time.monotonic(), self._tally.named
        self._total += REQUESTS_PER_ROUND
        self._order(rest=True)
        await self._until(lambda: self._tally.in_flight >= IN_FLIGHT_FULL or self._named_all(), FILL_SECONDS_MAX)
        self._order(rest=False)
        start, faults = time.monotonic(), draw(self._seed, number)
        await self._until(lambda: False, LEAD_SECONDS)
        in_flight = self._tally.in_flight
        striking = asyncio.gather(*map(self._strike, faults))
        await self._until(striking.done, ROUND_SECONDS_MAX)
        await striking
        await self._until(self._small, start + ROUND_SECONDS_MAX - _MARGIN_SECONDS - time.monotonic())
        end = time.monotonic()
        await self._recover()
        done = Round(seconds=end - start, accepted=self._tally.named - already, in_flight=in_flight, faults=faults)
        self.results.rounds.append(done)
        what = ", ".join(f"{fault.kind} {fault.struck}" for fault in faults)
        self._tell(
            f"round {number + 1}/{rounds}: {done.accepted} accepted, {in_flight} in flight; {what}; "
            f"{done.seconds:.1f} s, {start - begun:.1f} s before and {time.monotonic() - end:.1f} s after it"
        )

    def _order(self, *, rest: bool) -> None:
        self._ground.order(Orders(total=self._total // CLIENTS, rest=rest))

    async def _strike(self, fault: Fault) -> None:
        """Let one fault strike at its moment, last, and heal."""
        await asyncio.sleep(fault.at)
        if fault.target is not None:
            await self._strike_process(fault, self._ground.processes[fault.target])
        elif fault.link is not None:
            proxies = self._ground.proxies[fault.link]
            await self._strike_link(fault, proxies[fault.which % len(proxies)])

    async def _strike_process(self, fault: Fault, group: list[Process]) -> None:
        while not (free := [process for process in group if not process.struck]):  # noqa: ASYNC110 - it heals by time
            await asyncio.sleep(_TICK_SECONDS)
        process = free[fault.which % len(free)]
        if fault.kind is Kind.KILL:
            process.kill()
            await asyncio.sleep(fault.seconds)
            process.start_again()
        else:
            process.stop()
            await asyncio.sleep(fault.seconds)
            process.go_on()

    async def _strike_link(self, fault: Fault, proxy: Proxy) -> None:
        match fault.kind:
            case Kind.RESET:
                proxy.reset()
                return
            case Kind.LATENCY:
                spoilt = proxy.slow(fault.latency)
            case Kind.STALL:
                spoilt = proxy.stalled()
            case _:
                spoilt = proxy.losing(forward=fault.forward)
        async with spoilt:
            await asyncio.sleep(fault.seconds)

    async def _recover(self) -> None:
        """Return when every process answers and the backlog is small; read what the server keeps."""
        await self._ground.until_ready()
        await self._until(self._small, RECOVER_SECONDS_MAX)
        with contextlib.suppress(DemurError):
            await self._keep()
        self.results.add("open deferrals outside their index", await self._queue.reconcile())

    async def _checkpoint(self) -> None:
        """Settle everything to the last callback, then have what everybody saw since the last time checked."""
        await self._until(self._settled, self._settle_seconds)
        await self._keep()
        history = History(self._entries, lease_seconds=LEASE_SECONDS, earlier=self._watched)
        for promise, judge in check.PROMISES:
            self.results.add(promise, judge(history))
        states = {one.deferral: one for one in history.of(Watched)}
        self.results.accepted += len(history.accepted)
        self.results.states.update(states[name].state for name in history.accepted if name in states)
        self.results.reviews += sum(len(one) for one in history.filled.values())
        self.results.callbacks += len({one.id for one in history.of(Called) if one.status == check.TAKEN})
        for name, one in states.items():
            if name not in self._watched:
                self._seen[one.queue] += 1
            self._watched[name] = one.cursor
        self._entries.clear()

    async def _end(self, *, purge: bool) -> None:
        """Compare the server's counters with its records and with what clients saw, then with nothing left."""
        found = await self._recount()
        problems = found.problems + check.counted(found.accepted, self._seen)
        self.results.add("counters that differ from a recount", problems)
        deaths = [death for process in self._ground.all for death in process.deaths]
        self.results.add("processes that ended by themselves", deaths)
        if not purge:
            return
        self._tell(f"waiting {RETENTION_SECONDS} s until the server forgets everything")
        await self._until(lambda: False, RETENTION_SECONDS + 1.0)
        found = await self._recount()
        left = [f"{found.records} records are left"] if found.records else []
        left += [f"{name} has no end" for name in found.lasting]
        self.results.add("things left on the server after their time", left + found.problems)
        self.results.kept_bytes_after = found.bytes_used - found.bytes_lapsing

    async def _recount(self) -> Recount:
        return await recount(self._ground.config)

    async def _keep(self) -> None:
        """Read the deferrals that ended since the last time, as the server holds them."""
        for queue in QUEUES:
            for state in _ENDED:
                token = ""
                while True:
                    page, token = await self._queue.list_deferrals(
                        queue, state=state, page_size=_PAGE, page_token=token
                    )
                    fresh = [one for one in page if one.name not in self._kept]
                    self._kept.update(one.name for one in fresh)
                    self._entries += [_kept(one) for one in fresh]
                    if not token:
                        break

    def _small(self) -> bool:
        """Whether every request was asked and named, and little is still in flight."""
        return self._named_all() and self._tally.in_flight <= BACKLOG_MAX

    def _named_all(self) -> bool:
        """Whether every request was made, and has a name."""
        return self._tally.all_named(self._total)

    def _settled(self) -> bool:
        """Whether every request has a name, every name an outcome, and every outcome was told."""
        return self._tally.settled(self._total)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Let time pass, noticing what is written down and who died, until `condition` or the end of `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            for process in self._ground.all:
                process.look()
            for entries in self._tails.values():
                for entry in entries.read():
                    self._entries.append(entry)
                    self._tally.note(entry)
            if condition() or time.monotonic() >= deadline:
                return
            await asyncio.sleep(_TICK_SECONDS)


def _kept(deferral: Deferral) -> Kept:
    outcome = deferral.outcome
    return Kept(
        deferral=deferral.name,
        state=str(deferral.state),
        label=_label(outcome.answer) if outcome is not None else "",
        version=deferral.version,
        slots=deferral.reviews_wanted,
        outcome_time=outcome.create_time if outcome is not None else float("inf"),
        reviews=tuple(
            KeptReview(
                reviewer=review.reviewer,
                label=_label(review.answer),
                request=review.comment,
                create_time=review.create_time,
            )
            for review in deferral.reviews
        ),
    )


def _label(answer: Answer | None) -> str:
    return answer.label if isinstance(answer, Label) else ""
