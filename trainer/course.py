"""One process under way: what it has counted so far, what it proved, and whether that is still so. Pure.

All of it follows from rows of the chain in their order, so that it is the same after a restart. What is kept of a
record that the watermark passed is three numbers, for as long as its process lasts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.promise import Promise
from gateway.samples import HISTOGRAM_BINS, ClosingRow
from trainer import drift
from trainer.certificate import Evidence, Floats, State, advance, begin, begin_bound, bound, certified, narrow, walk
from trainer.drift import Drift
from trainer.rows import CertificateRow, ProcessRow
from trainer.watermark import Counted, evidence, scored_for

# So many requests are compared at a time, and with so many at least: those that it was proved on or, of a version that
# was proved before it answered, the first that it answered.
_HISTOGRAM_REQUESTS: Final = 2_000
# Records that do not say what this version thinks, by the same rules, count as its errors; with so many of them it is
# begun anew.
_FOREIGN_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A threshold that was proved: `tau` holds from `begin_second` on; see `trainer.certificate.Certificate`."""

    name: str
    tau: float
    begin_second: int
    log_evidence: float
    audits: int
    digest: str


@dataclass(slots=True, kw_only=True, eq=False)
class Course:
    """A process and what came of it; `number` counts the model's processes from 1.

    `audits` and `errors` are by threshold (counted once each, whatever their weight), `weights` and `wrong` the same by
    weight: what is reviewed more often than other requests weighs less. `closed` are all requests of the model in its
    seconds, of every segment. `before` and `recent` count confidences, in seconds in which its version answered.
    `revoked`: an alarm ended it.
    """

    row: ProcessRow
    number: int
    state: State
    audits: NDArray[np.int64]
    errors: NDArray[np.int64]
    weights: Floats
    wrong: Floats
    steps: list[Step] = field(default_factory=list)
    shown: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    closed: int = 0
    foreign: int = 0
    revoked: bool = False
    raised: bool = False
    drift: Drift = field(default_factory=drift.calm)
    before: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    recent: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    _kept: tuple[array[float], array[float], array[float]] = field(
        default_factory=lambda: (array("d"), array("d"), array("d"))
    )
    _bound: tuple[float, State, int] | None = None
    _own: float = 0.0
    _all: float = 0.0

    @property
    def promise(self) -> Promise:
        """What it is to prove."""
        return Promise(alpha=self.row.alpha, delta=self.row.delta)

    @property
    def grid(self) -> Floats:
        """Its thresholds, strictest first."""
        return np.array(self.row.grid)

    @property
    def expire_second(self) -> int:
        """From then on what it proved is over."""
        return self.row.last_second + 1

    @property
    def standing(self) -> Step | None:
        """Return what it proved last, unless an alarm took it back."""
        return self.steps[-1] if self.steps and not self.revoked else None

    @property
    def stale(self) -> bool:
        """Whether other versions, or other rules, answered in its time, so that it stands worse than one begun anew."""
        return self.foreign >= _FOREIGN_MAX

    @property
    def proved(self) -> int:
        """The place of the loosest certified threshold, counted from 1 at the strictest; 0: none."""
        return int(certified(self.state, self.row.delta, self.row.shares))

    @property
    def walked(self) -> tuple[NDArray[np.bool_], Floats]:
        """Which thresholds are certified, and the ln K that each takes; see `trainer.certificate.walk`."""
        return walk(self.state, self.row.delta, self.row.shares)

    @property
    def main(self) -> int:
        """The place of the threshold that has most of delta."""
        return self.row.shares.index(max(self.row.shares)) if self.row.shares else 0

    @property
    def open(self) -> list[int]:
        """The places behind the loosest certified threshold that may be certified next, strictest first."""
        held, _ = self.walked
        shares = self.row.shares or (1.0,)
        begun = {place for place, share in enumerate(shares) if share > 0}
        return [
            place
            for place in range(self.proved, len(self.row.grid))
            if place in begun or (place > 0 and held[place - 1])
        ]

    @property
    def requests(self) -> int:
        """How many requests of its segment came in its seconds: of all, the share that its reviewed ones stand for."""
        if not self._all:
            return 0 if self.row.segment else self.closed
        return round(self.closed * self._own / self._all)

    def tau_at(self, second: int) -> float | None:
        """Return the threshold that held at `second` by what was proved before it; None: none, or it was over."""
        if second >= self.expire_second:
            return None
        return next((step.tau for step in reversed(self.steps) if step.begin_second <= second), None)

    def take(self, counted: Sequence[Counted]) -> None:
        """Count what the watermark passed."""
        for each in counted:
            record = each.record
            if record is not None and record.drawn and self.row.first_second <= each.second <= self.row.last_second:
                self._all += 1 / record.q
                self._own += (record.segment == self.row.segment) / record.q
        found = evidence(counted, self.row)
        if not len(found.weight):
            return
        self.state = advance(self.state, found, self.grid, self.row.alpha)
        above = found.confidence[:, np.newaxis] >= self.grid
        self.audits += above.sum(axis=0)
        self.errors += (above & (found.error[:, np.newaxis] > 0)).sum(axis=0)
        self.weights += found.weight @ above
        self.wrong += (found.weight * found.error) @ above
        chosen = found.confidence >= self.row.grid[-1]
        for kept, column in zip(self._kept, (found.confidence, found.weight, found.error), strict=True):
            kept.extend(column[chosen].tolist())
        self.foreign += sum(self._unknown(each) for each in counted)

    def alarmed(self, counted: Sequence[Counted]) -> bool:
        """Watch what was answered automatically, or would have been, by what it proved; True: not as promised."""
        if self.revoked or not self.steps:
            return False
        found = [pair for pair in (self._audit(each) for each in counted) if pair is not None]
        columns = np.array(found, np.float64).reshape(-1, 2)
        self.drift = drift.watch(self.drift, columns[:, 0], columns[:, 1], self.row.alpha)
        return bool(drift.alarmed(self.drift))

    def close(self, row: ClosingRow, version: str) -> None:
        """Take in what a gateway, where `version` answered, says of a second that the watermark passed."""
        if not self.row.first_second <= row.second <= self.row.last_second:
            return
        self.closed += row.eligible
        if len(row.histogram) != HISTOGRAM_BINS or version != self.row.version:
            return
        if not self.steps or self.before.sum() < _HISTOGRAM_REQUESTS:
            self.before += row.histogram
            return
        self.recent += row.histogram
        if self.recent.sum() >= _HISTOGRAM_REQUESTS:
            self.raised = drift.raised_share(0.0, self.before.tolist(), self.recent.tolist(), raised=1.0) > 0
            self.recent[:] = 0

    def certify(self, row: CertificateRow, *, passed: int, digest: str) -> None:
        """Take in a row that says what it proved."""
        self.shown.append((passed, row.log_evidence))
        if row.tau is None or (self.steps and self.steps[-1].tau == row.tau):
            return
        place = self.row.grid.index(row.tau)
        self.steps.append(
            Step(
                name=f"{self.row.epoch}.{len(self.steps) + 1}",
                tau=row.tau,
                begin_second=passed + 1,
                log_evidence=row.log_peaks[place],
                audits=int(self.audits[place]),
                digest=digest,
            )
        )

    def error_bound(self) -> float | None:
        """Return an upper bound on the share of wrong answers at its newest threshold; None where it proved none.

        Which threshold that is these records said themselves, so that all of the grid share delta. That the share is at
        most alpha is what was proved, whatever a bound for all of them comes to.
        """
        if not self.steps:
            return None
        tau = self.steps[-1].tau
        if self._bound is None or self._bound[0] != tau:
            self._bound = (tau, begin_bound(), 0)
        _, state, done = self._bound
        confidence, weight, error = (np.array(column[done:]) for column in self._kept)
        any_of_them = replace(self.promise, delta=self.row.delta / len(self.row.grid))
        state = narrow(state, Evidence(confidence=confidence, weight=weight, error=error), tau, any_of_them)
        self._bound = (tau, state, len(self._kept[0]))
        return min(self.row.alpha, bound(state, any_of_them))

    def _audit(self, counted: Counted) -> tuple[float, float] | None:
        """Return (weight, error) of an audit in the automatic region that somebody looked at."""
        record, label = counted.record, counted.label
        tau = self.tau_at(counted.second)
        if record is None or tau is None or label is None or not label.reviewed or not record.drawn:
            return None
        scored = scored_for(record, self.row)
        if scored is None or record.segment != self.row.segment or not scored.eligible or scored.confidence < tau:
            return None
        return record.floor / record.q, float(counted.error(self.row.version))

    def _unknown(self, counted: Counted) -> bool:
        record = counted.record
        if record is None or not self.row.first_second <= counted.second <= self.row.last_second:
            return False
        return scored_for(record, self.row) is None


def set_out(row: ProcessRow, number: int) -> Course:
    """Return a process at its beginning."""
    size = len(row.grid)
    return Course(
        row=row,
        number=number,
        state=begin(size),
        audits=np.zeros(size, np.int64),
        errors=np.zeros(size, np.int64),
        weights=np.zeros(size),
        wrong=np.zeros(size),
    )
