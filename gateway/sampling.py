"""What a batch leaves as evidence: the records of its sampled rows, and its audits with all that is to be parked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fallback.answer import Label
from fallback.deferral import Draw
from fallback.errors import DemurError
from gateway.champion import Live
from gateway.parking import Sampling, parking
from gateway.policy import draw
from gateway.recorder import Key, Recorded, Turn
from gateway.request import row_key
from gateway.rules import Decisions
from gateway.sampler import Seen
from gateway.samples import AGREEMENT_SHARE, Place, SampledRecord, Scored, agreement_epoch, place_text, row_epoch
from gateway.shadow import Asked, Opinion
from gateway.spool import Entry, Kind

_RECORDS: Final = msgspec.json.Encoder()
_AUDITS: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A model's epoch of draws and its secret."""

    model: str
    name: str
    secret: bytes

    def draw(self, request_key: str) -> float:
        """Return the number that decides whether an answer is audited."""
        return draw(self.secret, model=self.model, epoch=self.name, request_key=request_key)

    def panel_drawn(self, request_key: str) -> bool:
        """Return whether three people look at a request, whatever the first one says."""
        epoch = agreement_epoch(self.name)
        return draw(self.secret, model=self.model, epoch=epoch, request_key=request_key) < AGREEMENT_SHARE

    def evidence_row(self, request_key: str, rows: int) -> int:
        """Return which of a request's rows is evidence; the same for a retry, and known before anybody looks at them.

        Rows of one request are often wrong together. Each for itself they would be bets on one coin, which no proof
        allows; a row drawn by lot is one bet.
        """
        if rows == 1:
            return 0
        return int(draw(self.secret, model=self.model, epoch=row_epoch(self.name), request_key=request_key) * rows)


@dataclass(slots=True, kw_only=True)
class Sampled:
    """What was recorded of a batch, by row of the batch. `refusal`: why it could not be; then nobody is sampled.

    `held`: because everybody would go to a queue that takes nothing now. `due` rows were to be sampled, `records` of
    them are new records.
    """

    due: int = 0
    samplings: dict[int, Sampling] = field(default_factory=dict)
    records: int = 0
    refusal: DemurError | None = None
    held: bool = False


@dataclass(slots=True, kw_only=True)
class _Drawn:
    """What is to be written of a batch. `again`: rows of the batch whose record was made at an earlier try."""

    audits: list[Entry] = field(default_factory=list)
    records: list[Entry] = field(default_factory=list)
    keys: dict[Key, Recorded] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)


def record(
    turn: Turn,
    jobs: Sequence[Asked],
    live: Live,
    decisions: Decisions,
    epoch: Epoch,
    held_off: DemurError | None,
    opinions: Mapping[int, Sequence[Opinion]] = MappingProxyType({}),
) -> Sampled:
    """Record the sampled rows of a batch before anybody is answered; where they are `held_off` nothing is.

    Of a request's rows one is evidence; the others that are sampled are recorded as not eligible. `opinions` is what
    challengers say, by row of the batch.
    """
    which = _evidence(jobs, epoch)
    if which is not None:
        decisions = msgspec.structs.replace(decisions, eligible=decisions.eligible & which)
    chosen = decisions.deferred | decisions.audited
    places = np.flatnonzero(chosen).tolist()
    sampled, drawn = Sampled(due=len(places), refusal=turn.trouble or held_off), _Drawn()
    sampled.held = held_off is not None and turn.trouble is None
    if sampled.refusal is not None:
        turn.count(_seen(decisions, _answerable(jobs, chosen), 0))
        return sampled
    for job, first, row in _rows(jobs, places):
        at = first + row
        said = [Opinion(live=live, decisions=decisions, row=at), *opinions.get(at, ())]
        evidence = which is None or bool(which[at])
        scored = tuple(opinion.scored(evidence=evidence) for opinion in said)
        others = tuple(opinion.answer for opinion in said[1:])
        sampled.samplings[at] = _row(turn, job, live, decisions, epoch, first, row, drawn, scored, others)
    sampled.records = len(drawn.records)
    seen = _seen(decisions, _except(len(chosen), drawn.again), sampled.records)
    try:
        # An audit before its record: what a write that is cut short leaves has no record without its audit.
        turn.write([*drawn.audits, *drawn.records], seen, drawn.keys)
    except DemurError as error:
        sampled.refusal = error
        turn.count(_seen(decisions, _answerable(jobs, chosen), 0))
    return sampled


