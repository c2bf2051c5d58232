"""Where a model's versions stand: one frozen table of edges, and the pure functions that walk along them.

The value `ModelStates` is one document, shared by all gateways and changed by compare-and-set; each state keeps the
reason and the time it was entered. At most one version is CHAMPION; `previous` are the champions before it, the last
one last, which is where a roll-back goes.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from fallback.errors import AbortedError, NotFoundError, StateError

PREVIOUS_MAX: Final = 32
REASON_CHARS_MAX: Final = 400
# The document must stay well below what one may weigh; older versions are on the disk, their states forgotten.
STATES_MAX: Final = 500
FORGOTTEN: Final = "older than what is recorded"


class VersionState(StrEnum):
    """Where a version stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CANARY = "canary"
    CHAMPION = "champion"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


_S = VersionState
# Each is run beside the champion on all that is sampled.
SHADOWS_MAX: Final = 3
# state -> the states that may follow. CANARY is entered by a later release; its edges stand already.
TABLE: Final = MappingProxyType(
    {
        _S.CANDIDATE: frozenset({_S.SHADOW, _S.CANARY, _S.CHAMPION, _S.REJECTED}),
        _S.SHADOW: frozenset({_S.CANDIDATE, _S.CANARY, _S.CHAMPION, _S.REJECTED}),
        _S.CANARY: frozenset({_S.CHAMPION, _S.REJECTED, _S.ROLLED_BACK}),
        _S.CHAMPION: frozenset({_S.RETIRED, _S.ROLLED_BACK}),
        _S.RETIRED: frozenset({_S.SHADOW, _S.CHAMPION}),
        _S.REJECTED: frozenset[VersionState](),
        _S.ROLLED_BACK: frozenset({_S.SHADOW, _S.CHAMPION}),
    }
)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A version's state, why, and since when (Unix seconds)."""

    state: VersionState
    reason: str
    time: float


class ModelStates(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of one model. `champion` is empty until there is one."""

    champion: str = ""
    previous: tuple[str, ...] = ()
    states: dict[str, Standing] = {}


def decode(body: bytes) -> ModelStates:
    """Read the document's body."""
    return msgspec.json.decode(body, type=ModelStates)


def encode(states: ModelStates) -> bytes:
    """Write the document's body."""
    return msgspec.json.encode(states)


def add(states: ModelStates, version: str, *, reason: str, time: float) -> ModelStates:
    """Enter a new version as CANDIDATE; one that is known already stays as it is."""
    return states if version in states.states else _put(states, version, _S.CANDIDATE, reason, time)


def promote(states: ModelStates, version: str, *, reason: str, time: float) -> ModelStates:
    """Make `version` the champion and retire the one before; raises StateError where the table has no such edge."""
    if states.champion == version:
        raise StateError(f"version {version} is the champion already")
    _check(states, version, _S.CHAMPION)
    previous = states.previous
    if states.champion:
        before = states.champion
        states = _move(states, before, _S.RETIRED, f"version {version} took over: {reason}", time)
        previous = (*(other for other in previous if other != before), before)[-PREVIOUS_MAX:]
    states = _put(states, version, _S.CHAMPION, reason, time)
    previous = tuple(other for other in previous if other != version)
    return msgspec.structs.replace(states, champion=version, previous=previous)


def roll_back(states: ModelStates, *, reason: str, time: float, expected: str = "") -> ModelStates:
    """Go back to the champion before this one; raises StateError where there is none.

    Raises AbortedError where another version than `expected` is the champion: two who ask at once mean one step back,
    not two. Empty: whichever is.
    """
    if expected not in {"", states.champion}:
        now = f"version {states.champion} is the champion now" if states.champion else "there is no champion now"
        raise AbortedError(f"expected version {expected} to be the champion, {now}; nothing was rolled back")
    if not states.champion or not states.previous:
        raise StateError(f"there is no champion before version {states.champion or '(none)'} to go back to")
    *older, back = states.previous
    states = _move(states, states.champion, _S.ROLLED_BACK, reason, time)
    states = _move(states, back, _S.CHAMPION, f"rolled back: {reason}", time)
    return msgspec.structs.replace(states, champion=back, previous=tuple(older))


def shadow(states: ModelStates, version: str, *, reason: str, time: float) -> ModelStates:
    """Put `version` into shadow; raises StateError where the table has no such edge, or as many are there as may be."""
    if not states.champion:
        raise StateError("expected a champion that a challenger is beside; there is none")
    there = shadows(states)
    if version not in there and len(there) >= SHADOWS_MAX:
        raise StateError(f"versions {', '.join(there)} are in shadow, {SHADOWS_MAX} at most")
    states = _move(states, version, _S.SHADOW, reason, time)
    return msgspec.structs.replace(states, previous=tuple(other for other in states.previous if other != version))


def unshadow(states: ModelStates, version: str, *, reason: str, time: float) -> ModelStates:
    """Take `version` out of the shadow, as a candidate; raises StateError where it is not there."""
    if standing(states, version).state is not _S.SHADOW:
        raise StateError(f"version {version} is {standing(states, version).state.value}, not in shadow")
    return _move(states, version, _S.CANDIDATE, reason, time)


def shadows(states: ModelStates) -> list[str]:
    """Return the versions in shadow, the oldest first."""
    return sorted((version for version, each in states.states.items() if each.state is _S.SHADOW), key=int)


def reject(states: ModelStates, version: str, *, reason: str, time: float) -> ModelStates:
    """Give `version` up for good; raises StateError where the table has no such edge."""
    return _move(states, version, _S.REJECTED, reason, time)


def standing(states: ModelStates, version: str) -> Standing:
    """Return a version's standing; raises NotFoundError."""
    found = states.states.get(version)
    if found is None:
        raise NotFoundError(f"version {version} is not known; there are: {', '.join(states.states) or 'none'}")
    return found


def shown(states: ModelStates, version: str, *, time: float) -> Standing:
    """Return what to tell of a version that is on the disk: its standing, or that it is new, or forgotten."""
    found = states.states.get(version)
    if found is not None:
        return found
    if len(states.states) >= STATES_MAX and int(version) < max(map(int, states.states)):
        return Standing(state=VersionState.RETIRED, reason=FORGOTTEN, time=time)
    return Standing(state=VersionState.CANDIDATE, reason="published", time=time)


def _check(states: ModelStates, version: str, target: VersionState) -> None:
    state = standing(states, version).state
    if target not in TABLE[state]:
        raise StateError(f"version {version} is {state.value} and cannot become {target.value}")


def _move(states: ModelStates, version: str, target: VersionState, reason: str, time: float) -> ModelStates:
    _check(states, version, target)
    return _put(states, version, target, reason, time)


def _put(states: ModelStates, version: str, target: VersionState, reason: str, time: float) -> ModelStates:
    entered = Standing(state=target, reason=reason[:REASON_CHARS_MAX], time=time)
    kept = {**states.states, version: entered}
    needed = {states.champion, *states.previous, *shadows(states), version}
    for old in sorted((old for old in kept if old not in needed), key=int)[: max(0, len(kept) - STATES_MAX)]:
        del kept[old]
    return msgspec.structs.replace(states, states=kept)
