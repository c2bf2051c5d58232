"""What waits for the clerk, and when it goes: in rounds, one under way at a time. Pure.

Who is waited for goes at once where no round is under way or was just now; what is only audited waits a moment for
others. What comes while a round is under way goes with the next, and after one of many rows the next goes some
milliseconds later: so under load each has many rows, and both processes wake for it once. A round costs much, a row in
it little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from gateway.champion import Live
    from gateway.declined import Declined

# Rows of a round, and bytes of their requests, unless one has more by itself.
ROWS_MAX: Final = 256
BYTES_MAX: Final = 16 * 1024 * 1024
# How far apart rounds begin, for each row and at most; how long audits wait for company.
ROW_SECONDS: Final = 0.002
ROUND_SECONDS_MAX: Final = 0.02
AUDITS_LINGER_SECONDS: Final = 0.25

Given: TypeAlias = "tuple[Declined, Live]"


class Rounds:
    """Times are by one clock, seconds."""

    def __init__(self) -> None:
        # Each with the time by which it is to go at the latest.
        self._waiting: deque[tuple[Given, float]] = deque()
        self._awaited = 0
        self._since = inf
        self._soonest = -inf
        self._hurries = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, batch: Sequence[Given], now: float) -> None:
        """Let them wait, from `now` on."""
        for given in batch:
            awaited = bool(given[0].deferred)
            self._awaited += awaited
            self._waiting.append((given, now if awaited else now + AUDITS_LINGER_SECONDS))

    def hurry(self) -> None:
        """From now on wait for nobody."""
        self._hurries = True

    @property
    def due(self) -> float:
        """When the next round is to go; infinite where nothing waits or one is under way."""
        if self._since < inf or not self._waiting:
            return inf
        if self._hurries:
            return -inf
        return self._soonest if self._awaited else max(self._soonest, self._waiting[0][1])

    def take(self, now: float) -> list[Given]:
        """Return the next round, which is under way then."""
        found: list[Given] = []
        rows = weight = 0
        while self._waiting:
            given, _ = self._waiting[0]
            rows += given[0].rows
            weight += given[0].weight
            if found and (rows > ROWS_MAX or weight > BYTES_MAX):
                rows -= given[0].rows
                break
            self._waiting.popleft()
            self._awaited -= bool(given[0].deferred)
            found.append(given)
        self._since = now
        self._soonest = now + min(ROUND_SECONDS_MAX, ROW_SECONDS * rows)
        return found

    @property
    def since(self) -> float:
        """When the round under way began; infinite where none is."""
        return self._since

    def heard(self) -> None:
        """Hear that the round under way has ended."""
        self._since = inf

    def clear(self) -> list[Given]:
        """Return all that waits, which does not any more; nothing is under way."""
        left = [given for given, _ in self._waiting]
        self._waiting.clear()
        self._awaited, self._since, self._soonest = 0, inf, -inf
        return left
