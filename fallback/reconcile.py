"""Proves that everything open stands in exactly one index, and that nothing else stands in any."""

from __future__ import annotations

from typing import Final

from fallback import keys
from fallback.store import Store, accepted

_BATCH: Final = 200
# The indexes whose members are ids of deferrals, or begin with one.
_OPEN: Final = ("open", "free", "free1", "free2", "free3", "held", "full", "settling")
_SORTED: Final = (
    "open",
    "free",
    "free1",
    "free2",
    "free3",
    "held",
    "full",
    "settling",
    "leases",
    "expiry",
    "resolved",
    "expired",
    "cancelled",
    "ended",
)


async def problems(store: Store, queue: str) -> list[str]:
    """Return what does not agree, one sentence each; each deferral is compared in one step of the server."""
    ids = sorted(await _ids(store, queue))
    found: list[str] = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found += [str(problem) for problem in accepted(await store.run("inspect", queue, *batch), queue)]
    found += await _bytes(store, queue)
    return [f"{queue}: {problem}" for problem in dict.fromkeys(found)]


async def _bytes(store: Store, queue: str) -> list[str]:
    """Compare the bytes that are counted with what stands there; nothing where something came or went meanwhile."""
    redis, load = store.connection.redis, keys.index(queue, "load")

    async def counted() -> dict[str, int]:
        fields = await store.connection.attempt(lambda: redis.hgetall(load))
        told = {field.decode(): int(count) for field, count in fields.items()}
        return {name: told.get(name, 0) for name in ("bytes", "drafts")}

    before = await counted()
    # What is missing from one of these stands in another.
    ids = sorted({one for name in (*_OPEN, "ended") for one in await _members(store, queue, name)})
    sums = {"bytes": 0, "drafts": 0}
    for start in range(0, len(ids), _BATCH):
        content, drafts = accepted(await store.run("weigh", queue, *ids[start : start + _BATCH]), queue)
        sums["bytes"] += content
        sums["drafts"] += drafts
    if await counted() != before:
        return []
    return [
        f"load: {name}: expected {expected}, got {before[name]}"
        for name, expected in sums.items()
        if before[name] != expected
    ]


async def _ids(store: Store, queue: str) -> set[str]:
    return {one for name in (*_SORTED, "holds", "answered") for one in await _members(store, queue, name)}


async def _members(store: Store, queue: str, name: str) -> list[str]:
    """Return the ids that stand in an index, each once."""
    ids: dict[str, None] = {}
    key, redis, cursor = keys.index(queue, name), store.connection.redis, 0
    while True:
        cursor, members = await store.connection.attempt(lambda: redis.zscan(key, cursor, count=1_000))  # noqa: B023 - awaited at once
        # In `holds` and `answered` the reviewer comes first, in `leases` the slot last.
        ids |= dict.fromkeys(member.decode().rpartition("\0")[2].partition(":")[0] for member, _ in members)
        if cursor == 0:
            return list(ids)
