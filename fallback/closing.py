"""The loop that ends undo windows when they are over: an outcome is told then, not at the next round of the reaper.

Theory of operation. `settling` says when each window is over. The loop reads the next few, closes those whose time has
come, many in one script, and sleeps until the next one's. A deferral that begins to settle meanwhile is over no sooner
than the shortest window from then, so nothing is closed late if no sleep is longer than that; only what is cut short
by its own expiry waits for the next look. Any number of processes may do this: a script closes each once. The reaper
closes too: whatever this loop misses waits no longer than a round of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from fallback.errors import DemurError
from fallback.queue import Queue

# While windows end one after the other, those of this time are closed at once.
PAUSE_SECONDS_MIN: Final = 0.02
# How long nothing is looked at, at most: queues come up meanwhile, and expiry cuts windows short.
PAUSE_SECONDS_MAX: Final = 0.5
AWAY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Closer:
    """One for a process. `closed` is called whenever there are outcomes to tell."""

    def __init__(self, queue: Queue, *, closed: Callable[[], None]) -> None:
        self._queue = queue
        self._closed = closed
        self._windows: dict[str, float] = {}
        self._listed_time = -PAUSE_SECONDS_MAX

    async def run(self, stop: asyncio.Event) -> None:
        """Close what is over, until `stop`."""
        away = False
        while not stop.is_set():
            try:
                pause = await self._round()
                away = False
            except DemurError as error:
                if not away:
                    log.warning("cannot close undo windows", error=error.message)
                away, pause = True, AWAY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def _round(self) -> float:
        """Close what is over; returns for how long there is nothing to do, seconds."""
        now = time.monotonic()
        if now - self._listed_time >= PAUSE_SECONDS_MAX:
            # A queue that is new meanwhile is listed before its first window is over, or soon after.
            self._windows, self._listed_time = await self._queue.undo_windows(), now
        if not self._windows:
            return PAUSE_SECONDS_MAX
        closed, next_seconds = await self._queue.close_windows(list(self._windows))
        if closed:
            self._closed()
        return pause_seconds(next_seconds, list(self._windows.values()))


def pause_seconds(next_seconds: float | None, windows: Sequence[float]) -> float:
    """Return how long to sleep where the next known window is over in `next_seconds`, None where there is none.

    `windows` are how long those are that may begin meanwhile.
    """
    known = [] if next_seconds is None else [next_seconds]
    return max(PAUSE_SECONDS_MIN, min(PAUSE_SECONDS_MAX, *windows, *known))
