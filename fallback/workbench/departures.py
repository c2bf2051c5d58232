"""Gives back what a page held that was left, a moment later.

A browser does not tell whether a page is closed or loaded anew. Given back at once, an item that somebody is in the
middle of would go to whoever waits for one, every time its reviewer presses reload. So it stays theirs for a moment: a
page that comes back goes on with what its reviewer holds (`Queue.lease` with `resume`), and the token that is to be
released is stale then, so that the release that comes afterwards does nothing. Should this process die in between, the
lease lapses.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from fallback.answer import Identity
from fallback.errors import DemurError
from fallback.queue import Queue

# As long as loading a page anew takes on a slow line.
GRACE_SECONDS: Final = 3.0
DEPARTURES_MAX: Final = 1_000
log = structlog.get_logger(__name__)


class Departures:
    """What is to be given back soon; belongs to one event loop."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, token: str, reviewer: Identity, request_id: str) -> bool:
        """Release a lease in GRACE_SECONDS; False where too many are under way, or the process stops."""
        if self._hurry.is_set() or len(self._tasks) >= DEPARTURES_MAX:
            return False
        task = asyncio.create_task(self._release(token, reviewer, request_id), name="departure")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def hurry(self) -> None:
        """Give back at once what is under way, and let nothing else wait."""
        self._hurry.set()

    async def close(self) -> None:
        """Return once everything is given back."""
        self.hurry()
        await asyncio.gather(*self._tasks)

    async def _release(self, token: str, reviewer: Identity, request_id: str) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), GRACE_SECONDS)
        try:
            await self._queue.release(token, reviewer=reviewer, request_id=request_id)
        except DemurError as error:
            log.info("nothing to give back", message=error.message)
