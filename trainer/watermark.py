"""Which records count, and in which order: everything that is left when labels come late, or never, or gateways die.

Theory of operation. The proof of `trainer.certificate` wants an order that was fixed before any label was known. Labels
come in an order of their own, and where errors take people longer the early ones are too good: counted as they come,
any threshold looks safe for a while. So records count in the order (second, gateway, counter), up to a watermark, and
the watermark passes a second only when nothing about it can change any more:

- every live gateway has closed it. A gateway is live from the second it joined at until it ends or is declared lost;
- every sampled record in it that was to be reviewed blind has its label, or its time for one (SLA) is over. Then it
  counts as an error for good: a label that comes later changes nothing;
- every record that its closing row counts is there, or that same time is over. One that never came counts as an
  error at every threshold, at the head of its gateway's second, where it lowers K soonest.

A gateway that died with its spool leaves nothing to close its last seconds by. What it sampled in seconds that it had
not closed is left out whole, whatever its labels said: when a disk dies has nothing to do with whether an answer was
right, but which of its labels made it has. A gateway that died and kept its spool parks and closes when it is back.

What sets tau and p at a gateway comes from seconds that the watermark has passed; these are over at every gateway, so
it takes force in a later second, whatever the clocks say. That makes q's rule a matter of the past in this very order.

Time here is `reached`: the second up to which the stream of labels has been read. It stands still while nobody reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from fallback.errors import InvalidError
from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord
from trainer.certificate import Evidence
from trainer.rows import LabelRow, LostRow, ProcessRow

Arrival = SampledRecord | LabelRow | ClosingRow | JoinRow | LostRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One start of a gateway: the second it joined at, the last one it closed, and whether others still wait for it."""

    first: int
    closed: int
    live: bool
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One factor: a record and its label (None: an error for good); no record: one that never came."""

    second: int
    gateway: str
    record: SampledRecord | None
    label: LabelRow | None

    def error(self, version: str) -> bool:
        """Return whether `version` was wrong, as far as anybody can tell in time."""
        return self.label is None or self.label.truth is None or version in self.label.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What has arrived and is not counted yet. `passed` is the watermark, `left_out` the records that never count.

    `keys` are the epochs and request keys counted so far: in its epoch a key counts once.
    """

    passed: int = -1
    left_out: int = 0
    spans: Mapping[str, Span] = field(default_factory=dict)
    records: Mapping[Place, SampledRecord] = field(default_factory=dict)
    labels: Mapping[Place, LabelRow] = field(default_factory=dict)
    closings: Mapping[tuple[int, str], ClosingRow] = field(default_factory=dict)
    keys: frozenset[tuple[str, str]] = frozenset()


def arrive(pending: Pending, rows: Iterable[Arrival]) -> Pending:
    """Take in `rows` in the order of the chain.

    What comes twice, after its second was passed, or from a gateway that was declared lost changes nothing. Raises
    InvalidError for a gateway that closes what it never joined or goes back in time.
    """
    spans, records, labels = dict(pending.spans), dict(pending.records), dict(pending.labels)
    closings, left_out = dict(pending.closings), pending.left_out
    for row in rows:
        match row:
            case SampledRecord():
                if row.second <= pending.passed or _never_counts(_span(spans, row.gateway), row.second):
                    left_out += 1
                else:
                    records.setdefault(row.place, row)
            case LabelRow():
                if row.second > pending.passed:
                    labels.setdefault(row.place, row)
            case ClosingRow():
                if row.second > pending.passed and not _span(spans, row.gateway).lost:
                    spans[row.gateway] = _close(spans, row)
                    closings[row.second, row.gateway] = row
            case JoinRow():
                first = max(row.second, pending.passed + 1)
                spans.setdefault(row.gateway, Span(first=first, closed=first - 1, live=True))
            case LostRow():
                spans[row.gateway] = replace(_span(spans, row.gateway), live=False, lost=True)
                left_out += _leave_out(records, row.gateway, after=spans[row.gateway].closed)
    return replace(pending, spans=spans, records=records, labels=labels, closings=closings, left_out=left_out)


def count(pending: Pending, *, reached: int, sla_seconds: int) -> tuple[Pending, tuple[Counted, ...]]:
    """Move the watermark as far as it goes; returns what it passed, in order.

    Raises InvalidError where a second holds more records than its gateway counted.
    """
    passed = _frontier(pending)
    here: dict[tuple[int, str], int] = defaultdict(int)
    for place, record in pending.records.items():
        here[place[:2]] += 1
        if record.drawn and place not in pending.labels and reached <= place[0] + sla_seconds:
            passed = min(passed, place[0] - 1)
    # A second that a gateway skipped when it closed a later one had nothing.
    expected = {place: 0 for place in here if place[0] <= pending.spans[place[1]].closed}
    expected |= {place: row.sampled for place, row in pending.closings.items()}
    holes = {place: sampled - here[place] for place, sampled in expected.items()}
    for (second, gateway), missing in holes.items():
        if missing < 0:
            raise InvalidError(
                f"ledger: {gateway} closed second {second} and counted {-missing} records fewer than came"
            )
        if missing and reached <= second + sla_seconds:
            passed = min(passed, second - 1)
    if passed <= pending.passed:
        return pending, ()
    counted, keys = _pass(pending, holes, passed)
    return _after(pending, passed, keys), counted


