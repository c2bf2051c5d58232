"""Computes certificates again from the ledger alone, and names the first row that does not fit.

Theory of operation. This is written a second time, on purpose: loops over numbers in place of arrays, one pass in the
order of the chain in place of a state kept between visits. It shares with the rest of the system only what a row looks
like and the draw itself. What it checks of a row it checks when it comes to it, so what it names is the first row that
differs: its digest; that a rule was fixed before what it judges, and promises what can be promised; that gateways close
their seconds in order; that the watermark passed only what it may; that ln sup K and tau are what the rows before say.
Draws can be checked from the row on that reveals an epoch's secret; until then `unrevealed` names the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from math import exp, inf, isfinite, log, log1p
from typing import Final, TypeVar, assert_never

from fallback.errors import InvalidError
from gateway.policy import draw
from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord
from trainer.rows import (
    CertificateRow,
    EpochRow,
    LabelRow,
    Link,
    LostRow,
    ProcessRow,
    RevealRow,
    Row,
    WatermarkRow,
    decode,
)

_STAKES: Final = (0.1, 0.25, 0.45, 0.65, 0.8, 0.92)
_LARGE: Final = 490.0
# What alpha and delta may be at most (`gateway.promise`).
_RISK_MAX: Final = 0.5
_K = TypeVar("_K")
_V = TypeVar("_V")
# Sums in another order differ by this much and no more.
_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of a check: `place` (from 0) and `reason` of the first row that differs, None and "" if all agree.

    `processes` are those that began before it: what each promises only their rows say.
    """

    place: int | None
    reason: str
    rows: int
    records: int
    certificates: int
    unrevealed: tuple[str, ...]
    processes: tuple[ProcessRow, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every row is what the rows before it say."""
        return self.place is None


class _DiffersError(Exception):
    """The row at hand does not fit; `place` where an earlier one is to blame."""

    def __init__(self, reason: str, place: int | None = None) -> None:
        super().__init__(reason)
        self.place = place


@dataclass(slots=True, kw_only=True, eq=False)
class _Gateway:
    first: int
    closed: int
    live: bool = True
    lost: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    row: ProcessRow
    logs: list[list[float]]
    peaks: list[float]


@dataclass(slots=True, kw_only=True, eq=False)
class _Pass:
    """One walk over a model's rows."""

    model: str
    passed: int = -1
    newest: int = -1
    records: int = 0
    certificates: int = 0
    sla_seconds: int = 0
    epochs: dict[str, EpochRow] = field(default_factory=dict)
    draws: dict[str, list[tuple[int, str, float]]] = field(default_factory=dict)
    gateways: dict[str, _Gateway] = field(default_factory=dict)
    # By second: what waits to be counted. `seconds` is a heap of those that hold anything.
    waiting: dict[int, dict[Place, SampledRecord]] = field(default_factory=dict)
    labels: dict[int, dict[Place, LabelRow]] = field(default_factory=dict)
    closings: dict[int, dict[str, ClosingRow]] = field(default_factory=dict)
    seconds: list[int] = field(default_factory=list)
    keys: dict[str, set[str]] = field(default_factory=dict)
    processes: dict[tuple[str, str, str], _Process] = field(default_factory=dict)

    def take(self, place: int, row: Row) -> None:
        match row:
            case SampledRecord():
                self._sampled(place, row)
            case LabelRow():
                if row.second > self.passed:
                    self._at(self.labels, row.second).setdefault(row.place, row)
            case ClosingRow() | JoinRow() | LostRow():
                self._seconds(row)
            case WatermarkRow():
                self._watermark(row)
            case CertificateRow():
                self._certificate(row)
            case EpochRow() | ProcessRow() | RevealRow():
                self._declared(row)
            case _:
                assert_never(row)

    def _seconds(self, row: ClosingRow | JoinRow | LostRow) -> None:
        match row:
            case ClosingRow():
                self._closing(row)
            case JoinRow():
                if row.gateway not in self.gateways:
                    first = max(row.second, self.passed + 1)
                    self.gateways[row.gateway] = _Gateway(first=first, closed=first - 1)
            case LostRow():
                self._lost(row)

    def _declared(self, row: EpochRow | ProcessRow | RevealRow) -> None:
        match row:
            case EpochRow():
                if row.epoch in self.epochs:
                    raise _DiffersError(f"epoch {row.epoch} begins twice")
                self.epochs[row.epoch] = row
                self.draws[row.epoch] = []
                self.sla_seconds = row.sla_seconds
            case ProcessRow():
                self._process(row)
            case RevealRow():
                self._reveal(row)

    def _sampled(self, place: int, row: SampledRecord) -> None:
        if row.model != self.model or row.epoch not in self.draws:
            raise _DiffersError(f"a record of model {row.model}, epoch {row.epoch}, which did not begin or is over")
        if not 0 < row.floor <= row.q <= 1 or not 0 <= row.draw < 1:
            raise _DiffersError(f"expected 0 < floor <= q <= 1 and a draw in [0, 1): {row.floor}, {row.q}, {row.draw}")
        if not all(isfinite(scored.confidence) for scored in row.scored):
            raise _DiffersError("a confidence that is no number")
        self.records += 1
        self.draws[row.epoch].append((place, row.request_key, row.draw))
        self.newest = max(self.newest, row.second)
        if row.second <= self.passed:
            return
        gateway = self._gateway(row.gateway)
        if row.second >= gateway.first and not (gateway.lost and row.second > gateway.closed):
            self._at(self.waiting, row.second).setdefault(row.place, row)

    def _closing(self, row: ClosingRow) -> None:
        if row.second <= self.passed:
            return
        gateway = self._gateway(row.gateway)
        if gateway.lost:
            return
        if row.second <= gateway.closed:
            raise _DiffersError(f"{row.gateway} closes second {row.second} after second {gateway.closed}")
        gateway.closed, gateway.live = row.second, not row.final
        self._at(self.closings, row.second)[row.gateway] = row

    def _lost(self, row: LostRow) -> None:
        gateway = self._gateway(row.gateway)
        gateway.live, gateway.lost = False, True
        for second, here in self.waiting.items():
            for place in [place for place in here if place[1] == row.gateway and second > gateway.closed]:
                del here[place]

    def _process(self, row: ProcessRow) -> None:
        if row.first_second <= max(self.newest, self.passed):
            raise _DiffersError(f"a process that begins at {row.first_second}, when records of it were already there")
        if not row.grid or any(strict <= loose for strict, loose in zip(row.grid, row.grid[1:], strict=False)):
            raise _DiffersError("a grid that does not go from the strictest threshold to the loosest")
        for name, value in (("alpha", row.alpha), ("delta", row.delta)):
            if not 0 < value <= _RISK_MAX:
                raise _DiffersError(f"a process with {name} {value}: expected above 0 and at most {_RISK_MAX}")
        if row.shares and (
            len(row.shares) != len(row.grid)
            or not row.shares[0] > 0
            or not min(row.shares) >= 0
            or not sum(row.shares) <= 1 + _TOLERANCE
        ):
            raise _DiffersError("shares of delta that are not one for each threshold, or more than delta")
        key = row.epoch, row.version, row.segment
        if key in self.processes:
            raise _DiffersError(f"process {key} begins twice")
        logs = [[0.0] * len(_STAKES) for _ in row.grid]
        self.processes[key] = _Process(row=row, logs=logs, peaks=[0.0] * len(row.grid))

    def _watermark(self, row: WatermarkRow) -> None:
        closed = [gateway.closed for gateway in self.gateways.values() if gateway.live]
        ended = [gateway.closed for gateway in self.gateways.values()]
        last = min(closed) if closed else max(ended, default=-1)
        if not self.passed < row.second <= last:
            raise _DiffersError(f"the watermark goes from {self.passed} to {row.second}; gateways closed {last}")
        while self.seconds and self.seconds[0] <= row.second:
            self._pass(heappop(self.seconds), row.reached)
        self.passed = row.second

    def _at(self, kept: dict[int, dict[_K, _V]], second: int) -> dict[_K, _V]:
        """Return what is kept of a second, which from now on waits to be passed."""
        if not any(second in each for each in (self.waiting, self.labels, self.closings)):
            heappush(self.seconds, second)
        return kept.setdefault(second, {})

    def _pass(self, second: int, reached: int) -> None:
        """Check that nothing of a second is still due, then count it, gateway by gateway."""
        waiting, labels = self.waiting.pop(second, {}), self.labels.pop(second, {})
        closings = self.closings.pop(second, {})
        early = reached <= second + self.sla_seconds
        before: set[tuple[str, str]] = set()
        for place in sorted(waiting):
            record = waiting[place]
            key = record.epoch, record.request_key
            # What is counted already has a factor of 1, whatever its label may say.
            again = key in before or record.request_key in self.keys.get(record.epoch, ())
            before.add(key)
            if early and record.drawn and place not in labels and not again:
                raise _DiffersError(f"the watermark passes {place}, whose label is still due")
        for gateway in sorted({*closings, *(place[1] for place in waiting)}):
            here = sorted(place for place in waiting if place[1] == gateway)
            holes = (closings[gateway].sampled if gateway in closings else 0) - len(here)
            if holes < 0 or (holes > 0 and early):
                raise _DiffersError(f"the watermark passes second {(second, gateway)}, which lacks {holes} records")
            for process in self.processes.values():
                if process.row.first_second <= second <= process.row.last_second:
                    for _ in range(holes):
                        _multiply(process, inf, 1.0, 1.0)
            for place in here:
                self._count(place, waiting[place], labels.get(place))

    def _count(self, place: Place, record: SampledRecord, label: LabelRow | None) -> None:
        keys = self.keys.setdefault(record.epoch, set())
        if record.request_key in keys:
            return
        keys.add(record.request_key)
        if label is not None and label.truth is not None and self.epochs[record.epoch].exact:
            wrong = sorted({scored.version for scored in record.scored if scored.prediction != label.truth})
            if sorted(label.wrong) != wrong:
                raise _DiffersError(
                    f"{place}: its label says that {label.wrong} were wrong, its truth that {wrong} were"
                )
        if record.drawn:
            for process in self.processes.values():
                _apply(process, record, label)

    def _certificate(self, row: CertificateRow) -> None:
        process = self.processes.get((row.epoch, row.version, row.segment))
        if process is None:
            raise _DiffersError(f"a certificate of epoch {row.epoch}, version {row.version}, which has no process")
        self.certificates += 1
        now = [_log_evidence(logs) for logs in process.logs]
        for name, told, values in (("sup K", row.log_peaks, process.peaks), ("K", row.log_evidence, now)):
            if len(told) != len(values):
                raise _DiffersError(f"ln {name}: expected {len(values)} thresholds, got {len(told)}")
            for threshold, said, found in zip(process.row.grid, told, values, strict=True):
                if abs(said - found) > _TOLERANCE * max(1.0, abs(found)):
                    raise _DiffersError(f"ln {name} at {threshold}: the row says {said}, its records say {found}")
        tau, level, goes_on = None, 0.0, False
        shares = process.row.shares or (1.0, *[0.0] * (len(process.row.grid) - 1))
        for threshold, share, said in zip(process.row.grid, shares, row.log_peaks, strict=True):
            # What the threshold before was certified at goes on to this one, else it has its own share alone.
            level = (level if goes_on else 0.0) + process.row.delta * share
            goes_on = level > 0 and said >= -log(level)
            if goes_on:
                tau = threshold
        if tau != row.tau:
            raise _DiffersError(f"tau: the row says {row.tau}, its evidence says {tau}")

    def _reveal(self, row: RevealRow) -> None:
        if row.epoch not in self.draws:
            raise _DiffersError(f"the secret of epoch {row.epoch}, which did not begin or is over")
        secret = bytes.fromhex(row.secret)
        if sha256(b"demur draw 1\0" + secret).hexdigest() != self.epochs[row.epoch].commitment:
            raise _DiffersError(f"the secret of epoch {row.epoch} is not the one it was begun with")
        for place, key, said in self.draws.pop(row.epoch):
            due = draw(secret, model=self.model, epoch=row.epoch, request_key=key)
            if said != due:
                raise _DiffersError(f"request {key!r} had draw {due}, the row says {said}", place)
        self.keys.pop(row.epoch, None)

    def _gateway(self, name: str) -> _Gateway:
        if name not in self.gateways:
            raise _DiffersError(f"gateway {name} did not join")
        return self.gateways[name]


def verify(model: str, links: Iterable[Link]) -> Finding:
    """Go through all rows of `model` from the first; never raises for what they hold, only what `links` raises."""
    walk = _Pass(model=model)
    digest = sha256(b"demur ledger 1\0" + model.encode()).digest()
    place, wrong, reason = -1, None, ""
    for place, kept in enumerate(links):
        digest = sha256(digest + kept.body).digest()
        if digest.hex() != kept.digest:
            wrong, reason = place, "the digest does not follow from the rows before"
            break
        try:
            walk.take(place, decode(kept.body))
        except (_DiffersError, InvalidError, ValueError) as error:
            wrong, reason = place, str(error)
            if isinstance(error, _DiffersError) and error.place is not None:
                wrong = error.place
            break
    return Finding(
        place=wrong,
        reason=reason,
        rows=place + 1,
        records=walk.records,
        certificates=walk.certificates,
        unrevealed=tuple(walk.draws),
        processes=tuple(process.row for process in walk.processes.values()),
    )


def _apply(process: _Process, record: SampledRecord, label: LabelRow | None) -> None:
    """Multiply the factor of one record into one process."""
    row = process.row
    if not row.first_second <= record.second <= row.last_second:
        return
    # Of another version, scorer or rule book nobody knows what it says of this one.
    mine = [
        scored
        for scored in record.scored
        if scored.version == row.version and scored.scorer == row.scorer and scored.eligibility == row.eligibility
    ]
    if not mine:
        _multiply(process, inf, 1.0, 1.0)
    elif mine[0].eligible and record.segment == row.segment:
        wrong = label is None or label.truth is None or row.version in label.wrong
        _multiply(process, mine[0].confidence, record.floor / record.q, 1.0 if wrong else 0.0)


def _multiply(process: _Process, confidence: float, weight: float, error: float) -> None:
    alpha = process.row.alpha
    for number, threshold in enumerate(process.row.grid):
        if confidence >= threshold:
            logs = process.logs[number]
            for stake, kappa in enumerate(_STAKES):
                logs[stake] += log1p(-kappa * weight * (error - alpha) / (1 - alpha))
            process.peaks[number] = max(process.peaks[number], _log_evidence(logs))


def _log_evidence(logs: list[float]) -> float:
    """Return ln K of one threshold's sums."""
    largest = max(logs)
    return min(largest + log(sum(exp(value - largest) for value in logs) / len(_STAKES)), _LARGE)
