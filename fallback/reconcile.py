"""Proves that everything open stands in exactly one index, and that nothing else stands in any."""

from __future__ import annotations

from typing import Final

from fallback import keys
from fallback.store import Store, accepted

_BATCH: Final = 200
# The indexes whose members are ids of deferrals, or begin with one.
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
    return [f"{queue}: {problem}" for problem in dict.fromkeys(found)]


async def _ids(store: Store, queue: str) -> set[str]:
    ids: set[str] = set()
    redis = store.connection.redis
    for name in (*_SORTED, "holding", "holds"):
        key = keys.index(queue, name)
        cursor = 0
        while True:
            scan = redis.hscan if name == "holding" else redis.zscan
            cursor, members = await store.connection.attempt(lambda: scan(key, cursor, count=1_000))  # noqa: B023
            names = [(member if isinstance(member, bytes) else member[0]).decode() for member in members]
            # In `holds` the reviewer comes first.
            ids |= {member.rpartition("\0")[2].partition(":")[0] for member in names}
            if cursor == 0:
                break
    return ids
