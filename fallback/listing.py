"""Lists deferrals and says how full the queues are."""

from __future__ import annotations

from heapq import merge
from itertools import islice
from typing import Any, Final

import msgspec

from fallback import keys
from fallback.config import check_queue_name
from fallback.contents import noted
from fallback.deferral import Deferral, State
from fallback.errors import InvalidError
from fallback.limits import beyond, expect
from fallback.load import read
from fallback.records import MS
from fallback.store import NO_REQUEST, Store, accepted

PAGE_MAX: Final = 1_000
# Reviewers at work are counted up to this.
REVIEWERS_MAX: Final = 1_000
# What `states` asks of each queue.
_COUNTED: Final = (*keys.FREE, "open", "leases", "outbox", "dead")
_ASKED: Final = len(_COUNTED) + 2
_INDEXES: Final = {
    State.OPEN: ("open",),
    State.SETTLING: ("open",),
    State.RESOLVED: ("resolved",),
    State.EXPIRED: ("expired",),
    State.CANCELLED: ("cancelled",),
    None: ("open", "resolved", "expired", "cancelled"),
}


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """How full a queue is: deferrals with a free slot, held places, OPEN deferrals, reviewers who hold something.

    `tiers` says how many wait at each, by name, none where the queue has none; `next_free_time` when the next lease
    lapses (Unix seconds), and `next_free_seconds` how long that is from now; None where nobody holds anything.
    `expected_wait_seconds`: how long an item that came now, of the lowest priority, would wait; None where nobody gave
    a review lately. `over`: the limits that are reached, by the names of their settings. `content_bytes`: what is
    stored. `asked_last_hour`: reviews asked for, counted where there is a budget.
    """

    name: str
    waiting: int
    held: int
    open: int
    assisted: bool
    lease_seconds: float
    undo_seconds: float
    reviewers: int
    tiers: tuple[tuple[str, int], ...] = ()
    next_free_time: float | None = None
    next_free_seconds: float | None = None
    expected_wait_seconds: float | None = None
    over: tuple[str, ...] = ()
    content_bytes: int = 0
    asked_last_hour: int = 0
    budget_per_hour: int = 0
    depth_max: int = 0


async def page(
    store: Store, queue: str, state: State | None, page_size: int, page_token: str, *, flagged: bool = False
) -> tuple[list[Deferral], str]:
    """Return up to `page_size` deferrals, the youngest first, and the token of the next page, empty at the end.

    With `flagged` a page is what is in `state` among the next `page_size` flagged ones.
    """
    check_queue_name(queue)
    if not 1 <= page_size <= PAGE_MAX:
        raise InvalidError(f"page_size: expected 1 to {PAGE_MAX}, got {page_size}")
    if page_token and not (page_token.isascii() and page_token.isdigit() and len(page_token) < 16):  # noqa: PLR2004
        raise InvalidError(f"page_token: expected one that came with a page, got {page_token[:60]!r}")
    end = f"({page_token}" if page_token else "+inf"
    lists = await _lists(store, queue, ("flagged",) if flagged else _INDEXES[state], end, page_size + 1)
    # A deferral that ended between two of the reads may stand in two of the lists.
    entries = dict(islice(merge(*lists, key=lambda entry: -entry[1]), page_size + 1))
    ids = list(entries)[:page_size]
    found = await noted(store, queue, [record for record in await store.fetch(queue, ids) if record is not None])
    if flagged and state is not None:
        found = [deferral for deferral in found if deferral.state is state]
    return found, str(entries[ids[-1]]) if len(entries) > page_size else ""


async def states(store: Store) -> list[QueueState]:
    """Return how full each queue is, by name."""
    names = await store.queues()

    async def call() -> list[Any]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for name in names:
            for index in _COUNTED:
                pipeline.zcard(keys.index(name, index))
            pipeline.hgetall(keys.index(name, "load"))
            pipeline.zrange(keys.index(name, "leases"), 0, 0, withscores=True)
        return list(await pipeline.execute())

    if not names:
        return []
    now = await store.clock(names[0])
    found = await store.connection.attempt(call)
    return [
        await _state(store, name, now, found[_ASKED * number : _ASKED * (number + 1)])
        for number, name in enumerate(names)
    ]


async def _state(store: Store, name: str, now: float, found: list[Any]) -> QueueState:
    settings = store.config.queue(name)
    waiting, (open_, leases, outbox, dead, fields, first) = found[: len(keys.FREE)], found[len(keys.FREE) :]
    load = read(fields, now=now, held=leases)
    reviewers = accepted(await store.run("holders", name, REVIEWERS_MAX, request=NO_REQUEST), name) if first else [0]
    free_time = first[0][1] / MS if first else None
    return QueueState(
        name=name,
        waiting=sum(waiting),
        held=leases,
        open=open_,
        reviewers=reviewers[0],
        assisted=settings.assisted,
        lease_seconds=settings.lease_seconds,
        undo_seconds=settings.undo_seconds,
        tiers=tuple(zip(settings.tiers, waiting, strict=False)),
        next_free_time=free_time,
        next_free_seconds=None if free_time is None else max(0.0, free_time - now),
        expected_wait_seconds=expect(load, settings, ahead=sum(waiting), priority=0),
        over=beyond(settings, load, depth=open_, untold=outbox + dead),
        content_bytes=load.content_bytes,
        asked_last_hour=load.asked,
        budget_per_hour=settings.budget_per_hour,
        depth_max=settings.depth_max,
    )


async def _lists(store: Store, queue: str, names: tuple[str, ...], end: str, count: int) -> list[list[tuple[str, int]]]:
    async def call() -> list[list[tuple[bytes, float]]]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for name in names:
            pipeline.zrevrangebyscore(keys.index(queue, name), end, "-inf", start=0, num=count, withscores=True)
        return list(await pipeline.execute())

    found = await store.connection.attempt(call)
    return [[(member.decode(), int(seq)) for member, seq in entries] for entries in found]
