"""Lists deferrals and says how full the queues are."""

from __future__ import annotations

from heapq import merge
from itertools import islice
from typing import Any, Final

import msgspec

from fallback import keys
from fallback.config import check_queue_name
from fallback.deferral import Deferral, State
from fallback.errors import InvalidError
from fallback.records import MS
from fallback.store import NO_REQUEST, Store, accepted

PAGE_MAX: Final = 1_000
# Reviewers at work are counted up to this.
REVIEWERS_MAX: Final = 1_000
_FREE: Final = ("free", "free1", "free2", "free3")
_INDEXES: Final = {
    State.OPEN: ("open",),
    State.SETTLING: ("open",),
    State.RESOLVED: ("resolved",),
    State.EXPIRED: ("expired",),
    State.CANCELLED: ("cancelled",),
    None: ("open", "resolved", "expired", "cancelled"),
}


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """How full a queue is: deferrals with a free slot, with a held one, OPEN ones; reviewers who hold something.

    `tiers` says how many wait at each, by name, none where the queue has none; `next_free_time` when the next lease
    lapses (Unix seconds), None where nobody holds anything.
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
    found = [record.deferral for record in await store.fetch(queue, ids) if record is not None]
    if flagged and state is not None:
        found = [deferral for deferral in found if deferral.state is state]
    return found, str(entries[ids[-1]]) if len(entries) > page_size else ""


async def states(store: Store) -> list[QueueState]:
    """Return how full each queue is, by name."""
    names = await store.queues()

    async def call() -> list[Any]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for name in names:
            for free in _FREE:
                pipeline.zcard(keys.index(name, free))
            pipeline.hlen(keys.index(name, "holding"))
            pipeline.zcard(keys.index(name, "open"))
            pipeline.zrange(keys.index(name, "leases"), 0, 0, withscores=True)
        return list(await pipeline.execute())

    counts = await store.connection.attempt(call) if names else []
    each = len(_FREE) + 3
    return [
        await _state(store, name, counts[at * each : at * each + len(_FREE)], *counts[at * each + len(_FREE) :][:3])
        for at, name in enumerate(names)
    ]


async def _state(
    store: Store, name: str, waiting: list[int], held: int, opened: int, first: list[tuple[bytes, float]]
) -> QueueState:
    settings = store.config.queue(name)
    reviewers = accepted(await store.run("holders", name, REVIEWERS_MAX, request=NO_REQUEST), name) if first else [0]
    return QueueState(
        name=name,
        waiting=sum(waiting),
        held=held,
        open=opened,
        reviewers=reviewers[0],
        assisted=settings.assisted,
        lease_seconds=settings.lease_seconds,
        undo_seconds=settings.undo_seconds,
        tiers=tuple(zip(settings.tiers, waiting, strict=False)),
        next_free_time=first[0][1] / MS if first else None,
    )


async def _lists(store: Store, queue: str, names: tuple[str, ...], end: str, count: int) -> list[list[tuple[str, int]]]:
    async def call() -> list[list[tuple[bytes, float]]]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for name in names:
            pipeline.zrevrangebyscore(keys.index(queue, name), end, "-inf", start=0, num=count, withscores=True)
        return list(await pipeline.execute())

    found = await store.connection.attempt(call)
    return [[(member.decode(), int(seq)) for member, seq in entries] for entries in found]
