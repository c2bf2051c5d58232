"""Counts a server's deferrals anew, from the records alone, and compares with what the server keeps count of."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from fallback import keys
from fallback.config import Config
from fallback.store import Store

_PAGE: Final = 1_000
_ENDED: Final = ("resolved", "expired", "cancelled")
# Keys of fixed name that stay, however little is in them.
_STAY: Final = frozenset({"seq", "outcomes", "changes"})


class Recount(msgspec.Struct, frozen=True, kw_only=True):
    """What a server holds, by its own records.

    `problems`: counters that do not agree with them, one sentence each. `accepted`: how many deferrals each queue ever
    took. `records`: how many are there still. `bytes_used`: the server's memory. `bytes_lapsing`: the part of it in
    keys that will go by themselves. `lasting`: keys that will not, beside those that always stay.
    """

    problems: list[str]
    accepted: dict[str, int]
    records: int
    bytes_used: int
    bytes_lapsing: int
    lasting: list[str]


async def recount(config: Config) -> Recount:
    """Read everything on the server once; what moves meanwhile shows as a problem, so ask when nothing does.

    Raises UnavailableError.
    """
    store = Store(config)
    try:
        problems: list[str] = []
        accepted: dict[str, int] = {}
        records = 0
        for queue in await store.queues():
            fields = await _records(store, queue)
            records += len(fields)
            problems += [f"{queue}: {problem}" for problem in await _compare(store, queue, fields)]
            accepted[queue] = int(await _ask(store, "get", keys.index(queue, "seq")) or 0)
        lapsing, lasting = await _lives(store)
        info = await store.connection.attempt(lambda: store.connection.redis.info("memory"))
        return Recount(
            problems=problems,
            accepted=accepted,
            records=records,
            bytes_used=int(info["used_memory"]),
            bytes_lapsing=lapsing,
            lasting=lasting,
        )
    finally:
        await store.connection.close()


async def _compare(store: Store, queue: str, records: dict[str, dict[bytes, bytes]]) -> list[str]:
    states = Counter(record[b"state"].decode() for record in records.values())
    tasks = Counter(record[b"task"].decode() for record in records.values() if _is_open(record))
    holds = {
        f"{record[f's{slot}.holder'.encode()].decode()}\0{one}:{slot}"
        for one, record in records.items()
        if _is_open(record)
        for slot in range(int(record[b"slots"]))
        if record[f"s{slot}.state".encode()] == b"held"
    }
    found = []
    for name, expected in {
        "open": states["open"] + states["settling"],
        **{name: states[name] for name in _ENDED},
    }.items():
        got = await _ask(store, "zcard", keys.index(queue, name))
        # Entries of records whose time is over stay a moment longer than they do.
        if got < expected or (name == "open" and got != expected):
            found.append(f"{name}: counted {expected}, the index holds {got}")
    kept = await _ask(store, "hgetall", keys.index(queue, "tasks"))
    got = {field.decode(): int(count) for field, count in kept.items()}
    if got != dict(tasks):
        found.append(f"tasks: counted {dict(tasks)}, the hash says {got}")
    members = await store.connection.attempt(lambda: store.connection.redis.zrange(keys.index(queue, "holds"), 0, -1))
    held = {member.decode() for member in members}
    if held != holds:
        found.append(f"holds: counted {sorted(holds)}, the index holds {sorted(held)}")
    return found


def _is_open(record: dict[bytes, bytes]) -> bool:
    return record[b"state"] in {b"open", b"settling"}


async def _records(store: Store, queue: str) -> dict[str, dict[bytes, bytes]]:
    """Return the records that are there, by id."""
    names = [name async for name in _scan(store, keys.record(queue, "*"))]
    found = {}
    for name in names:
        record = await _ask(store, "hgetall", name)
        if record:
            found[name.removeprefix(keys.record(queue, ""))] = record
    return found


async def _lives(store: Store) -> tuple[int, list[str]]:
    """Return what keys with a time to live weigh, bytes, and which have none."""
    stay = {keys.QUEUES, *keys.document_indexes()}
    for queue in await store.queues():
        stay |= {keys.index(queue, name) for name in _STAY}
    weight, lasting = 0, []
    async for name in _scan(store, f"{keys.LAYOUT}:*"):
        if await _ask(store, "pttl", name) >= 0:
            weight += int(await _ask(store, "memory_usage", name) or 0)
        elif name not in stay and await _ask(store, "exists", name):
            lasting.append(name)
    return weight, sorted(lasting)


async def _scan(store: Store, pattern: str) -> Any:
    cursor, seen = 0, set()
    while True:
        cursor, found = await store.connection.attempt(
            lambda: store.connection.redis.scan(cursor, match=_escaped(pattern), count=_PAGE)  # noqa: B023 - awaited here
        )
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name.decode()
        if not cursor:
            return


def _escaped(pattern: str) -> str:
    """Leave `*` its meaning and take it from the braces' neighbours: names hold no other of the pattern's signs."""
    return pattern.replace("[", "\\[").replace("?", "\\?")


async def _ask(store: Store, command: str, name: str) -> Any:
    return await store.connection.attempt(lambda: getattr(store.connection.redis, command)(name))
