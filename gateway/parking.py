"""One row that goes to a person, as the Parking that the queue takes. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fallback.answer import Label
from fallback.deferral import Draw, Parking, SecondOpinion
from gateway.champion import Live
from gateway.intake import Prepared
from gateway.request import Request, row_key
from gateway.rules import Decisions
from gateway.slip import Said, assembled, digest, reasons, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a row of a model under certification was recorded.

    `always`: three people look at it in any case. `again`: its record was made at an earlier try. `others` are the
    answers of challengers: where one is not a person's, more people decide.
    """

    draw: Draw
    always: bool
    again: bool
    others: tuple[Label, ...] = ()


def parking(
    request: Request,
    prepared: Prepared,
    live: Live,
    decisions: Decisions,
    *,
    first: int,
    row: int,
    sampling: Sampling | None = None,
) -> Parking:
    """Return what is parked of one row. `first`: the row of the batch that the request's rows begin at."""
    manifest, place = live.manifest, first + row
    assert manifest.task is not None, "only models with a task are judged"
    batched = prepared.intake.batched
    audit = bool(decisions.audited[place])
    key = parking_key(request.idempotency_key, row, prepared.rows, audit=audit)
    if sampling is not None and audit:
        # An audit is parked from a spool, perhaps twice; it has a key even where the client gave none.
        key = key or parking_key(sampling.draw.request_key, 0, 1, audit=True)
    answer = Label(manifest.labels[decisions.predicted[place]])
    said = Said(
        answer=answer,
        confidence=float(decisions.confidence[place]),
        shown=None if decisions.shown is None else float(decisions.shown[place]),
        draw=sampling.draw if sampling is not None else _draw(request, prepared, decisions, row, place),
        reasons=reasons(decisions, place),
        audit=audit,
        second_opinion=None if sampling is None else _second_opinion(answer, sampling),
    )
    inputs, given = (
        {name: array[row : row + 1] if batched else array for name, array in arrays.items()}
        for arrays in (prepared.arrays, request.tensors)
    )
    return assembled(
        request,
        said,
        subject=request.subject or shown(inputs),
        inputs=inputs,
        digest=digest(request.model, given, request.subject),
        key=key,
        queue=manifest.review_queue,
        task=manifest.task,
        version=live.version.version,
    )


def _second_opinion(answer: Label, sampling: Sampling) -> SecondOpinion:
    return SecondOpinion(predictions=tuple(dict.fromkeys((answer, *sampling.others))), always=sampling.always)


def _draw(request: Request, prepared: Prepared, decisions: Decisions, row: int, place: int) -> Draw:
    return Draw(
        request_key=row_key(request.request_key, row, prepared.rows),
        q=decisions.share if decisions.audited[place] else 1.0,
        xi=float(decisions.draws[place]),
    )


def parking_key(key: str, row: int, rows: int, *, audit: bool) -> str:
    """Return the key that one row is parked under, at most 128 characters; empty where the client gave none.

    A deferred request of one row has the client's own. An audit has another, so that a retry that a newer version
    defers does not get the audit of the older one's answer for its deferral.
    """
    if not key or (rows == 1 and not audit):
        return key
    return hashlib.sha256(f"{'audit' if audit else 'row'} {row} {key}".encode()).hexdigest()
