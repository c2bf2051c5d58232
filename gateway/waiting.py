"""What waits for a run: by priority level, and in each by what may be run together. A value; no clock, no lock."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from fallback.errors import DemurError, OverdueError
from gateway.internal import told


class Placed(Protocol):
    """What takes a place."""

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch, at least 1."""

    @property
    def group(self) -> Hashable:
        """What it may be run together with: those of an equal group."""


class Job(Placed, Protocol):
    """What waits for a run. `until` is the batcher's: when it is out of time, by time.monotonic(), at first never."""

    until: float

    @property
    def since(self) -> float:
        """When it came, by time.monotonic()."""

    @property
    def deadline(self) -> float | None:
        """When its caller stops waiting, by time.monotonic(); None: never."""

    @property
    def level(self) -> int:
        """The priority level that it asks for; 0: the default."""

    @property
    def timeout_us(self) -> int:
        """How long it asks to wait at most, microseconds; 0: as long as the model lets it."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""

    def fail(self, error: DemurError) -> None:
        """Tell its caller."""


P = TypeVar("P", bound=Placed)
J = TypeVar("J", bound=Job)
_RETRY_SECONDS_MIN: Final = 0.05
_RETRY_SECONDS_MAX: Final = 30.0
# Stands for all groups, where these do not take turns.
_ANY: Final = object()
# A level, and whether what waits there is out of time: such a place comes after those in time, and before the next.
Place = tuple[int, bool]


class _Line(Generic[P]):
    """Those of one place, by group; groups take turns, so that a flood of one cannot starve another."""

    __slots__ = ("count", "groups", "rows")

    def __init__(self) -> None:
        self.groups: dict[Hashable, deque[P]] = {}
        self.count = 0
        self.rows = 0


class Waiting(Generic[P]):
    """Those that wait. First come, first served within a place and a group."""

    __slots__ = ("_lines", "_places", "ordered", "rows")

    def __init__(self) -> None:
        # Whether nobody who comes now overtakes another of the same place, for a batch of their group.
        self.ordered = False
        self._lines: dict[Place, _Line[P]] = {}
        self._places: list[Place] = []
        self.rows = 0

    def __iter__(self) -> Iterator[P]:
        """Yield all, in no order that means anything."""
        for line in self._lines.values():
            for found in line.groups.values():
                yield from found

    def add(self, one: P, level: int = 0, *, late: bool = False) -> None:
        """Let `one` wait, behind those of its level, or behind those that are in time there."""
        place = level, late
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line()
            insort(self._places, place)
        group = _ANY if self.ordered else one.group
        found = line.groups.get(group)
        if found is None:
            found = line.groups[group] = deque()
        found.append(one)
        rows = one.rows
        line.count += 1
        line.rows += rows
        self.rows += rows

    def count(self, level: int) -> int:
        """Return how many of a level wait."""
        return sum(line.count for place, line in self._lines.items() if place[0] == level)

    def rows_before(self, level: int) -> int:
        """Return how many rows go before one of `level` that comes now."""
        return sum(line.rows for place, line in self._lines.items() if place <= (level, False))

    def first(self) -> P | None:
        """Return whose turn it is."""
        for place in self._places:
            for found in self._lines[place].groups.values():
                return found[0]
        return None

    def next_batch(self, rows_max: int) -> tuple[Hashable, int]:
        """Return the next batch's group, and about how many rows it has: no less; something has to wait."""
        first, key, rows = self.first(), None, 0
        assert first is not None, "nothing waits"
        for place in self._places:
            groups = self._lines[place].groups
            if key is None and groups:
                key = next(iter(groups))
            for one in groups.get(key, ()):
                rows += one.rows
                if rows >= rows_max:
                    return first.group, max(first.rows, rows_max)
        return first.group, rows

    def take(self, rows_max: int) -> list[P]:
        """Take the next batch out: one group, the first place's before the next's, up to `rows_max` rows.

        One that has more rows by itself is a batch.
        """
        batch: list[P] = []
        rows = 0
        key: Hashable = None
        for place in self._places:
            line = self._lines[place]
            if not batch and line.groups:
                key = next(iter(line.groups))
            found = line.groups.get(key)
            if not found:
                continue
            count, before = len(batch), rows
            rows = _fill(batch, found, rows, rows_max, mixed=key is _ANY)
            if len(batch) > count:
                line.count -= len(batch) - count
                line.rows -= rows - before
                # Its turn is over.
                del line.groups[key]
                if found:
                    line.groups[key] = found
            if found:
                break
        self.rows -= rows
        return batch

    def remove(self, gone: Callable[[P], bool]) -> list[tuple[P, int]]:
        """Take out all who are `gone`; returns each with its level."""
        removed: list[tuple[P, int]] = []
        for (level, _), line in self._lines.items():
            left = [one for found in line.groups.values() for one in found if gone(one)]
            if not left:
                continue
            out = set(map(id, left))
            kept = {group: deque(one for one in found if id(one) not in out) for group, found in line.groups.items()}
            line.groups = {group: found for group, found in kept.items() if found}
            rows = sum(one.rows for one in left)
            line.count -= len(left)
            line.rows -= rows
            self.rows -= rows
            removed += [(one, level) for one in left]
        return removed


def _fill(batch: list[P], found: deque[P], rows: int, rows_max: int, *, mixed: bool) -> int:
    """Move from `found` what still fits into a batch of `rows` rows; returns how many it then has."""
    while found and (not batch or rows + found[0].rows <= rows_max):
        if mixed and batch and found[0].group != batch[0].group:
            break
        one = found.popleft()
        rows += one.rows
        batch.append(one)
    return rows


def end(job: Job, now: float) -> None:
    """Tell a job why it is not run."""
    if job.cancelled:
        job.fail(OverdueError("nobody waits for the reply any more"))
    elif job.deadline is not None and job.deadline <= now:
        job.fail(OverdueError("the deadline passed while the request waited for its turn"))
    else:
        job.fail(OverdueError("the request waited for its turn longer than its model lets it"))


def retry_after(seconds: float) -> float:
    """Return when one may come back to a queue that is expected to be done in `seconds`, within limits."""
    return min(_RETRY_SECONDS_MAX, max(_RETRY_SECONDS_MIN, seconds))


def execute_halved(jobs: Sequence[J], execute: Callable[[Sequence[J]], None], name: str) -> None:
    """Execute `jobs`, halving what fails until what fails fails alone."""
    parts = [jobs]
    while parts:
        part = parts.pop()
        try:
            execute(part)
        except Exception as error:  # noqa: BLE001 - the root of the thread: one batch's trouble is its own
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                part[0].fail(told(error, model=name))
