"""When one outcome is told again, and how hard one receiver is leaned on. Pure: no clock, no chance of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Self

# Standard Webhooks 1.0.0, "Deliverability and reliability": the waits after the first attempt, which is at once.
RETRY_SECONDS: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
# A wait is up to this share longer than the schedule says: a receiver that comes back is not met by all at once.
JITTER: Final = 0.25
RETRY_AFTER_SECONDS_MAX: Final = 86_400.0
# What is waited between two attempts at a receiver that fails, and at one that asked for less.
FAILING_PAUSE_SECONDS: Final = (0.01, 0.2)
THROTTLED_PAUSE_SECONDS: Final = (1.0, 60.0)
# What is held in memory for one receiver is what it takes within this time.
HOLD_SECONDS: Final = 0.25
# How long an attempt is thought to take before there was one; how much the last one counts.
ATTEMPT_SECONDS: Final = 0.05
WEIGHT: Final = 0.25
# What does not fit comes due again when it may fit. A pace is a guess from a bad moment, so it is at most the first of
# these later, or as much as it takes that no more than so many a second come back, at most the second.
POSTPONE_SECONDS: Final = (10.0, 300.0)
POSTPONED_PER_SECOND: Final = 500.0


class Strain(Enum):
    """What an attempt says of the receiver as a whole."""

    NONE = "none"  # it answers, whatever it thinks of this one event
    FAILING = "failing"
    THROTTLED = "throttled"  # it, or what stands before it, asks for less


def retry_after(attempt: int, jitter: float, schedule: Sequence[float], *, asked_seconds: float = 0.0) -> float | None:
    """Return how long to wait after the failed attempt number `attempt` (from 1), None to give up.

    `jitter` in [0, 1) chooses within the room that a wait has. One that asked for more time with Retry-After gets it,
    up to a day.
    """
    if attempt > len(schedule):
        return None
    return max(schedule[attempt - 1] * (1.0 + JITTER * jitter), min(asked_seconds, RETRY_AFTER_SECONDS_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one receiver is called: how many attempts at once (1 to `most`) and how long between two starts, seconds.

    It goes down by half with each failure and up by one with each success.
    """

    most: int
    at_once: int
    pause_seconds: float = 0.0
    attempt_seconds: float = ATTEMPT_SECONDS

    @classmethod
    def fresh(cls, most: int) -> Self:
        """Return the pace of a receiver that nothing is known of."""
        return cls(most=most, at_once=most)

    def after(self, strain: Strain, seconds: float) -> Self:
        """Return the pace after an attempt that took so long and ended so."""
        taken = self.attempt_seconds + WEIGHT * (seconds - self.attempt_seconds)
        if strain is Strain.NONE:
            half = self.pause_seconds / 2
            pause = half if half >= FAILING_PAUSE_SECONDS[0] else 0.0
            return replace(self, at_once=min(self.most, self.at_once + 1), pause_seconds=pause, attempt_seconds=taken)
        least, longest = FAILING_PAUSE_SECONDS if strain is Strain.FAILING else THROTTLED_PAUSE_SECONDS
        pause = max(self.pause_seconds, min(longest, max(least, 2 * self.pause_seconds)))
        return replace(self, at_once=max(1, self.at_once // 2), pause_seconds=pause, attempt_seconds=taken)

    @property
    def per_second(self) -> float:
        """How many attempts it takes a second."""
        return 1.0 / max(self.attempt_seconds / self.at_once, self.pause_seconds, 1e-4)

    @property
    def unhurt(self) -> bool:
        """Whether nothing slows it down."""
        return self.at_once == self.most and not self.pause_seconds

    @property
    def held_max(self) -> int:
        """How many events are held for it in memory."""
        return max(self.at_once, int(self.per_second * HOLD_SECONDS))


def postpone_max(count: int) -> float:
    """Return the longest that any of `count` events of one receiver is put off, seconds."""
    least, most = POSTPONE_SECONDS
    return min(most, max(least, count / POSTPONED_PER_SECOND))


def postponed(seconds: float, jitter: float) -> float:
    """Return when an event that may fit in so many seconds is looked at again: at its time or a share before it."""
    return max(HOLD_SECONDS, seconds * (1.0 - JITTER * jitter))
