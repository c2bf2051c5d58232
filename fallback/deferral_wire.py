"""A deferral on the wire: what it tells whom, and what is read back from it."""

from __future__ import annotations

from typing import Final

from demur.v1 import types_pb2 as pb
from fallback.deferral import Content, Deferral, Flag, OnExpiry, Skip, State
from fallback.errors import InvalidError
from fallback.wire import (
    duration_to_wire,
    name_from_wire,
    outcome_from_wire,
    outcome_to_wire,
    prediction_from_wire,
    prediction_to_wire,
    task_from_wire,
    task_to_wire,
    timestamp_from_wire,
    timestamp_to_wire,
)

_CONTENT_TO_WIRE: Final = {
    Content.NONE: pb.CONTENT_STATE_UNSPECIFIED,
    Content.PRESENT: pb.PRESENT,
    Content.ERASED: pb.ERASED,
    Content.LOST: pb.LOST,
}
_CONTENT_FROM_WIRE: Final = {wire: content for content, wire in _CONTENT_TO_WIRE.items()}


def state_from_wire(wire: pb.Deferral.State) -> State | None:
    """Return the state, None for unspecified; raises InvalidError."""
    if wire == pb.Deferral.STATE_UNSPECIFIED:
        return None
    if wire not in pb.Deferral.State.values():
        raise InvalidError(f"state: expected one of {', '.join(pb.Deferral.State.keys())}, got {wire}")
    return State[pb.Deferral.State.Name(wire)]


def deferral_to_wire(
    deferral: Deferral,
    *,
    show_prediction: bool,
    show_notes: bool = False,
    subject: bytes = b"",
    expected_wait: float | None = None,
) -> pb.Deferral:
    """Return `deferral` as it stands on the wire, with the content of its subject where it is given.

    Without `show_prediction` everything that hints at the model's guess stays out: the prediction, the reasons (which
    tell an unsure model from a class that always goes to a person), whether it is an audit, and the certificate.
    With `show_notes` it says what reviewers flagged and skipped it for.
    """
    wire = pb.Deferral(
        name=deferral.name,
        state=(State.OPEN if deferral.state is State.SETTLING else deferral.state).name,
        version=deferral.version,
        task=task_to_wire(deferral.task),
        create_time=timestamp_to_wire(deferral.create_time),
        expire_time=timestamp_to_wire(deferral.expire_time),
        priority=deferral.priority,
        attributes=deferral.attributes,
        reviews_done=len(deferral.reviews),
        reviews_wanted=deferral.reviews_wanted,
        content=_CONTENT_TO_WIRE[deferral.content],
        tier=deferral.tier,
        subject=pb.Subject(content=subject, media_type=deferral.media_type, attributes=deferral.attributes),
    )
    if deferral.outcome is not None:
        wire.outcome.CopyFrom(outcome_to_wire(deferral.outcome))
    if expected_wait is not None:
        wire.expected_wait.CopyFrom(duration_to_wire(expected_wait))
    if show_notes:
        wire.flags.extend(_flag_to_wire(flag) for flag in deferral.flags)
        wire.skips.extend(_skip_to_wire(skip) for skip in deferral.skips)
    if show_prediction:
        wire.reasons.extend(deferral.reasons)
        wire.audit = deferral.audit
        wire.certificate = "" if deferral.draw is None else deferral.draw.certificate
        if deferral.prediction is not None:
            wire.prediction.CopyFrom(prediction_to_wire(deferral.prediction))
    return wire


def _flag_to_wire(flag: Flag) -> pb.Flag:
    return pb.Flag(reviewer=flag.reviewer, comment=flag.comment, create_time=timestamp_to_wire(flag.create_time))


def _flag_from_wire(wire: pb.Flag) -> Flag:
    return Flag(reviewer=wire.reviewer, comment=wire.comment, create_time=timestamp_from_wire(wire.create_time))


def _skip_to_wire(skip: Skip) -> pb.Skip:
    return pb.Skip(
        reviewer=skip.reviewer,
        reason=skip.reason,
        create_time=timestamp_to_wire(skip.create_time),
        escalated=skip.escalated,
    )


def _skip_from_wire(wire: pb.Skip) -> Skip:
    return Skip(
        reviewer=wire.reviewer,
        reason=wire.reason,
        create_time=timestamp_from_wire(wire.create_time),
        escalated=wire.escalated,
    )


def deferral_from_wire(wire: pb.Deferral) -> Deferral:
    """Return what the wire tells of a deferral; raises InvalidError naming the field.

    The wire tells no single reviews, draw, client, callback or digests: these are empty, and `on_expiry` is ABSTAIN.
    """
    queue, deferral_id = name_from_wire("name", wire.name)
    state = state_from_wire(wire.state)
    if state is None:
        raise InvalidError("state: expected one, got none")
    return Deferral(
        id=deferral_id,
        queue=queue,
        state=state,
        version=wire.version,
        task=task_from_wire(wire.task),
        prediction=prediction_from_wire(wire.prediction) if wire.HasField("prediction") else None,
        draw=None,
        outcome=outcome_from_wire(wire.outcome) if wire.HasField("outcome") else None,
        reviews=(),
        reviews_wanted=wire.reviews_wanted,
        create_time=timestamp_from_wire(wire.create_time),
        expire_time=timestamp_from_wire(wire.expire_time),
        client="",
        priority=wire.priority,
        attributes=dict(wire.attributes),
        media_type=wire.subject.media_type,
        reasons=tuple(wire.reasons),
        audit=wire.audit,
        callback=None,
        on_expiry=OnExpiry.ABSTAIN,
        subject_digest="",
        inputs_digest="",
        flags=tuple(_flag_from_wire(flag) for flag in wire.flags),
        skips=tuple(_skip_from_wire(skip) for skip in wire.skips),
        content=_CONTENT_FROM_WIRE.get(wire.content, Content.NONE),
        tier=wire.tier,
    )
