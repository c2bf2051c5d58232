"""What a queue is over, what is said of it, and how long one more would wait: the doing beside `fallback.load`.

Every limit of a queue is judged in the script that would go beyond it; here stand the sentences. A queue over its depth
or budget is never silent about it: who asked is told, the log says so now and then, `ListQueues` shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import structlog

from fallback import keys
from fallback.config import QueueSettings
from fallback.deferral import Deferral, Parking, State
from fallback.errors import DemurError, FullError, OverError
from fallback.load import Load, expected_wait, read, retry_seconds
from fallback.records import MS
from fallback.store import Store

# Names of queues that a server keeps; each is swept several times a second.
QUEUES_MAX: Final = 1_000
FULL_RETRY_SECONDS: Final = 5.0
QUEUES_RETRY_SECONDS: Final = 3_600.0
# What was read of a queue's load is good for this long.
LOAD_SECONDS: Final = 1.0
# Who was parked waits no longer to hear how long it will take; after that nothing is said of it.
LOAD_READ_SECONDS: Final = 0.5
WARN_SECONDS: Final = 60.0
_SENTENCES: Final = {
    "depth_max": "holds {0} open deferrals, as many as it may (setting depth_max)",
    "open_max": "holds {0} open deferrals, as many as it keeps in any case (setting open_max)",
    "budget_per_hour": "had {0} reviews asked for in the last hour, and no more may be (setting budget_per_hour)",
    "bytes_max": "stores {0} bytes and has no room for this (setting bytes_max)",
    "outbox_max": "has {0} outcomes and dead letters still to be told, and takes no callbacks now (setting outbox_max)",
}
# Where these are reached, the queue does as its setting when_over says.
SOFT: Final = frozenset({"depth_max", "open_max", "budget_per_hour"})

log = structlog.get_logger(__name__)


class Limits:
    """The limits of all queues; belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loads: dict[str, tuple[float, Load | None]] = {}
        self._known: set[str] = set()
        self._warned: dict[tuple[str, str], tuple[float, int]] = {}

    async def load(self, queue: str) -> Load | None:
        """Return a queue's load, at most LOAD_SECONDS old; None where it cannot be read at once, for as long."""
        read_at, known = self._loads.get(queue, (float("-inf"), None))
        if time.monotonic() - read_at < LOAD_SECONDS:
            return known
        fresh = None
        try:
            async with asyncio.timeout(LOAD_READ_SECONDS):
                fresh = await self._read(queue)
        except (DemurError, TimeoutError) as error:
            log.info("cannot say how long a queue's deferrals wait", queue=queue, error=str(error))
        self._loads[queue] = time.monotonic(), fresh
        return fresh

    async def known(self, queue: str) -> bool:
        """Whether a queue is configured, or something was ever parked in it."""
        if queue in self._known:
            return True
        redis = self._store.connection.redis
        configured = queue in self._store.config.queue_names()
        if configured or await self._store.connection.attempt(lambda: redis.sismember(keys.QUEUES, queue)):
            self._known.add(queue)
        return queue in self._known

    async def unknown(self, queues: Iterable[str]) -> dict[str, DemurError]:
        """Return those of `queues` that are new and one too many, each with its refusal."""
        new = [queue for queue in queues if not await self.known(queue)]
        if not new:
            return {}
        redis = self._store.connection.redis
        count = await self._store.connection.attempt(lambda: redis.scard(keys.QUEUES))
        if count + len(new) <= QUEUES_MAX:
            # What is parked next makes them known: nobody asks again before each.
            self._known.update(new)
            return {}
        return {
            queue: FullError(
                f"queue {queue}: is new, and there are {count} queues, of at most {QUEUES_MAX}; use one of those, or "
                "configure this one",
                retry_after_seconds=QUEUES_RETRY_SECONDS,
            )
            for queue in new
        }

    def parked(self, load: Load | None, parking: Parking, ahead: int) -> float | None:
        """Return how long what was just parked is expected to wait, with `ahead` deferrals before it."""
        if load is None or not load.reviews:
            return None
        settings = self._store.config.queue(parking.queue)
        return expect(load, settings, ahead=ahead, priority=parking.priority, seconds_max=parking.review_seconds)

    async def open(self, deferral: Deferral) -> float | None:
        """Return how long an OPEN deferral is still expected to wait; None where nothing can be said, or it ended."""
        if deferral.state is not State.OPEN:
            return None
        queue, load = deferral.queue, await self.load(deferral.queue)
        if load is None or not load.reviews:
            return None

        async def call() -> list[int | None]:
            pipeline = self._store.connection.redis.pipeline(transaction=False)
            for index in keys.FREE:
                pipeline.zrank(keys.index(queue, index), deferral.id)
            return list(await pipeline.execute())

        ranks = await self._store.connection.attempt(call)
        # What waits at no tier is under way: somebody holds it, or all its reviews are in.
        ahead = next((rank for rank in ranks if rank is not None), 0)
        left = max(0.0, deferral.expire_time - await self._store.clock(queue))
        settings = self._store.config.queue(queue)
        return expect(load, settings, ahead=ahead, priority=deferral.priority, seconds_max=left)

    def refusal(self, load: Load | None, queue: str, limit: str, much: int, room_ms: int) -> OverError:
        """Return what is said of a request that a queue is over `limit` for, and say it to the log now and then."""
        settings = self._store.config.queue(queue)
        unreviewed = settings.when_over == "answer_unreviewed" and limit in SOFT
        self.warn(queue, limit, "answers unreviewed" if unreviewed else "refuses")
        return OverError(
            f"{sentence(queue, limit, much)}; try again later",
            queue=queue,
            limit=limit,
            unreviewed=unreviewed,
            retry_after_seconds=_retry(load, settings, limit, much, room_ms),
        )

    def warn(self, queue: str, limit: str, does: str) -> None:
        """Log that a queue is over a limit; at most once in WARN_SECONDS each, with how often it was meanwhile."""
        said_at, count = self._warned.get((queue, limit), (0.0, 0))
        now, count = time.monotonic(), count + 1
        if said_at and now - said_at < WARN_SECONDS:
            self._warned[queue, limit] = said_at, count
            return
        self._warned[queue, limit] = now, 0
        log.warning("queue over its limit", queue=queue, limit=limit, does=does, requests=count)

    async def _read(self, queue: str) -> Load:
        async def call() -> list[Any]:
            pipeline = self._store.connection.redis.pipeline(transaction=False)
            pipeline.hgetall(keys.index(queue, "load"))
            pipeline.zcard(keys.index(queue, "leases"))
            return list(await pipeline.execute())

        # Asked for by itself: a cluster's pipelines take nothing that has no key.
        now = await self._store.clock(queue, once=True)
        fields, held = await self._store.connection.attempt(call, once=True)
        return read(fields, now=now, held=held)


