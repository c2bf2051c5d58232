"""Does what time asks for: lapses, closes, expires, finishes what a dead process left, forgets what is old.

Any number of reapers may run; every step is a script that looks again before it writes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog

from fallback import keys
from fallback.connection import apart
from fallback.contents import strays
from fallback.deferral import Event, State
from fallback.errors import DemurError, UnavailableError
from fallback.records import MS
from fallback.settling import close_over, conclude, expire, retention_ms
from fallback.store import Store, accepted

BATCH: Final = 128
# Leases that one run lapses: whoever leases meanwhile waits for it.
LAPSE_BATCH: Final = 32
# A round ends even where work comes in as fast as it is done.
BATCHES_MAX: Final = 64
CLOSING: Final = "close undo windows"

log = structlog.get_logger(__name__)


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """How many of what one round did."""

    lapsed: int = 0
    expired: int = 0
    escalated: int = 0
    closed: int = 0
    finished: int = 0
    purged: int = 0
    swept: int = 0

    def __add__(self, other: Reaped) -> Reaped:
        return Reaped(
            lapsed=self.lapsed + other.lapsed,
            expired=self.expired + other.expired,
            escalated=self.escalated + other.escalated,
            closed=self.closed + other.closed,
            finished=self.finished + other.finished,
            purged=self.purged + other.purged,
            swept=self.swept + other.swept,
        )


async def sweep_all(store: Store) -> Reaped:
    """Do one round in every queue. One that cannot be swept keeps no other waiting; raises what it failed with."""
    done, failed = Reaped(), None
    for queue in await store.queues():
        try:
            done += await sweep(store, queue)
        except DemurError as error:
            failed = failed or error
            # While the server is away each of them would fail, and take its time for it.
            await store.clock(queue)
    if failed is not None:
        raise failed
    return done


async def sweep(store: Store, queue: str) -> Reaped:
    """Do one round in one queue. One deferral that cannot be read does not keep the others waiting."""
    lapsed = await _batches(store, "lapse", queue, LAPSE_BATCH)
    finished = await _each(queue, await _members(store, queue, "full"), lambda one: _finish(store, queue, one))
    now_ms = await store.clock(queue) * MS
    due = await _members(store, queue, "settling", until_ms=now_ms)
    closed = await close_over(store, queue, due)
    overdue = await _members(store, queue, "expiry", until_ms=now_ms)
    escalated: list[str] = []
    expired = await _each(queue, overdue, lambda one: _expire(store, queue, one, escalated))
    purged = await _purge(store, queue)
    orphan_seconds = store.config.queue(queue).orphan_seconds
    await _batches(store, "orphans", queue, BATCH, int(orphan_seconds * MS))
    swept = await store.blobs.sweep(queue, orphan_seconds=orphan_seconds, strays=lambda ids: strays(store, queue, ids))
    return Reaped(
        lapsed=lapsed,
        finished=finished,
        closed=closed,
        expired=expired,
        escalated=len(escalated),
        purged=purged,
        swept=swept,
    )


async def close_windows(store: Store, queues: Sequence[str]) -> tuple[int, float | None]:
    """Close undo windows that are over; return of how many, and in how many seconds the next one is, None for none.

    A queue at which that fails keeps no other waiting; raises where the server is away.
    """
    queues = [queue for queue in queues if not store.troubles.resting(queue, CLOSING)]

    async def call() -> list[list[tuple[bytes, float]] | Exception]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for queue in queues:
            pipeline.zrange(keys.index(queue, "settling"), 0, BATCH, withscores=True)
        return apart(await pipeline.execute(raise_on_error=False))

    closed, nearest = 0, list[float]()
    for queue, found in zip(queues, await store.connection.attempt(call) if queues else [], strict=True):
        if not found:
            continue
        if isinstance(found, Exception):
            store.troubles.failed(queue, CLOSING, found)
            continue
        now_ms = await store.clock(queue) * MS
        over = [member.decode() for member, due in found if due <= now_ms]
        try:
            done = await close_over(store, queue, over)
        except DemurError as error:
            # Raises where the server is away.
            await store.clock(queue)
            store.troubles.failed(queue, CLOSING, error)
            continue
        store.troubles.went_well(queue, CLOSING)
        closed += done
        # Of what stays although it is over, nothing is to be done: whoever repairs it is not in a hurry.
        nearest += [(due - now_ms) / MS for _, due in found if due > now_ms][:1]
        if len(over) > BATCH and done:
            nearest.append(0.0)
    return closed, min(nearest, default=None)


async def _batches(store: Store, event: str, queue: str, batch: int, *arguments: int) -> int:
    total = 0
    for _ in range(BATCH * BATCHES_MAX // batch):
        (count,) = accepted(await store.run(event, queue, batch, *arguments), queue)
        total += count
        if count < batch:
            break
    return total


async def _purge(store: Store, queue: str) -> int:
    """Forget what is old, then its content; who dies in between leaves files to the sweep."""
    total = 0
    for _ in range(BATCHES_MAX):
        count, ids, untold = accepted(await store.run("purge", queue, BATCH, retention_ms(store, queue)), queue)
        if ids:
            await store.blobs.delete(queue, ids)
        if untold:
            # Whoever was to be told did not take it, and nobody redelivered it in all the time that it was kept.
            log.error("outcomes purged that nobody took", queue=queue, count=len(untold), ids=untold)
        total += len(ids)
        if count < BATCH:
            break
    return total


async def _members(store: Store, queue: str, index: str, *, until_ms: float | None = None) -> list[str]:
    key = keys.index(queue, index)
    redis = store.connection.redis
    end = "+inf" if until_ms is None else int(until_ms)
    found = await store.connection.attempt(
        lambda: redis.zrange(key, "-inf", end, byscore=True, offset=0, num=BATCH * BATCHES_MAX)
    )
    return [member.decode() for member in found]


async def _each(queue: str, ids: list[str], do: Callable[[str], Awaitable[bool]]) -> int:
    count = 0
    for one in ids:
        try:
            count += await do(one)
        except UnavailableError:
            raise
        except DemurError:
            log.exception("cannot end a deferral; going on with the others", queue=queue, id=one)
    return count


async def _finish(store: Store, queue: str, one: str) -> bool:
    record = await conclude(store, queue, one)
    return record.settling or record.deferral.state is State.RESOLVED


async def _expire(store: Store, queue: str, one: str, escalated: list[str]) -> bool:
    (record,) = await store.fetch(queue, [one])
    event = None if record is None else await expire(store, record)
    if event is Event.ESCALATE:
        escalated.append(one)
    return event is Event.EXPIRE
