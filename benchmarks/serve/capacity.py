"""How much a server sustains while the generator of an open loop shares its cores: what a share of load is a share of.

A closed loop of the same generator says about how much that is. But it waits for its answers and sends bundles of as
many calls as there were answers, which cost less a call than those that come when they like. So open loops follow,
each slower than the one before, down to the first that is sustained: every request answered, within a bound, by a
generator that kept its times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from benchmarks.serve import opened
from benchmarks.serve.opened import Opened
from benchmarks.serve.sender import Load
from benchmarks.serve.sending import START_SECONDS, Shots, Worker, shoot
from benchmarks.serve.wire import OK
from fallback.errors import UnavailableError

CALLERS: Final = 32
# Of an open loop that is sustained; a backlog that grows exceeds it within seconds.
P99_MS_MAX: Final = 100.0
# The first open loop's rate over the closed loop's, and each next one's over that before it.
FIRST_SHARE: Final = 1.2
STEP: Final = 0.88
_SHARE_MIN: Final = 0.2


class Capacity(NamedTuple):
    """What was found, calls a second: the highest rate that was sustained, and the closed loop's."""

    rate: float
    closed: float


def find(crew: Sequence[Worker], given: Load, *, tell: Callable[[str], None]) -> Capacity:
    """Find what the server that `given` names sustains, with trials of `given.seconds_max` each.

    Raises UnavailableError where it sustains next to nothing.
    """
    closed = msgspec.structs.replace(given, callers=CALLERS)
    shoot(crew, closed, wait_seconds=START_SECONDS)
    most = _answered(shoot(crew, closed)) / given.seconds_max
    share = FIRST_SHARE
    while share > _SHARE_MIN:
        found = opened.judged(shoot(crew, msgspec.structs.replace(given, rate=share * most)))
        tell(f"{share * most:.0f} a second: p99 {found.p99_ms:g} ms, generator's lag {found.lag_p99_ms:g} ms")
        if sustained(found):
            return Capacity(share * most, most)
        share *= STEP
    raise UnavailableError(
        f"{given.address} answers {most:.0f} calls a second of {CALLERS} callers, and sustains no fifth of that in an "
        f"open loop (p99 within {P99_MS_MAX:g} ms); is the machine busy?"
    )


def _answered(shots: Shots) -> int:
    return int((shots.code == OK).sum())


def sustained(found: Opened) -> bool:
    """Whether every request was answered, soon, and sent when it was due."""
    return not found.failed and not found.void and found.p99_ms <= P99_MS_MAX
