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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from heapq import heappop, heappush
from math import inf
from typing import Final, TypeAlias

import numpy as np

from fallback.errors import InvalidError
from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord, Scored
from trainer.certificate import Evidence
from trainer.rows import LabelRow, LostRow, ProcessRow

Moment: TypeAlias = tuple[int, str]
Arrival = SampledRecord | LabelRow | ClosingRow | JoinRow | LostRow
# Clients choose their keys: of fewer bytes somebody could find two that are remembered as one.
_KEY_BYTES: Final = 16


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


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """What has arrived and is not counted yet. `passed` is the watermark, `left_out` the records that never count.

    `records`, `labels` and `closings` stand by second and gateway, the first two there by counter; `seconds` says which
    gateways have anything in a second, and `agenda` is a heap of these seconds. `keys` are those counted so far, by
    epoch (a key counts once in it), each as its digest: a snapshot takes them to other processes, where Python's own
    hash of a text is another. `over` has the closing rows that the last count passed.

    The functions here take a Pending over and change it: who calls goes on with what they return. A copy for each
    second of a ledger of years would take longer than the counting.
    """

    passed: int = -1
    left_out: int = 0
    spans: dict[str, Span] = field(default_factory=dict)
    records: dict[Moment, dict[int, SampledRecord]] = field(default_factory=dict)
    labels: dict[Moment, dict[int, LabelRow]] = field(default_factory=dict)
    closings: dict[Moment, ClosingRow] = field(default_factory=dict)
    keys: dict[str, set[int]] = field(default_factory=dict)
    seconds: dict[int, set[str]] = field(default_factory=dict)
    agenda: list[int] = field(default_factory=list)
    over: list[ClosingRow] = field(default_factory=list)

    def record(self, place: Place) -> SampledRecord | None:
        """Return the record of a place that is not counted yet."""
        return self.records.get((place[0], place[1]), {}).get(place[2])


def arrive(pending: Pending, rows: Iterable[Arrival]) -> Pending:
    """Take in `rows` in the order of the chain.

    What comes twice, after its second was passed, or from a gateway that was declared lost changes nothing. Raises
    InvalidError for a gateway that closes what it never joined or goes back in time.
    """
    spans = pending.spans
    for row in rows:
        match row:
            case SampledRecord():
                if row.second <= pending.passed or _never_counts(_span(spans, row.gateway), row.second):
                    pending.left_out += 1
                else:
                    _note(pending, row.second, row.gateway)
                    pending.records.setdefault((row.second, row.gateway), {}).setdefault(row.counter, row)
            case LabelRow():
                if row.second > pending.passed:
                    _note(pending, row.second, row.gateway)
                    pending.labels.setdefault((row.second, row.gateway), {}).setdefault(row.counter, row)
            case ClosingRow():
                if row.second > pending.passed and not _span(spans, row.gateway).lost:
                    spans[row.gateway] = _close(spans, row)
                    _note(pending, row.second, row.gateway)
                    pending.closings[row.second, row.gateway] = row
            case JoinRow():
                first = max(row.second, pending.passed + 1)
                spans.setdefault(row.gateway, Span(first=first, closed=first - 1, live=True))
            case LostRow():
                spans[row.gateway] = replace(_span(spans, row.gateway), live=False, lost=True)
                pending.left_out += _leave_out(pending.records, row.gateway, after=spans[row.gateway].closed)
    return pending


def count(pending: Pending, *, reached: int, sla_seconds: int) -> tuple[Pending, tuple[Counted, ...]]:
    """Move the watermark as far as it goes; returns what it passed, in order.

    Raises InvalidError where a second holds more records than its gateway counted.
    """
    last = frontier(pending)
    counted: list[Counted] = []
    pending.over.clear()
    while pending.agenda and pending.agenda[0] <= last:
        second = pending.agenda[0]
        if not _over(pending, second, reached=reached, sla_seconds=sla_seconds):
            last = second - 1
            break
        counted.extend(_pass(pending, second))
    _move(pending, last)
    return pending, tuple(counted)


def count_up_to(pending: Pending, second: int) -> tuple[Pending, tuple[Counted, ...]]:
    """Move the watermark to `second` whatever is missing: it did pass it once; returns what it passed, in order."""
    counted: list[Counted] = []
    pending.over.clear()
    while pending.agenda and pending.agenda[0] <= second:
        counted.extend(_pass(pending, pending.agenda[0]))
    _move(pending, second)
    return pending, tuple(counted)


def forget(pending: Pending, epoch: str) -> Pending:
    """Let go of the keys of an epoch whose secret is revealed: no record of it is still to come."""
    pending.keys.pop(epoch, None)
    return pending


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
    if not record.drawn:
        return None
    mine = scored_for(record, process)
    if mine is None:
        # Nobody knows what this version would have said by these rules, nor which segment they put the request in: as
        # bad as a record that never came.
        return inf, 1.0, 1.0
    if not mine.eligible or record.segment != process.segment:
        return None
    return mine.confidence, record.floor / record.q, float(counted.error(process.version))


