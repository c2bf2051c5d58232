"""Two gateways, many runs at once, with late labels, holes, crashes and clocks that differ.

Axes: run, gateway, second (by that gateway's own clock), request. Time goes in ticks of one second; a gateway whose
clock is fast writes `tick + skew`. Only what needs arrays is written again here; `replay` sends a run through the
library's own watermark, row by row, to show that both say the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.promise import Promise
from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored
from tests.statistics.simulation import Bands, Floats
from trainer.certificate import Evidence, State, advance, begin, certified
from trainer.rows import LabelRow, LostRow, ProcessRow
from trainer.watermark import Arrival, Pending, arrive, count, evidence

GATEWAYS, EACH, TICKS = 2, 5, 400
NEVER = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong; times in seconds. Errors take ten times as long as the rest.

    `down_seconds`: the first gateway is killed and comes back with its spool after that; `lost`: the second one is
    killed and its disk is gone, which is known 20 seconds later, when a new one takes its place.
    """

    label_seconds: float = 5.0
    sla_seconds: int = 120
    never_share: float = 0.0
    hole_share: float = 0.0
    skew: int = 0
    down_seconds: int = 0
    lost: bool = False


class Fleet:
    """One scenario under way."""

    def __init__(
        self, *, bands: Bands, promise: Promise, audit_share: float, trouble: Trouble, runs: int, seed: int
    ) -> None:
        self.bands, self.promise, self.audit_share = bands, promise, audit_share
        self.trouble, self.runs = trouble, runs
        rng = self.rng = np.random.default_rng(seed)
        shape = (self.runs, GATEWAYS, TICKS + self.trouble.skew + 1, EACH)
        self.skews = np.array([0, self.trouble.skew])
        self.confidence = np.zeros(shape)
        self.error = np.zeros(shape)
        self.q, self.floor, self.draw = np.ones(shape), np.ones(shape), np.ones(shape)
        self.known = np.full(shape, NEVER)
        self.served = np.zeros(shape, np.bool_)
        self.came = np.zeros(shape, np.bool_)
        self.sampled = np.zeros(shape, np.bool_)
        self.ready = np.zeros(shape[:3], np.intp)
        self.watermark = np.full(self.runs, -1)
        self.state = begin(len(self.bands.risk), (self.runs,))
        self.killed = rng.integers(60, 300, (self.runs, GATEWAYS))
        self.history: list[NDArray[np.intp]] = []

    def run(self) -> State:
        """Go through all ticks and until everything has passed."""
        for tick in range(self.ticks):
            self._pass(tick)
            self.history.append(self.watermark.copy())
            if tick < TICKS:
                self._serve(tick)
        return self.state

    @property
    def ticks(self) -> int:
        """Until every label's time is over and everybody is back."""
        return TICKS + self.trouble.sla_seconds + self.trouble.skew + 5

    def _down(self, tick: int) -> NDArray[np.bool_]:
        """Return who serves nothing in this tick, by run and gateway."""
        since = tick - self.killed
        away = np.array([self.trouble.down_seconds, 20 if self.trouble.lost else 0])
        return (since >= 0) & (since < away)

    def _serve(self, tick: int) -> None:
        rng, trouble, every = self.rng, self.trouble, (self.runs, GATEWAYS, EACH)
        flat = self.bands.stream(rng, self.runs, GATEWAYS * EACH)
        confidence, error = (values.reshape(every) for values in flat)
        held = certified(self.state, self.promise.delta)
        steps = np.concatenate([[np.inf], self.bands.thresholds])
        q = np.where(confidence >= steps[held][:, np.newaxis, np.newaxis], self.audit_share, 1.0)
        latency = np.ceil(rng.exponential(trouble.label_seconds, every) * np.where(error, 10, 1)).astype(np.intp)
        latency[rng.random(every) < trouble.never_share] = NEVER
        served = np.broadcast_to(~self._down(tick)[..., np.newaxis], every)
        came = served & (rng.random(every) >= trouble.hole_share)
        draw = self.draws(tick)
        for gateway in range(GATEWAYS):
            at, here = np.s_[:, gateway, tick + self.skews[gateway]], np.s_[:, gateway]
            self.confidence[at], self.error[at], self.q[at] = confidence[here], error[here], q[here]
            self.floor[at] = np.where(held > 0, self.audit_share, 1.0)[:, np.newaxis]
            self.draw[at], self.known[at] = draw[here], tick + latency[here]
            self.served[at], self.came[at] = served[here], came[here]
            self.ready[at] = self._ready(tick, gateway)

    def draws(self, tick: int) -> Floats:
        """Return the numbers drawn in a tick, by run, gateway and request."""
        assert tick < TICKS
        return self.rng.random((self.runs, GATEWAYS, EACH))

    def closed(self, tick: int, gateway: int) -> NDArray[np.intp]:
        """Return when a gateway closes the second of this tick, NEVER if it dies before with its disk; by run."""
        # A second is closed in the next but one.
        since, closed = tick - self.killed[:, gateway], np.full(self.runs, tick + 2)
        if gateway == 0 and self.trouble.down_seconds:
            back = self.killed[:, gateway] + self.trouble.down_seconds + 2
            closed = np.where((since >= -2) & (since < self.trouble.down_seconds), back, closed)
        if gateway == 1 and self.trouble.lost:
            closed = np.where((since >= -2) & (since < 20), NEVER, closed)
        return closed

    def _ready(self, tick: int, gateway: int) -> NDArray[np.intp]:
        """Return the tick from which on nothing about a second can change, by run."""
        second = tick + self.skews[gateway]
        at = np.s_[:, gateway, second]
        drawn = self.served[at] & (self.draw[at] < self.q[at])
        over = second + self.trouble.sla_seconds + 1
        waits = np.where(drawn, np.where(self.came[at], np.minimum(self.known[at], over), over), 0).max(axis=1)
        closed = self.closed(tick, gateway)
        gone = closed == NEVER
        self.sampled[at] = drawn
        self.served[at] &= ~gone[:, np.newaxis]
        declared = self.killed[:, gateway] + 20
        return np.where(gone, declared, np.maximum(waits, closed))

    def _pass(self, tick: int) -> None:
        """Count every second that can be passed now: eight at a time while there are as many, then one by one."""
        last = min(tick, TICKS) - 1
        for width in (8, 1):
            while True:
                runs = np.flatnonzero(self.watermark + width <= last)
                seconds = self.watermark[runs, np.newaxis] + np.arange(1, width + 1)
                over = (self.ready[runs[:, np.newaxis], :, seconds] <= tick).all(axis=(1, 2))
                runs, seconds = runs[over], seconds[over]
                if not len(runs):
                    break
                part = State(logs=self.state.logs[runs], peaks=self.state.peaks[runs])
                found = self._evidence(runs, seconds, tick)
                part = advance(part, found, self.bands.thresholds, self.promise.alpha)
                self.state.logs[runs], self.state.peaks[runs] = part.logs, part.peaks
                self.watermark[runs] += width

    def _evidence(self, runs: NDArray[np.intp], seconds: NDArray[np.intp], tick: int) -> Evidence:
        """Return some seconds of each of `runs`: for each gateway what never came, then what did."""
        # Axes: run, second, gateway, request.
        at = (runs[:, np.newaxis], slice(None), seconds)
        drawn = self.served[at] & (self.draw[at] < self.q[at])
        error = np.where(self.known[at] <= tick, self.error[at], 1.0)
        weight = np.where(drawn & self.came[at], self.floor[at] / self.q[at], 0.0)
        columns = [self.confidence[at], weight, error]
        if self.trouble.hole_share:
            hole = (drawn & ~self.came[at]).astype(np.float64)
            lost = (np.full(hole.shape, np.inf), hole, hole)
            columns = [np.concatenate(pair, axis=3) for pair in zip(lost, columns, strict=True)]
        confidence, weight, error = (column.reshape(len(runs), -1) for column in columns)
        return Evidence(confidence=confidence, weight=weight, error=error)


