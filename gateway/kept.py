"""The last automatic answers of a model, for finding those that are like one that was wrong.

A ring of columns. A batch is only noted; what was noted is written together, by slices, so that the path of a request
loses next to nothing. None of what stays is an object that Python's garbage collector would look through. Of an answer
there is who asked and how they named the request, and nothing of what was asked: inputs that nobody was to see are not
held back. An audited answer is not kept: people look at it anyway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.rules import Decisions

# Longer names of requests are cut.
NAME_CHARS_MAX: Final = 256
# Rows that are noted before they are written together.
_NOTED_ROWS_MAX: Final = 256


class Asker(Protocol):
    """A request under way."""

    @property
    def client(self) -> str:
        """Who asks."""

    @property
    def name(self) -> str:
        """What its client calls it."""

    @property
    def rows(self) -> int:
        """How many rows it has."""


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An automatic answer: confidence in [0, 1], when (Unix seconds), who asked.

    `request` is the client's own name for it (its idempotency key, else its request's id), empty where it gave none;
    `row` counts from 0 within that request.
    """

    client: str
    request: str
    row: int
    confidence: float
    time: float


class Kept:
    """One model's, at most `rows_max`; 0: none. Thread-safe."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._lock = Lock()
        self._written = 0
        self._noted = _Noted()
        # Made with the first answer: a model that gives none takes no room.
        self._ring: _Ring | None = None
        # Versions with their labels, as often as each became the live one; the ring has their numbers.
        self._versions: list[tuple[str, tuple[str, ...]]] = [("", ())]

    def __len__(self) -> int:
        """Return how many there are."""
        with self._lock:
            self._write()
            return min(self._written, self._rows_max)

    def add(
        self,
        jobs: Sequence[Asker],
        decisions: Decisions,
        version: str,
        labels: tuple[str, ...],
        which: NDArray[np.bool_] | None = None,
    ) -> None:
        """Keep rows of a batch: `which`, None for all. They are answered, and nobody looks at them."""
        if not self._rows_max:
            return
        confidence, predicted = decisions.confidence, decisions.predicted
        if len(jobs) == len(confidence):
            clients, names, rows = [job.client for job in jobs], [job.name for job in jobs], [0] * len(jobs)
        else:
            clients = [job.client for job in jobs for _ in range(job.rows)]
            names = [job.name for job in jobs for _ in range(job.rows)]
            rows = [row for job in jobs for row in range(job.rows)]
        if which is not None:
            places = np.flatnonzero(which)
            confidence, predicted, chosen = confidence[places], predicted[places], places.tolist()
            clients, names = [clients[place] for place in chosen], [names[place] for place in chosen]
            rows = [rows[place] for place in chosen]
        with self._lock:
            if self._versions[-1][0] != version:
                self._write()
                self._versions.append((version, labels))
            noted = self._noted
            noted.clients += clients
            noted.names += names
            noted.rows += rows
            noted.confidences.append(confidence)
            noted.predictions.append(predicted)
            noted.times.append(time.time())
            if len(noted.clients) >= _NOTED_ROWS_MAX:
                self._write()

    def _write(self) -> None:
        """Write what is noted into the ring, over the oldest."""
        noted, self._noted = self._noted, _Noted()
        # What is more than the ring holds is not written first.
        first, count = max(0, len(noted.clients) - self._rows_max), len(noted.clients)
        if not count:
            return
        ring = self._ring = self._ring or _Ring(self._rows_max)
        confidence, predicted = np.concatenate(noted.confidences), np.concatenate(noted.predictions)
        times = np.repeat(np.array(noted.times), [len(each) for each in noted.confidences])
        while first < count:
            start = self._written % self._rows_max
            last = min(count, first + self._rows_max - start)
            to, part = slice(start, start + last - first), slice(first, last)
            ring.confidence[to], ring.predicted[to] = confidence[part], predicted[part]
            ring.times[to], ring.versions[to] = times[part], len(self._versions) - 1
            ring.clients[to], ring.names[to], ring.rows[to] = noted.clients[part], noted.names[part], noted.rows[part]
            self._written += last - first
            first = last

    def nearest(self, version: str, label: str, confidence: float, count: int) -> list[KeptAnswer]:
        """Return up to `count` answers of `version` that say `label`, the nearest confidence first.

        Where two are as near, the newer one comes first.
        """
        with self._lock:
            self._write()
            ring, rows = self._ring, min(self._written, self._rows_max)
            if ring is None:
                return []
            alike = np.zeros(rows, np.bool_)
            for number, (name, labels) in enumerate(self._versions):
                if name == version and label in labels:
                    alike |= (ring.versions[:rows] == number) & (ring.predicted[:rows] == labels.index(label))
            places = np.flatnonzero(alike)
            far = np.abs(ring.confidence[places] - confidence)
            # Which came first, the places say too.
            age = (self._written - 1 - places) % self._rows_max
            return [ring.answer(place) for place in places[np.lexsort((age, far))[:count]].tolist()]


class _Noted:
    """Rows of one version that are not in the ring yet: a list of them, or of the arrays and the times of batches."""

    __slots__ = ("clients", "confidences", "names", "predictions", "rows", "times")

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.names: list[str] = []
        self.rows: list[int] = []
        self.confidences: list[NDArray[np.float64]] = []
        self.predictions: list[NDArray[np.intp]] = []
        self.times: list[float] = []


class _Ring:
    """One entry a row in each column. Written once, or the system would give its memory only as it fills."""

    def __init__(self, rows_max: int) -> None:
        self.confidence: NDArray[np.float64] = np.full(rows_max, 0.0)
        self.predicted: NDArray[np.int32] = np.full(rows_max, 0, np.int32)
        self.versions: NDArray[np.int32] = np.full(rows_max, 0, np.int32)
        self.times: NDArray[np.float64] = np.full(rows_max, 0.0)
        self.clients = [""] * rows_max
        self.names = [""] * rows_max
        self.rows = [0] * rows_max

    def answer(self, place: int) -> KeptAnswer:
        """Return what stands at a place."""
        return KeptAnswer(
            client=self.clients[place],
            request=self.names[place][:NAME_CHARS_MAX],
            row=self.rows[place],
            confidence=float(self.confidence[place]),
            time=float(self.times[place]),
        )
