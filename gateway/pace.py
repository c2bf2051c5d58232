"""How long one model's runs take: what a wait is reckoned by, and which runs are done on the spot. A value.

Theory of operation. Nothing can end a run, and one on the transport's thread holds up everybody. So only that is run
there whose like is known to be short: of the same group (shapes and types), with no more rows, and measured before.
Sizes are told apart by powers of two; fewer rows take no longer than more, unless they were measured and did.

What a run takes may depend on what is in its tensors as well (Loop, If, NonZero), which no like tells. A run that was
to be short and is far longer is a surprise: from then on nothing of the model is short before many runs of its like
were, with none so long among them, and after each further surprise twice as many, up to a bound.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Final

# A run that is shorter is done by whoever brought the jobs: to wake another thread takes about as long.
INLINE_SECONDS_MAX: Final = 0.001
# One that was to be short and takes so long is a surprise; after the first, so many short runs show that one is short.
SURPRISE_SECONDS: Final = 0.02
SURPRISED_RUNS: Final = 1_024
# So many at most: beside a GPU a stall of the machine is taken for a surprise, too.
SURPRISED_RUNS_MAX: Final = 65_536
# Groups of which it is known how long they take; the oldest goes first.
GROUPS_MAX: Final = 256
# Weight of the newest run in the mean: one that took 100 ms is remembered for some thirty that are short.
_NEWEST: Final = 0.05
# Of how many runs it is known how long they took.
_RUNS_MAX: Final = 8


class _Size:
    """Runs of one group and about as many rows: the mean of what they took, and how many were short, if that counts.

    `short` and `long`: what is known of them; neither, as long as too few were measured.
    """

    __slots__ = ("long", "runs", "seconds", "short")

    def __init__(self) -> None:
        self.seconds = math.inf
        self.runs = 0
        self.short = self.long = False


class _Group:
    """Runs of one group, by the power of two that their rows are within.

    Up to `rows` rows they are short, but for those powers that were found `long`.
    """

    __slots__ = ("long", "rows", "sizes")

    def __init__(self) -> None:
        self.rows = 0
        self.long: frozenset[int] = frozenset()
        self.sizes: dict[int, _Size] = {}

    def judge(self) -> None:
        """Say anew which runs are short."""
        self.rows = max((1 << power for power, size in self.sizes.items() if size.short), default=0)
        self.long = frozenset(power for power, size in self.sizes.items() if size.long)

    def is_short(self, rows: int) -> bool:
        """Whether a run of `rows` rows is known to be short."""
        return rows <= self.rows and not (self.long and (rows - 1).bit_length() in self.long)


class Pace:
    """One model's."""

    __slots__ = ("_groups", "_median", "_needed", "_took")

    def __init__(self) -> None:
        # Of those that took so long: None until somebody asks for it.
        self._median: float | None = 0.0
        self._took: deque[float] = deque(maxlen=_RUNS_MAX)
        self._groups: dict[Hashable, _Group] = {}
        # How many short runs show that one is.
        self._needed = 1

    @property
    def run_seconds(self) -> float:
        """The median of the newest runs, with all that belongs to them."""
        if self._median is None:
            self._median = sorted(self._took)[len(self._took) // 2]
        return self._median

    @property
    def short(self) -> bool:
        """Whether any runs are known to be short."""
        return any(group.rows for group in self._groups.values())

    def is_short(self, group: Hashable, rows: int) -> bool:
        """Whether a run of `rows` rows of `group` is known to be short."""
        found = self._groups.get(group)
        return found is not None and found.is_short(rows)

    def renew(self) -> None:
        """Know nothing of what is short: another version runs from now on."""
        self._groups.clear()
        self._needed = 1

    def computed(self, group: Hashable, rows: int, seconds: float) -> bool:
        """Hear how long the model itself took for a batch; returns whether that changed what is short."""
        found = self._groups.get(group)
        if found is None:
            if len(self._groups) >= GROUPS_MAX:
                del self._groups[next(iter(self._groups))]
            found = self._groups[group] = _Group()
        power = (rows - 1).bit_length()
        size = found.sizes.get(power)
        if size is None:
            size = found.sizes[power] = _Size()
        if seconds >= SURPRISE_SECONDS:
            size.runs = 0
            if found.is_short(rows):
                self._groups.clear()
                self._needed = min(max(SURPRISED_RUNS, 2 * self._needed), SURPRISED_RUNS_MAX)
                return True
        mean = size.seconds
        size.seconds = mean = seconds if mean == math.inf else mean + _NEWEST * (seconds - mean)
        if size.runs < self._needed and seconds < INLINE_SECONDS_MAX:
            size.runs += 1
        long = mean >= INLINE_SECONDS_MAX
        short = not long and size.runs >= self._needed
        if short is size.short and long is size.long:
            return False
        size.short, size.long = short, long
        found.judge()
        return True

    def ran(self, seconds: float) -> None:
        """Hear how long a whole run took."""
        self._took.append(seconds)
        self._median = None

    def expected_wait(self, rows: int, *, rows_max: int, instances: int, rest_seconds: float = 0.0) -> float:
        """Return how long one waits behind `rows` rows, seconds.

        In runs of up to `rows_max` rows, `instances` of them at a time; `rest_seconds` are those of runs under way.
        With those of the last run before its own it is run itself.
        """
        return (rest_seconds + rows // rows_max * self.run_seconds) / instances
