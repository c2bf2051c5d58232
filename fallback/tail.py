"""Wakes those who wait for something in a queue: one reader of the queue's two streams for all waiters of a process.

A waiter subscribes to a topic, looks, and waits for the topic's event; whatever happens after it subscribed sets the
event, so nothing is missed between looking and waiting. A reader that begins, or begins again after the server was
away, sets every event once: what it did not see may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from fallback import keys
from fallback.connection import Connection
from fallback.errors import UnavailableError

WORK: Final = "work"
OUTCOMES: Final = "outcomes"
_PAUSE_SECONDS: Final = 0.2
_BATCH: Final = 1_000

# A stream's key and its entries: id and fields.
Stream = tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]

log = structlog.get_logger(__name__)


class Tail:
    """The reader of one queue; runs while somebody waits."""

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._topics: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the topic may have news: WORK, OUTCOMES, or the id of a deferral."""
        event = asyncio.Event()
        self._topics.setdefault(topic, set()).add(event)
        if self._task is None:
            self._task = asyncio.create_task(self._read(), name=f"tail of {self._queue}")
        try:
            yield event
        finally:
            events = self._topics[topic]
            events.discard(event)
            if not events:
                del self._topics[topic]

    @property
    def running(self) -> bool:
        """Whether somebody waits, or did a moment ago."""
        return bool(self._topics) or self._task is not None

    async def close(self) -> None:
        """Stop reading; those who wait go on to their time-outs."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read(self) -> None:
        while self._topics:
            try:
                await self._follow()
            except UnavailableError:
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                # The task's root: whatever it was, those who wait must still be woken by what comes.
                log.exception("cannot follow a queue; trying again", queue=self._queue)
                await asyncio.sleep(_PAUSE_SECONDS)
        self._task = None

    async def _follow(self) -> None:
        streams = {keys.index(self._queue, name): await self.last(name) for name in ("outcomes", "changes")}
        for topic in list(self._topics):
            self._wake(topic)
        while self._topics:
            for stream, entries in await self._next(streams):
                name = stream.decode()
                streams[name] = entries[-1][0].decode()
                if name == keys.index(self._queue, "changes"):
                    self._wake(WORK)
                else:
                    self._wake(OUTCOMES)
                    for _, fields in entries:
                        self._wake(fields[b"id"].decode())

    async def _next(self, streams: dict[str, str]) -> list[Stream]:
        block_ms = int(self._connection.block_seconds * 1000)
        redis = self._connection.redis
        found: list[Stream] | None = await self._connection.attempt(
            lambda: redis.xread(streams, count=_BATCH, block=block_ms)
        )
        return found or []

    async def last(self, name: str) -> str:
        """Return the id of the newest entry that one of the queue's streams ever had."""
        return await self._connection.newest(keys.index(self._queue, name))

    def _wake(self, topic: str) -> None:
        for event in self._topics.get(topic, ()):
            event.set()