def arrivals(fleet: Fleet, run: int) -> dict[int, list[Arrival]]:
    """Return what the ledger gets in each tick of a run that is over: labels, closings and so on, then new records."""
    early: dict[int, list[Arrival]] = defaultdict(list)
    late: dict[int, list[Arrival]] = defaultdict(list)
    early[0] = [JoinRow(second=0, gateway="a"), JoinRow(second=fleet.trouble.skew, gateway="b")]
    killed = int(fleet.killed[run, 1])
    if fleet.trouble.lost:
        joined = killed + 20 + fleet.trouble.skew
        early[killed + 20] = [LostRow(gateway="b"), JoinRow(second=joined, gateway="b2")]
    for gateway in range(GATEWAYS):
        for tick in range(TICKS):
            second = tick + int(fleet.skews[gateway])
            name = "ab"[gateway] + ("2" if gateway and fleet.trouble.lost and tick >= killed + 20 else "")
            at = run, gateway, second
            drawn = np.flatnonzero(fleet.sampled[at])
            closed = int(fleet.closed(tick, gateway)[run])
            if closed < NEVER:
                row = ClosingRow(
                    second=second, gateway=name, eligible=EACH, answered=0, sampled=len(drawn), histogram=()
                )
                early[closed].append(row)
            for number in drawn:
                if fleet.came[at][number]:
                    late[tick].append(_record(fleet, at, int(number), name))
                    label = LabelRow(
                        second=second,
                        gateway=name,
                        counter=tick * EACH + int(number),
                        truth="1",
                        wrong=("1",) if fleet.error[at][number] else (),
                    )
                    early[int(fleet.known[at][number])].append(label)
    return {tick: [*early[tick], *late[tick]] for tick in range(fleet.ticks)}