def expect(
    load: Load, settings: QueueSettings, *, ahead: int, priority: int, seconds_max: float | None = None
) -> float | None:
    """Return how long one with `ahead` deferrals before it is expected to wait; None where nothing can be said."""
    return expected_wait(
        load,
        ahead=ahead,
        priority=priority,
        wanted=settings.reviews_wanted,
        undo_seconds=settings.undo_seconds,
        seconds_max=settings.review_seconds if seconds_max is None else seconds_max,
    )


def sentence(queue: str, limit: str, much: int) -> str:
    """Return what a queue is over, naming the setting."""
    return f"queue {queue}: {_SENTENCES[limit].format(much)}"


def beyond(settings: QueueSettings, load: Load, *, depth: int, untold: int) -> tuple[str, ...]:
    """Return the limits that a queue which holds so much has reached, by the names of their settings."""
    reached = {
        "depth_max": depth >= settings.depth_max,
        "open_max": settings.when_over == "keep" and depth >= settings.open_max,
        "budget_per_hour": 0 < settings.budget_per_hour < load.asked + settings.reviews_wanted,
        "bytes_max": load.content_bytes >= settings.bytes_max,
        "drafts_bytes_max": load.draft_bytes >= settings.drafts_bytes_max,
        "outbox_max": untold >= settings.outbox_max,
    }
    return tuple(limit for limit, there in reached.items() if there)


def _retry(load: Load | None, settings: QueueSettings, limit: str, much: int, room_ms: int) -> float:
    if limit == "budget_per_hour" and room_ms:
        return room_ms / MS
    if load is None or limit not in {"depth_max", "open_max"}:
        return FULL_RETRY_SECONDS
    most = settings.depth_max if limit == "depth_max" else settings.open_max
    return retry_seconds(load, beyond=much - most + 1, wanted=settings.reviews_wanted, otherwise=FULL_RETRY_SECONDS)
