"""What was observed: how often, and how much in all. Thread-safe, and little work for who observes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client.utils import floatToGoString

# The count up to each upper bound, and the sum of all values, as Prometheus has them.
Cumulated = tuple[list[tuple[str, float]], float]


class Observed:
    """What was observed of one model, or of one stage of its requests, by upper bound."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._lock = Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count those of a whole batch at once."""
        low = bisect_left(self._bounds, min(values))
        high = low if len(values) == 1 else bisect_left(self._bounds, max(values))
        with self._lock:
            self._sum += sum(values)
            if low == high:
                self._counts[low] += len(values)
                return
            for each in values:
                self._counts[bisect_left(self._bounds, each)] += 1

    def read(self) -> Cumulated:
        """Return the count up to each bound, and the sum."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        return _cumulated(self._bounds, counts), total

    def total(self) -> tuple[int, float]:
        """Return how many values there were, and their sum."""
        with self._lock:
            return sum(self._counts), self._sum


class Runs:
    """One model's runs: how many rows each had, and how long it took.

    Observed under one lock; what is asked of it is made up when it is. `rows` and `seconds` are the upper bounds of
    these two, rising.
    """

    __slots__ = ("_counts", "_lock", "_requests", "_requests_seconds", "_rows", "_seconds", "_sizes")

    def __init__(self, *, rows: Sequence[float], seconds: Sequence[float]) -> None:
        self._rows = rows
        self._seconds = seconds
        self._lock = Lock()
        self._counts = [0] * (len(seconds) + 1)
        # By number of rows: how many runs, and how long they took.
        self._sizes: dict[int, list[float]] = {}
        self._requests = 0
        self._requests_seconds = 0.0

    def observe(self, requests: int, rows: int, seconds: float) -> None:
        """Count one run of `requests` requests, which had `rows` rows together."""
        with self._lock:
            self._counts[bisect_left(self._seconds, seconds)] += 1
            size = self._sizes.get(rows)
            if size is None:
                size = self._sizes[rows] = [0, 0.0]
            size[0] += 1
            size[1] += seconds
            self._requests += requests
            self._requests_seconds += requests * seconds

    def read(self) -> tuple[int, float, Mapping[int, tuple[int, float]]]:
        """Return how many requests were run, how long if each counts all of its run, and by rows: runs and seconds."""
        with self._lock:
            sizes = {rows: (int(runs), seconds) for rows, (runs, seconds) in self._sizes.items()}
            return self._requests, self._requests_seconds, sizes

    def rows(self) -> Cumulated:
        """Return the runs up to each number of rows, and the rows of all."""
        _, _, sizes = self.read()
        counts = [0] * (len(self._rows) + 1)
        for rows, (runs, _) in sizes.items():
            counts[bisect_left(self._rows, rows)] += runs
        return _cumulated(self._rows, counts), float(sum(rows * runs for rows, (runs, _) in sizes.items()))

    def seconds(self) -> Cumulated:
        """Return the runs up to each number of seconds, and the seconds of all."""
        with self._lock:
            counts, total = list(self._counts), sum(seconds for _, seconds in self._sizes.values())
        return _cumulated(self._seconds, counts), total


def _cumulated(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    names = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
