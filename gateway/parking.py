"""One row that goes to a person, as the Parking that the queue takes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from fallback.answer import Label, Subject
from fallback.deferral import Draw, Parking, Prediction, SecondOpinion
from gateway import tensor
from gateway.champion import Live
from gateway.intake import Prepared
from gateway.request import Request, row_key
from gateway.rules import Decisions
from gateway.tensor import Array
from gateway.wire import serialise

# Elements of one tensor that a reviewer is shown where the client sent nothing to look at.
_SHOWN_ELEMENTS_MAX: Final = 1_000
_DOUBLE_BYTES: Final = 8
# Of what is answered without a doubt nothing but the audit speaks for a person.
_AUDITED: Final = "audit"


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


def digest(model: str, tensors: Mapping[str, Array], subject: Subject | None) -> str:
    """Return the sha256 (hex) that tells a retry from another input: over the model, the tensors, the subject."""
    found = hashlib.sha256()

    def add(part: bytes) -> None:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)

    add(model.encode())
    for name in sorted(tensors):
        array = tensors[name]
        add(name.encode())
        add(f"{tensor.datatype_of(array)}{list(array.shape)}".encode())
        add(tensor.encode(array))
    if subject is not None:
        add(b"subject")
        add(subject.media_type.encode())
        add(subject.content)
    return found.hexdigest()


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
    inputs = {name: array[row : row + 1] if batched else array for name, array in prepared.arrays.items()}
    given = {name: array[row : row + 1] if batched else array for name, array in request.tensors.items()}
    audit = bool(decisions.audited[place])
    subject = request.subject or shown(inputs)
    key = parking_key(request.idempotency_key, row, prepared.rows, audit=audit)
    if sampling is not None and audit:
        # An audit is parked from a spool, perhaps twice; it has a key even where the client gave none.
        key = key or parking_key(sampling.draw.request_key, 0, 1, audit=True)
    answer = Label(manifest.labels[decisions.predicted[place]])
    return Parking(
        queue=manifest.review_queue,
        client=request.client,
        idempotency_key=key,
        input_digest=digest(request.model, given, request.subject),
        task=manifest.task,
        subject=subject.content,
        media_type=subject.media_type,
        attributes={**subject.attributes, **request.attributes},
        inputs=serialise(inputs),
        prediction=Prediction(
            model=request.model,
            version=live.version.version,
            answer=answer,
            confidence=float(decisions.confidence[place]),
            shown=None if decisions.shown is None else float(decisions.shown[place]),
        ),
        draw=sampling.draw if sampling is not None else _draw(request, prepared, decisions, row, place),
        reasons=(_AUDITED,) if audit and not decisions.unreviewed[place] else decisions.reasons(place),
        audit=audit,
        callback=request.callback,
        priority=request.priority,
        review_seconds=request.review_seconds,
        on_expiry=request.on_expiry,
        tier=request.tier,
        excluded_reviewers=request.excluded_reviewers,
        second_opinion=None if sampling is None else _second_opinion(answer, sampling),
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


def _readable(array: Array) -> Array:
    """Return small floats as the shortest number that means them: 0.1, not 0.10000000149011612."""
    narrow = array.dtype.kind == "f" and array.dtype.itemsize < _DOUBLE_BYTES
    return array.astype(np.str_).astype(np.float64) if narrow else array


def shown(inputs: Mapping[str, Array]) -> Subject:
    """Return a view of tensors for a client that sent nothing to look at: JSON with what there is of each, in full
    where it is small.
    """  # noqa: D205 - one sentence needs two lines
    view: dict[str, Any] = {}
    for name, array in inputs.items():
        facts: dict[str, Any] = {"datatype": tensor.datatype_of(array), "shape": list(array.shape)}
        if array.size <= _SHOWN_ELEMENTS_MAX:
            facts["values"] = _readable(array).tolist()
        view[name] = facts
    return Subject(content=msgspec.json.encode(view), media_type="application/json")