def scored_for(record: SampledRecord, process: ProcessRow) -> Scored | None:
    """Return what the version of a process said, by its scorer and under the rules that it was begun for."""
    wanted = process.version, process.scorer, process.eligibility
    return next(
        (each for each in record.scored if (each.version, each.scorer, each.eligibility) == wanted),
        None,
    )


def frontier(pending: Pending) -> int:
    """Return the last second that no gateway can add to any more."""
    live = [span.closed for span in pending.spans.values() if span.live]
    return min(live) if live else max((span.closed for span in pending.spans.values()), default=pending.passed)


def _note(pending: Pending, second: int, gateway: str) -> None:
    """Remember that a second has something of a gateway."""
    if second not in pending.seconds:
        pending.seconds[second] = set()
        heappush(pending.agenda, second)
    pending.seconds[second].add(gateway)


def _over(pending: Pending, second: int, *, reached: int, sla_seconds: int) -> bool:
    """Return whether nothing about a second that all gateways have closed can change any more."""
    late = reached > second + sla_seconds
    here_too: set[tuple[str, int]] = set()
    for gateway in sorted(pending.seconds[second]):
        here = pending.records.get((second, gateway), {})
        holes = _expected(pending, second, gateway) - len(here)
        if holes < 0:
            raise InvalidError(f"ledger: {gateway} closed second {second} and counted {-holes} records fewer than came")
        if late:
            continue
        labels = pending.labels.get((second, gateway), {})
        if holes or _awaited(pending, here, labels, here_too):
            return False
    return True


def _awaited(
    pending: Pending,
    here: Mapping[int, SampledRecord],
    labels: Mapping[int, LabelRow],
    here_too: set[tuple[str, int]],
) -> bool:
    """Return whether a label of a gateway's second is still due; `here_too` are the keys before it in that second.

    A key that is counted counts no second time, so that nobody waits for the label of a retry elsewhere.
    """
    for counter in sorted(here):
        record = here[counter]
        key = record.epoch, _key(record)
        if key in here_too or key[1] in pending.keys.get(record.epoch, ()):
            continue
        if record.drawn and counter not in labels:
            return True
        here_too.add(key)
    return False


def _key(record: SampledRecord) -> int:
    return int.from_bytes(blake2b(record.request_key.encode(), digest_size=_KEY_BYTES).digest())


def _expected(pending: Pending, second: int, gateway: str) -> int:
    # A second that a gateway skipped when it closed a later one had nothing; of one that ended unclosed (its gateway
    # was lost) everything was left out.
    row = pending.closings.get((second, gateway))
    return row.sampled if row is not None else 0


def _pass(pending: Pending, second: int) -> list[Counted]:
    counted: list[Counted] = []
    heappop(pending.agenda)
    for gateway in sorted(pending.seconds.pop(second)):
        here, labels = pending.records.pop((second, gateway), {}), pending.labels.pop((second, gateway), {})
        holes = _expected(pending, second, gateway) - len(here)
        closing = pending.closings.pop((second, gateway), None)
        if closing is not None:
            pending.over.append(closing)
        counted.extend([Counted(second=second, gateway=gateway, record=None, label=None)] * holes)
        for counter in sorted(here):
            record = here[counter]
            keys, key = pending.keys.setdefault(record.epoch, set()), _key(record)
            if key not in keys:
                keys.add(key)
                counted.append(Counted(second=second, gateway=gateway, record=record, label=labels.get(counter)))
    return counted


def _move(pending: Pending, passed: int) -> None:
    """Put the watermark at `passed`, which may be where it stands."""
    if passed <= pending.passed:
        return
    pending.passed = passed
    for name in [name for name, span in pending.spans.items() if not span.live and not span.lost]:
        if pending.spans[name].closed <= passed:
            del pending.spans[name]


def _span(spans: Mapping[str, Span], gateway: str) -> Span:
    if gateway not in spans:
        raise InvalidError(f"ledger: expected {gateway} to join before anything else, got a row of it")
    return spans[gateway]


def _never_counts(span: Span, second: int) -> bool:
    """Return whether a second is one that nobody will close any more, or that was over when its gateway joined."""
    return second < span.first or (span.lost and second > span.closed)


def _leave_out(records: dict[Moment, dict[int, SampledRecord]], gateway: str, *, after: int) -> int:
    """Take out a gateway's records of later seconds than `after`; returns how many."""
    gone = [moment for moment in records if moment[1] == gateway and moment[0] > after]
    return sum(len(records.pop(moment)) for moment in gone)


def _close(spans: Mapping[str, Span], row: ClosingRow) -> Span:
    span = _span(spans, row.gateway)
    if row.second <= span.closed:
        raise InvalidError(f"ledger: {row.gateway} closed second {row.second} after second {span.closed}")
    return replace(span, closed=row.second, live=not row.final)