def _evidence(jobs: Sequence[Asked], epoch: Epoch) -> NDArray[np.bool_] | None:
    """Return which row of each request is evidence; None: all are."""
    if all(job.rows == 1 for job in jobs):
        return None
    which = np.zeros(sum(job.rows for job in jobs), np.bool_)
    first = 0
    for job in jobs:
        which[first + epoch.evidence_row(job.request.request_key, job.rows)] = True
        first += job.rows
    return which


def _rows(jobs: Sequence[Asked], places: Sequence[int]) -> Iterator[tuple[Asked, int, int]]:
    """Find rows of the batch, in order: each one's request, the request's first row there, and which row of it."""
    waiting = iter(jobs)
    job, first, end = None, 0, 0
    for place in places:
        while place >= end:
            job = next(waiting)
            first, end = end, end + job.rows
        assert job is not None, "a batch has a request for each row"
        yield job, first, place - first


def _row(
    turn: Turn,
    job: Asked,
    live: Live,
    decisions: Decisions,
    epoch: Epoch,
    first: int,
    row: int,
    drawn: _Drawn,
    scored: tuple[Scored, ...],
    others: tuple[Label, ...],
) -> Sampling:
    """Return what one row is parked with, and add to `drawn` what is to be written of it."""
    at, request = first + row, job.request
    request_key = row_key(request.request_key, row, job.rows)
    key, audited = (epoch.name, request_key), bool(decisions.audited[at])
    # Without a key of the client's nobody can try again.
    before = turn.recorded(key) if request.idempotency_key else None
    place = turn.place() if before is None else before.place
    sampling = Sampling(
        draw=Draw(
            request_key=request_key,
            q=float(decisions.q[at]),
            xi=float(decisions.draws[at]),
            place=place_text(place),
            epoch=epoch.name,
            certificate=decisions.certificate,
        ),
        always=epoch.panel_drawn(request_key),
        again=before is not None,
        others=others,
    )
    if before is None:
        drawn.records.append((Kind.ROW, _RECORDS.encode(_record(place, sampling.draw, live, decisions, scored))))
    else:
        drawn.again.append(at)
    if audited and (before is None or not before.audited):
        parked = parking(request, job.prepared, live, decisions, first=first, row=row, sampling=sampling)
        drawn.audits.append((Kind.AUDIT, _AUDITS.encode(parked)))
    if request.idempotency_key:
        drawn.keys[key] = Recorded(place=place, audited=audited or (before is not None and before.audited))
    return sampling


def _record(place: Place, drawn: Draw, live: Live, decisions: Decisions, scored: tuple[Scored, ...]) -> SampledRecord:
    second, gateway, counter = place
    return SampledRecord(
        second=second,
        gateway=gateway,
        counter=counter,
        model=live.version.model,
        epoch=drawn.epoch,
        segment=live.rules.segment,
        request_key=drawn.request_key,
        q=drawn.q,
        floor=decisions.floor,
        draw=drawn.xi,
        scored=scored,
    )


def _seen(decisions: Decisions, which: NDArray[np.bool_] | None, sampled: int) -> Seen:
    return Seen(
        scores=decisions.scores,
        eligible=decisions.eligible,
        deferred=decisions.deferred,
        unreviewed=decisions.unreviewed,
        which=which,
        sampled=sampled,
    )


def _except(rows: int, left_out: Sequence[int]) -> NDArray[np.bool_] | None:
    """Return which rows are counted: all (None) but `left_out`."""
    if not left_out:
        return None
    which = np.ones(rows, np.bool_)
    which[list(left_out)] = False
    return which


def _answerable(jobs: Sequence[Asked], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rows of requests of which nothing was to be sampled: these alone are answered."""
    which = np.zeros(len(chosen), np.bool_)
    first = 0
    for job in jobs:
        part = slice(first, first + job.rows)
        which[part] = not chosen[part].any()
        first += job.rows
    return which
