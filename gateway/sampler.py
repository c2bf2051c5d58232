"""Says where each sampled request of one gateway stands, and closes its seconds. Pure: told the time, it returns rows.

A second is open from its first request until the first moment that anything is known to be later. What closes it is
`due` before anything of a later second may be written. Where nothing can be written, what is due waits, and seconds
that sampled nothing are put together: a closing row says that nothing more comes up to its second, whichever it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.samples import HISTOGRAM_BINS, ClosingRow, JoinRow, Place

# An idle gateway says so this often, that others need not wait for it.
IDLE_SECONDS: Final = 10
# After a step back the clock runs at this share of its pace until the time of day has caught up.
_SLOWED: Final = 0.5
_SEEN_MAX: Final = 512


class Clock:
    """Unix seconds that never go back and never stand still. Not thread-safe.

    Where the time of day is set back, the clock goes on at half its pace until that has caught up.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._now = wall()
        self._looked = steady()

    def second(self) -> int:
        """Return the second it is."""
        looked = self._steady()
        self._now = max(self._wall(), self._now + _SLOWED * (looked - self._looked))
        self._looked = looked
        return int(self._now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many of some requests were eligible, answered automatically, sampled, and their scores by bins."""

    eligible: int = 0
    answered: int = 0
    sampled: int = 0
    histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(
            eligible=self.eligible + other.eligible,
            answered=self.answered + other.answered,
            sampled=self.sampled + other.sampled,
            histogram=tuple(map(sum, zip(self.histogram, other.histogram, strict=True))),
        )


NOTHING: Final = Counts()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """A batch of requests, to be counted: what was decided of each, and how many records there are of them.

    `which` of them are counted; None: all. Counting many batches at once costs little more than counting one.
    """

    scores: NDArray[np.float64]
    eligible: NDArray[np.bool_]
    deferred: NDArray[np.bool_]
    unreviewed: NDArray[np.bool_]
    which: NDArray[np.bool_] | None = None
    sampled: int = 0


def count(batches: Sequence[Seen]) -> Counts:
    """Return the counts of all `batches` together; scores in [0, 1], the histogram is that of the eligible ones."""
    if not batches:
        return NOTHING
    columns = [(seen.scores, seen.eligible, seen.deferred | seen.unreviewed, seen.which) for seen in batches]
    chosen = [each if each[3] is None else tuple(column[each[3]] for column in each[:3]) for each in columns]
    scores, eligible, unanswered = (np.concatenate([each[place] for each in chosen]) for place in range(3))
    bins = np.clip((scores[eligible] * HISTOGRAM_BINS).astype(np.intp), 0, HISTOGRAM_BINS - 1)
    return Counts(
        eligible=int(np.count_nonzero(eligible)),
        answered=int(np.count_nonzero(~unanswered)),
        sampled=sum(seen.sampled for seen in batches),
        histogram=tuple(np.bincount(bins, minlength=HISTOGRAM_BINS).tolist()),
    )


class Sampler:
    """One start of one gateway, of one model. Whoever calls holds a lock, and never goes back in time."""

    def __init__(self, gateway: str, second: int) -> None:
        self.gateway = gateway
        self.join = JoinRow(second=second, gateway=gateway)
        self._counter = 0
        self._closed = second - 1
        self._open: int | None = None
        self._counts = NOTHING
        # Of the open second too; counted when they are many, or it is over.
        self._seen: list[Seen] = []
        self._due: list[tuple[int, Counts]] = []

    def place(self, second: int) -> Place:
        """Return where the next sampled request stands."""
        self._counter += 1
        return second, self.gateway, self._counter

    def add(self, second: int, more: Seen | Counts) -> None:
        """Count requests of `second`, which is now or was the last that anything was counted in."""
        self._turn(second)
        self._open = second
        if isinstance(more, Counts):
            self._counts += more
            return
        self._seen.append(more)
        if len(self._seen) >= _SEEN_MAX:
            self._total()

    def due(self, second: int) -> list[ClosingRow]:
        """Return what closes the seconds before `second`, to be written before anything of it; see `wrote`."""
        self._turn(second)
        return [self._closing(*each) for each in self._due]

    def idle(self, second: int) -> None:
        """Have the second before this one closed where nothing was for long."""
        if self._open is None and not self._due and second - 1 - self._closed >= IDLE_SECONDS:
            self._due.append((second - 1, NOTHING))

    def wrote(self) -> None:
        """Hear that all that was due is written."""
        if self._due:
            self._closed = self._due[-1][0]
            self._due.clear()

    def end(self) -> list[ClosingRow]:
        """Return what closes everything, for good; nothing may be added any more."""
        if self._open is None:
            self._open = (self._due[-1][0] if self._due else self._closed) + 1
        last = self._closing(self._open, self._total(), final=True)
        return [*(self._closing(*each) for each in self._due), last]

    def _turn(self, second: int) -> None:
        """Let an open second that is over be due."""
        if self._open is None or self._open >= second:
            return
        over, counts = self._open, self._total()
        self._open, self._counts = None, NOTHING
        if self._due and not counts.sampled and not self._due[-1][1].sampled:
            counts += self._due.pop()[1]
        self._due.append((over, counts))

    def _total(self) -> Counts:
        """Return the counts of the open second."""
        self._counts += count(self._seen)
        self._seen.clear()
        return self._counts

    def _closing(self, second: int, counts: Counts, *, final: bool = False) -> ClosingRow:
        return ClosingRow(
            second=second,
            gateway=self.gateway,
            eligible=counts.eligible,
            answered=counts.answered,
            sampled=counts.sampled,
            histogram=counts.histogram,
            final=final,
        )
