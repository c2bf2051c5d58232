"""How one waits for something in a queue: by looking, and looking again when woken, or by itself now and then."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fallback.config import RedisSettings
from fallback.errors import UnavailableError
from fallback.limits import Limits
from fallback.store import Store
from fallback.tail import Tail

# Waiters look again this often even if nothing woke them.
_LOOK_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.2
# Of a process's connections at most this share follows queues; who waits beyond looks again and again instead.
_TAILS_SHARE: Final = 0.5
_POLL_SECONDS: Final = 1.0

T = TypeVar("T")


class Waits:
    """All that is waited for in one process, and what follows the queues meanwhile."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._tails: dict[str, Tail] = {}
        settings = store.config.table("redis", RedisSettings)
        self._tails_max = max(1, int(settings.connections_max * _TAILS_SHARE))

    async def close(self) -> None:
        """Follow nothing any more."""
        for tail in self._tails.values():
            await tail.close()

    async def until(
        self,
        enough: Callable[[T], bool],
        look: Callable[[], Awaitable[T]],
        queue: str,
        topic: str,
        wait_seconds: float,
    ) -> T:
        """Look until it is enough or the time is over; a server that goes away while we wait is waited for too."""
        found = await look()
        if enough(found) or wait_seconds <= 0:
            return found
        deadline = time.monotonic() + wait_seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                tail = await self._tail(queue)
                if tail is not None:
                    with tail.subscribe(topic) as event:
                        return await self._follow(enough, look, event, deadline)
                await asyncio.sleep(min(_POLL_SECONDS, left))
                found = await look()
            except UnavailableError:
                await asyncio.sleep(min(_PAUSE_SECONDS, left))
                continue
            if enough(found):
                break
        return found

    async def _follow(
        self, enough: Callable[[T], bool], look: Callable[[], Awaitable[T]], event: asyncio.Event, deadline: float
    ) -> T:
        """Look, then again whenever `event` is set, until it is enough or the time is over."""
        while True:
            left = deadline - time.monotonic()
            try:
                found = await look()
            except UnavailableError:
                if left <= 0:
                    raise
                await asyncio.sleep(min(_PAUSE_SECONDS, left))
                continue
            if enough(found) or left <= 0:
                return found
            await _wait(event, min(_LOOK_SECONDS, left))

    async def _tail(self, queue: str) -> Tail | None:
        """Return what follows a queue; None for a queue that is not there (yet), or where too many are followed."""
        found = self._tails.get(queue)
        if found is None and await self._limits.known(queue):
            self._tails = {name: tail for name, tail in self._tails.items() if tail.running}
            if len(self._tails) < self._tails_max:
                found = self._tails.setdefault(queue, Tail(self._store.connection, queue))
        return found


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
