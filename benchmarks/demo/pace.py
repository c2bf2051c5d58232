"""How fast the demo's clients send: a pure rule, so that versions are swapped while requests go on.

Theory of operation. A machine of any speed should show at least `swaps_goal` hot swaps in one short stream. The stream
is cut into `swaps_goal + 1` parts, one for each version that should serve some of it. Requests are sent at the full
rate until the part is nearly used up; if the next version is not live by then, the rest of the part is sent at a
trickle: requests go on, so that a swap always happens under traffic, and the part lasts as long as the retraining.
A trainer that never comes is waited for once, for a bounded time; then the stream is sent to its end, and the check on
the number of swaps says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The schedule of one run; rates in requests a second over all clients."""

    requests: int
    swaps_goal: int = 2
    full_per_second: float = 40.0
    trickle_per_second: float = 5.0
    # Share of each part that is kept back to be sent at the trickle.
    reserve_share: float = 0.15
    # How long all trickling together may last.
    patience_seconds: float = 45.0

    def part_end(self, swaps: int) -> int:
        """Return how many requests may be sent before `swaps + 1` swaps were seen."""
        if swaps >= self.swaps_goal:
            return self.requests
        return ceil(self.requests * (swaps + 1) / (self.swaps_goal + 1))

    def per_second(self, *, sent: int, swaps: int, trickled_seconds: float) -> float:
        """Return the rate to send at now, having sent `sent`, seen `swaps` and trickled for `trickled_seconds`."""
        if swaps >= self.swaps_goal or trickled_seconds >= self.patience_seconds:
            return self.full_per_second
        part = self.requests / (self.swaps_goal + 1)
        kept_back_from = self.part_end(swaps) - self.reserve_share * part
        return self.full_per_second if sent < kept_back_from else self.trickle_per_second