def request_key(gateway: int, tick: int, number: int) -> str:
    """Return what a replay calls a request."""
    return f"client/{gateway}.{tick}.{number}"


def _record(fleet: Fleet, at: tuple[int, int, int], number: int, gateway: str) -> SampledRecord:
    scored = Scored(
        version="1", scorer="margin", confidence=float(fleet.confidence[at][number]), prediction="0", eligible=True
    )
    tick = at[2] - int(fleet.skews[at[1]])
    return SampledRecord(
        second=at[2],
        gateway=gateway,
        counter=tick * EACH + number,
        model="m",
        epoch="1",
        segment="",
        request_key=request_key(at[1], tick, number),
        q=float(fleet.q[at][number]),
        floor=float(fleet.floor[at][number]),
        draw=float(fleet.draw[at][number]),
        scored=(scored,),
    )


def process_of(fleet: Fleet) -> ProcessRow:
    """Return what a replay judges."""
    return ProcessRow(
        epoch="1",
        version="1",
        scorer="margin",
        segment="",
        alpha=fleet.promise.alpha,
        delta=fleet.promise.delta,
        grid=tuple(fleet.bands.thresholds.tolist()),
        first_second=0,
        last_second=TICKS - 1,
    )


def replay(fleet: Fleet, run: int) -> tuple[State, list[int]]:
    """Send a run that is over through the library, row by row; returns the state and the watermark after each tick."""
    process = process_of(fleet)
    pending, passed = Pending(), list[int]()
    state = begin(len(process.grid))
    for rows in arrivals(fleet, run).values():
        early = [row for row in rows if not isinstance(row, SampledRecord)]
        pending = arrive(pending, early)
        pending, counted = count(pending, reached=len(passed), sla_seconds=fleet.trouble.sla_seconds)
        state = advance(state, evidence(counted, process), fleet.bands.thresholds, process.alpha)
        passed.append(pending.passed)
        pending = arrive(pending, [row for row in rows if isinstance(row, SampledRecord)])
    return state, passed
