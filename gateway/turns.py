"""How models share what runs them: the cores, and the thread that brings requests. By measured time.

Theory of operation. Each model may always have one run under way: the system's scheduler shares the cores out among
those, so that none starves, however long the others' runs are. A run beside its own is a model's only while there is a
core that no run has; where several models wait for one it goes to that which ran least lately (`Shares`).

Short runs need no core of their own: the thread that brings requests does them, in turns by the time they took
(`take_turns`), and only so long that what comes meanwhile does not wait for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from threading import Lock
from typing import Final, Protocol

# In this time what a model ran counts for a third of what it did.
_LATELY_SECONDS: Final = 1.0


class Sharer(Protocol):
    """Who runs on the cores."""

    def offer(self) -> bool:
        """Take notice of a free core; returns whether there is use for it."""


class Shares:
    """Shares `cores` out. Thread-safe; a Sharer's own lock may be held by who calls `take`, not by who calls `give`."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._lock = Lock()
        self._runs = 0
        self._spent: dict[Sharer, tuple[float, float]] = {}
        self._wanting: set[Sharer] = set()

    def take(self, sharer: Sharer, *, beside: bool) -> bool:
        """Count a run; where it is `beside` another of its own, False where no core is free: then one is offered."""
        with self._lock:
            if beside and self._runs >= self._cores:
                self._wanting.add(sharer)
                return False
            self._wanting.discard(sharer)
            self._runs += 1
            return True

    def give(self, sharer: Sharer, seconds: float) -> None:
        """Count a run's end, which took so long, and offer its core to whoever wants it and ran least lately."""
        now = time.monotonic()
        with self._lock:
            self._runs -= 1
            self._spent[sharer] = lately(*self._spent.get(sharer, (0.0, now)), now) + seconds, now
            free = self._runs < self._cores
            wanting = sorted(self._wanting, key=lambda one: lately(*self._spent.get(one, (0.0, now)), now))
            if free:
                self._wanting.clear()
        if free:
            self._offer(wanting)

    def _offer(self, wanting: list[Sharer]) -> None:
        """Offer to one after the other until there is use for it; those after it go on wanting."""
        for number, sharer in enumerate(wanting):
            if sharer.offer():
                with self._lock:
                    self._wanting.update(wanting[number + 1 :])
                return

    def forget(self, sharer: Sharer) -> None:
        """Count on nothing more of a model."""
        with self._lock:
            self._spent.pop(sharer, None)
            self._wanting.discard(sharer)


class Runner(Protocol):
    """Who has short runs waiting."""

    def run_batch(self) -> bool:
        """Run one batch, if it is short; returns whether more may be."""


def take_turns(runners: Iterable[Runner], until: float) -> None:
    """Run batches of each, next whoever took least time so far, until at most one has any left or it is `until`."""
    spent = dict.fromkeys(runners, 0.0)
    while len(spent) > 1 and (start := time.monotonic()) < until:
        runner = min(spent, key=spent.__getitem__)
        if runner.run_batch():
            spent[runner] += time.monotonic() - start
        else:
            del spent[runner]


def lately(seconds: float, since: float, now: float) -> float:
    """Return what `seconds` of `since` count for by `now`."""
    return seconds * math.exp((since - now) / _LATELY_SECONDS)
