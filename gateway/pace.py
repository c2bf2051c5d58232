"""How long one model's runs take: what a wait is reckoned by, and whether a run is done on the spot. A value."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

# A run that is shorter is done by whoever brought the jobs: to wake another thread takes about as long.
INLINE_SECONDS_MAX: Final = 0.001
# Weight of the newest run in the mean: one that took 100 ms is remembered for some thirty that are short.
_NEWEST: Final = 0.05
# Of how many runs it is known how long they took.
_RUNS_MAX: Final = 8


class Pace:
    """`run_seconds`: the median of the newest runs, with all that belongs to them; `short`: the model's own part is."""

    __slots__ = ("_compute_seconds", "_took", "run_seconds", "short")

    def __init__(self) -> None:
        self.run_seconds = 0.0
        self.short = False
        self._compute_seconds = math.inf
        self._took: deque[float] = deque(maxlen=_RUNS_MAX)

    def computed(self, seconds: float) -> None:
        """Hear how long the model itself took for a batch."""
        mean = self._compute_seconds
        self._compute_seconds = seconds if mean == math.inf else mean + _NEWEST * (seconds - mean)
        self.short = self._compute_seconds < INLINE_SECONDS_MAX

    def ran(self, seconds: float) -> None:
        """Hear how long a whole run took."""
        self._took.append(seconds)
        self.run_seconds = sorted(self._took)[len(self._took) // 2]