def forget(pending: Pending, epoch: str) -> Pending:
    """Let go of the keys of an epoch whose secret is revealed: no record of it is still to come."""
    return replace(pending, keys=frozenset(key for key in pending.keys if key[0] != epoch))


def evidence(counted: Sequence[Counted], process: ProcessRow) -> Evidence:
    """Return what `counted` says to one process: only what has a factor other than 1."""
    found = [factor for factor in (_factor(each, process) for each in counted) if factor is not None]
    columns = np.array(found, np.float64).reshape(-1, 3)
    return Evidence(confidence=columns[:, 0], weight=columns[:, 1], error=columns[:, 2])


def _factor(counted: Counted, process: ProcessRow) -> tuple[float, float, float] | None:
    """Return (confidence, weight, error), or None for a factor of 1."""
    if not process.first_second <= counted.second <= process.last_second:
        return None
    record = counted.record
    if record is None:
        return inf, 1.0, 1.0
    if not record.drawn or process.segment not in {"", record.segment}:
        return None
    for scored in record.scored:
        if (scored.version, scored.scorer) == (process.version, process.scorer):
            if not scored.eligible:
                return None
            return scored.confidence, record.floor / record.q, float(counted.error(process.version))
    # Nobody knows what this version would have said: as bad as a record that never came.
    return inf, 1.0, 1.0


def _frontier(pending: Pending) -> int:
    """Return the last second that no gateway can add to any more."""
    live = [span.closed for span in pending.spans.values() if span.live]
    return min(live) if live else max((span.closed for span in pending.spans.values()), default=pending.passed)


def _pass(
    pending: Pending, holes: Mapping[tuple[int, str], int], passed: int
) -> tuple[tuple[Counted, ...], frozenset[tuple[str, str]]]:
    counted: list[Counted] = []
    keys = set(pending.keys)
    records: dict[tuple[int, str], list[SampledRecord]] = defaultdict(list)
    for place in sorted(place for place in pending.records if place[0] <= passed):
        records[place[:2]].append(pending.records[place])
    for second, gateway in sorted({*records, *(place for place in holes if place[0] <= passed)}):
        never_came = Counted(second=second, gateway=gateway, record=None, label=None)
        counted.extend([never_came] * holes.get((second, gateway), 0))
        for record in records[second, gateway]:
            if (record.epoch, record.request_key) not in keys:
                keys.add((record.epoch, record.request_key))
                label = pending.labels.get(record.place)
                counted.append(Counted(second=second, gateway=gateway, record=record, label=label))
    return tuple(counted), frozenset(keys)


def _after(pending: Pending, passed: int, keys: frozenset[tuple[str, str]]) -> Pending:
    """Return what still waits once the watermark stands at `passed`."""
    return replace(
        pending,
        passed=passed,
        keys=keys,
        spans={name: span for name, span in pending.spans.items() if span.live or span.lost or span.closed > passed},
        records={place: record for place, record in pending.records.items() if place[0] > passed},
        labels={place: label for place, label in pending.labels.items() if place[0] > passed},
        closings={place: row for place, row in pending.closings.items() if place[0] > passed},
    )


def _span(spans: Mapping[str, Span], gateway: str) -> Span:
    if gateway not in spans:
        raise InvalidError(f"ledger: expected {gateway} to join before anything else, got a row of it")
    return spans[gateway]


def _never_counts(span: Span, second: int) -> bool:
    """Return whether a second is one that nobody will close any more, or that was over when its gateway joined."""
    return second < span.first or (span.lost and second > span.closed)


def _leave_out(records: dict[Place, SampledRecord], gateway: str, *, after: int) -> int:
    """Take out a gateway's records of later seconds than `after`; returns how many."""
    gone = [place for place in records if place[1] == gateway and place[0] > after]
    for place in gone:
        records.pop(place)
    return len(gone)


def _close(spans: Mapping[str, Span], row: ClosingRow) -> Span:
    span = _span(spans, row.gateway)
    if row.second <= span.closed:
        raise InvalidError(f"ledger: {row.gateway} closed second {row.second} after second {span.closed}")
    return replace(span, closed=row.second, live=not row.final)
