"""MLPerf's scenarios and two sweeps, against one target.

Source: MLPerf Inference's rules (single-stream, server, offline); of its durations and counts of queries, which are for
submissions, nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, Protocol

import msgspec

from benchmarks.figures import Check, spread
from benchmarks.serve import runs, search
from benchmarks.serve.results import (
    Offline,
    Run,
    Scenario,
    Scenarios,
    Server,
    SingleStream,
    Sweep,
    Voided,
)
from benchmarks.serve.search import Bounds

Tell = Callable[[str], None]
# An open loop is longer than asked for, within limits, where it would have fewer requests.
_REQUESTS_MIN: Final = 200
_LONGER_MAX: Final = 5.0
_WARM_CALLERS: Final = 8


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: seconds of a run, rounds of offline, callers at most, rates as shares of what saturates."""

    seconds: float
    rounds: int
    callers: int
    shares: tuple[float, ...]


FULL: Final = Size(seconds=2.0, rounds=3, callers=64, shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
QUICK: Final = Size(seconds=0.5, rounds=1, callers=16, shares=(0.25, 0.5, 0.75))


class Loads(Protocol):
    """Who sends: `runs.Bench`, or a made-up one."""

    def open(self, rate: float, seconds: float) -> Run:
        """Send at `rate` a second, Poisson."""

    def closed(self, callers: int, seconds: float) -> Run:
        """Have so many callers ask, back to back."""

    def saturated(self, callers: int, seconds: float, guess: float) -> Run:
        """Have so many callers ask, with the quickest client there is."""


class Course:
    """Goes through scenarios, and keeps what is void."""

    def __init__(self, loads: Loads, size: Size, *, bound_ms: float, tell: Tell) -> None:
        self._loads = loads
        self._size = size
        self._bound_ms = bound_ms
        self._tell = tell
        self._guess = 0.0
        self._capacity = 0.0
        self.voided: list[Voided] = []
        # Points that no try made count.
        self.given_up = 0

    def go(self, chosen: Sequence[Scenario]) -> Scenarios:
        """Measure the chosen scenarios, those first that the others' rates follow from."""
        self._warm_up()
        return Scenarios(
            single_stream=self._single() if "single-stream" in chosen else None,
            offline=self._offline() if "offline" in chosen else None,
            callers=self._callers() if "callers" in chosen else None,
            rates=self._rates() if "rates" in chosen else None,
            server=self._server() if "server" in chosen else None,
        )

    def _warm_up(self) -> None:
        run = self._loads.closed(min(_WARM_CALLERS, self._size.callers), self._size.seconds / 2)
        runs.expect_requests(run)
        run = self._loads.closed(self._size.callers, self._size.seconds / 2)
        self._guess = run.answered
        self._tell(f"warm-up: {run.answered:g} a second from {self._size.callers} callers")

    def _single(self) -> SingleStream:
        run = self._loads.closed(1, self._size.seconds)
        self._say("single-stream", run)
        return SingleStream(p90_ms=run.latency.p90_ms, run=run)

    def _offline(self) -> Offline:
        found = []
        for _ in range(self._size.rounds):
            found.append(self._saturated())
            self._say("offline", found[-1])
        self._capacity = median(run.answered for run in found)
        samples = spread([run.samples for run in found])
        return Offline(samples=samples, callers=self._size.callers, runs=tuple(found))

    def _saturated(self) -> Run:
        run = self._loads.saturated(self._size.callers, self._size.seconds, self._guess)
        self._guess = max(run.answered, 1.0)
        return run

    def _callers(self) -> Sweep:
        counts, count = [], 1
        while count < self._size.callers:
            counts.append(count)
            count *= 2
        found = []
        for count in [*counts, self._size.callers]:
            found.append(self._loads.closed(count, self._size.seconds))
            self._say("callers", found[-1])
        return Sweep(points=tuple(found))

    def _rates(self) -> Sweep:
        capacity, found = self.capacity(), []
        for share in self._size.shares:
            run = self._open("rates", share * capacity)
            if run.void:
                self.given_up += 1
            else:
                found.append(run)
        return Sweep(points=tuple(found))

    def capacity(self) -> float:
        """Return how many requests a second saturate the target, from `offline` where that was measured."""
        if not self._capacity:
            run = self._saturated()
            runs.expect_requests(run)
            self._capacity = run.answered
            self._tell(f"saturated: {run.answered:g} a second")
        return self._capacity

    def _server(self) -> Server:
        bounds, tried = Bounds(0.0, self.capacity()), []
        while (rate := search.following(bounds)) is not None:
            tried.append(self._open("server", rate))
            bounds = search.learnt(bounds, rate, search.fault(tried[-1], self._bound_ms))
        rate, why = bounds.low, bounds.why
        verified: list[Run] = []
        for _ in range(search.ROUNDS_MAX if rate else 0):
            verified = self._verified(rate)
            fault = search.fault(verified[-1], self._bound_ms)
            if fault is None:
                return self._found(rate, why, tried, verified)
            tried += verified
            why, rate, verified = fault, search.LOWER * rate, []
        return self._found(0.0, why, tried, verified)

    def _found(self, rate: float, why: search.Why, tried: Sequence[Run], verified: Sequence[Run]) -> Server:
        return Server(
            bound_ms=self._bound_ms,
            rate=runs.short(rate),
            samples=runs.short(median(run.samples for run in verified)) if verified else 0.0,
            limited_by=why,
            searched=tuple(tried),
            verified=tuple(verified),
        )

    def _verified(self, rate: float) -> list[Run]:
        """Return runs at `rate`, the last of which may not keep the bound; then there are no more."""
        found: list[Run] = []
        while len(found) < search.VERIFICATIONS:
            found.append(self._open("server", rate))
            if search.fault(found[-1], self._bound_ms) is not None:
                break
        return found

    def _open(self, scenario: Scenario, rate: float) -> Run:
        seconds = self._size.seconds
        seconds = min(max(seconds, _REQUESTS_MIN / rate), _LONGER_MAX * seconds)

        def make() -> Run:
            run = self._loads.open(rate, seconds)
            self._say(scenario, run)
            return run

        return runs.attempted(make, lambda run: self.voided.append(Voided(scenario=scenario, run=run)))

    def _say(self, scenario: Scenario, run: Run) -> None:
        self._tell(f"{scenario}: {line(run)}")


def line(run: Run) -> str:
    """Return a run in a line for people."""
    callers = f"{run.callers} caller{'' if run.callers == 1 else 's'}"
    how = callers if run.rate is None else f"{run.rate:g} a second"
    if run.void:
        return f"{how}: void, {run.void}"
    took = run.latency
    parts = [
        f"{run.answered:g} answered a second",
        f"p50 {took.p50_ms:g}, p90 {took.p90_ms:g}, p99 {took.p99_ms:g} ms",
        *([f"{run.failed} of {run.requests} failed"] if run.failed else []),
        *([f"{run.cpu_us:g} us of processor a request"] if run.cpu_us is not None else []),
    ]
    return f"{how}: {'; '.join(parts)}"


def checks(found: Scenarios, *, given_up: int) -> list[Check]:
    """Return whether what was measured may be believed, and whether the server's rate was verified."""
    counted = [
        *([found.single_stream.run] if found.single_stream else ()),
        *(found.offline.runs if found.offline else ()),
        *(found.callers.points if found.callers else ()),
        *(found.rates.points if found.rates else ()),
        *(found.server.verified if found.server else ()),
    ]
    failed = sum(run.failed for run in counted)
    promised = [
        Check(name="failed requests", value=failed, goal="= 0", ok=failed == 0),
        Check(name="points given up: the generator lagged twice", value=given_up, goal="= 0", ok=given_up == 0),
    ]
    if found.server is not None:
        kept = len(found.server.verified)
        name = f"server: runs at its rate with p99 within {found.server.bound_ms:g} ms"
        goal = f"= {search.VERIFICATIONS}"
        promised.append(Check(name=name, value=kept, goal=goal, ok=kept == search.VERIFICATIONS))
    return promised
