"""Between the wire's callbacks and what operators see of them, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from demur.v1 import review_pb2 as pb
from fallback import telling
from fallback.errors import InvalidError
from fallback.telling import CallbackEntry, CallbackState
from fallback.wire import callback_from_wire, callback_to_wire, timestamp_from_wire, timestamp_to_wire

_STATES: Final = {getattr(pb.CallbackEntry, state.name): state for state in CallbackState}


def callback_state_from_wire(number: int) -> CallbackState:
    """Return the state; raises InvalidError for none, and for one that this contract does not know."""
    if number not in _STATES:
        raise InvalidError(f"state: expected PENDING or DEAD, got {number}")
    return _STATES[number]


def ids_from_wire(field: str, names: Sequence[str], queue: str) -> list[str]:
    """Return the ids of callbacks, all of `queue`, each once; raises InvalidError naming `field`."""
    if len(names) > telling.IDS_MAX:
        raise InvalidError(f"{field}: expected at most {telling.IDS_MAX}, got {len(names)}")
    ids = []
    for number, name in enumerate(names):
        of, one = telling.parse(name, f"{field}[{number}]")
        if of != queue:
            raise InvalidError(f"{field}[{number}]: expected a callback of queue {queue}, got {name[:100]!r}")
        ids.append(one)
    return list(dict.fromkeys(ids))


def entry_to_wire(entry: CallbackEntry) -> pb.CallbackEntry:
    """Return `entry` as it stands on the wire."""
    wire = pb.CallbackEntry(
        name=entry.name,
        deferral=entry.deferral,
        type=entry.type,
        target=None if entry.callback is None else callback_to_wire(entry.callback),
        state=getattr(pb.CallbackEntry, entry.state.name),
        attempt=entry.attempt,
        reason=entry.reason,
        create_time=timestamp_to_wire(entry.create_time),
        version=entry.version,
        disabled=entry.disabled,
    )
    if entry.state is CallbackState.PENDING:
        wire.next_time.CopyFrom(timestamp_to_wire(entry.time))
    elif entry.state is CallbackState.DEAD:
        wire.dead_time.CopyFrom(timestamp_to_wire(entry.time))
    return wire


def entry_from_wire(wire: pb.CallbackEntry) -> CallbackEntry:
    """Return what the wire tells of a callback; raises InvalidError naming the field."""
    state = callback_state_from_wire(wire.state)
    return CallbackEntry(
        name=wire.name,
        deferral=wire.deferral,
        version=wire.version,
        type=wire.type,
        callback=callback_from_wire(wire.target, field="target"),
        state=state,
        attempt=wire.attempt,
        create_time=timestamp_from_wire(wire.create_time),
        time=timestamp_from_wire(wire.dead_time if state is CallbackState.DEAD else wire.next_time),
        reason=wire.reason,
        disabled=wire.disabled,
    )
