"""Counts a server's deferrals anew, from the records alone, and compares with what the server keeps count of."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from fallback import keys
from fallback.config import Config
from fallback.store import Store

_PAGE: Final = 1_000
_ENDED: Final = ("resolved", "expired", "cancelled")
# Keys of fixed name that stay, however little is in them.
_STAY: Final = frozenset({"seq", "outcomes", "changes", "load"})


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
            # The sizes first: what lapses meanwhile is then in them, never only among the records.
            sizes = {name: await _ask(store, "zcard", keys.index(queue, name)) for name in ("open", *_ENDED)}
            fields = await _records(store, queue)
            records += len(fields)
            problems += [f"{queue}: {problem}" for problem in await _compare(store, queue, fields, sizes)]
            accepted[queue] = int(await _ask(store, "get", keys.index(queue, "seq")) or 0)
        lapsing, lasting = await _lives(store)
        used = 0
        for where in await store.connection.attempt(store.connection.client.primaries):
            info = await store.connection.attempt(lambda: store.connection.redis.info("memory", **where))  # noqa: B023 - awaited here
            used += int(info["used_memory"])
        return Recount(
            problems=problems,
            accepted=accepted,
            records=records,
            bytes_used=used,
            bytes_lapsing=lapsing,
            lasting=lasting,
        )
    finally:
        await store.connection.close()


async def _compare(
    store: Store, queue: str, records: dict[str, dict[bytes, bytes]], sizes: dict[str, int]
) -> list[str]:
    states = Counter(record[b"state"].decode() for record in records.values())
    tasks = Counter(record[b"task"].decode() for record in records.values() if _is_open(record))
    open_ = {one: record for one, record in records.items() if _is_open(record)}
    found = []
    for name, expected in {
        "open": states["open"] + states["settling"],
        **{name: states[name] for name in _ENDED},
    }.items():
        size = sizes[name]
        # Entries of records whose time is over stay a moment longer than they do.
        if size < expected or (name == "open" and size != expected):
            found.append(f"{name}: counted {expected}, the index holds {size}")
    kept = await _ask(store, "hgetall", keys.index(queue, "tasks"))
    got = {field.decode(): int(count) for field, count in kept.items()}
    if got != dict(tasks):
        found.append(f"tasks: counted {dict(tasks)}, the hash says {got}")
    for name, state in {"holds": b"held", "answered": b"filled"}.items():
        people = _people(open_, state)
        key = keys.index(queue, name)
        members = await store.connection.attempt(lambda: store.connection.redis.zrange(key, 0, -1))  # noqa: B023 - awaited here
        there = {member.decode() for member in members}
        if there != people:
            found.append(f"{name}: counted {sorted(people)}, the index holds {sorted(there)}")
    return found


def _people(records: dict[str, dict[bytes, bytes]], state: bytes) -> set[str]:
    """Return who stands in a slot that is in `state`, with the deferral's id, as the indexes have it."""
    return {
        f"{record[f's{slot}.holder'.encode()].decode()}\0{one}"
        for one, record in records.items()
        for slot in range(int(record[b"slots"]))
        if record.get(f"s{slot}.state".encode()) == state
    }


def _is_open(record: dict[bytes, bytes]) -> bool:
    return record[b"state"] in {b"open", b"settling"}


async def _records(store: Store, queue: str) -> dict[str, dict[bytes, bytes]]:
    """Return the records that are there, by id."""
    found: dict[str, dict[bytes, bytes]] = {}
    async for names in _scan(store, keys.record(queue, "*")):
        records = await _ask_all(store, "hgetall", names)
        found |= {
            name.removeprefix(keys.record(queue, "")): record
            for name, record in zip(names, records, strict=True)
            if record
        }
    return found


async def _lives(store: Store) -> tuple[int, list[str]]:
    """Return what keys with a time to live weigh, bytes, and which have none."""
    stay = {keys.QUEUES, *keys.document_indexes()}
    for queue in await store.queues():
        stay |= {keys.trimmed(queue), *(keys.index(queue, name) for name in _STAY)}
    weight, lasting = 0, []
    async for names in _scan(store, f"{keys.LAYOUT}:*"):
        lives = await _ask_all(store, "pttl", names)
        weights = await _ask_all(store, "memory_usage", names)
        weight += sum(one or 0 for life, one in zip(lives, weights, strict=True) if life >= 0)
        # Less than -1: it went since the scan.
        lasting += [name for name, life in zip(names, lives, strict=True) if life == -1 and name not in stay]
    return weight, sorted(lasting)


async def _scan(store: Store, pattern: str) -> AsyncIterator[list[str]]:
    """Yield the names that match, some at a time, each once."""
    seen = set[str]()
    for where in await store.connection.attempt(store.connection.client.primaries):
        cursor = 0
        while True:
            cursor, found = await store.connection.attempt(lambda: _page(store, pattern, cursor, where))  # noqa: B023 - awaited here
            fresh = {name.decode() for name in found} - seen
            seen |= fresh
            yield sorted(fresh)
            if not cursor:
                break


async def _page(store: Store, pattern: str, cursor: int, where: dict[str, Any]) -> tuple[int, list[bytes]]:
    """Return one page of a server's keys; a cluster's client says it by node."""
    cursors, found = await store.connection.redis.scan(cursor, match=_escaped(pattern), count=_PAGE, **where)
    (after,) = cursors.values() if isinstance(cursors, dict) else (cursors,)
    return int(after), list(found)


def _escaped(pattern: str) -> str:
    """Leave `*` its meaning and take it from the braces' neighbours: names hold no other of the pattern's signs."""
    return pattern.replace("[", "\\[").replace("?", "\\?")


async def _ask(store: Store, command: str, name: str) -> Any:
    return await store.connection.attempt(lambda: getattr(store.connection.redis, command)(name))


async def _ask_all(store: Store, command: str, names: Sequence[str]) -> list[Any]:
    """Ask the same of several keys in one go."""

    async def call() -> list[Any]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for name in names:
            getattr(pipeline, command)(name)
        return list(await pipeline.execute())

    return await store.connection.attempt(call)
