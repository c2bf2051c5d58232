"""What operators see and do about callbacks: list what is still told and what was given up, look at one, tell again.

A callback's name is `queues/<queue>/callbacks/<id>`; its id is its deferral's, for a deferral has one outcome to tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fallback import keys
from fallback.config import check_queue_name
from fallback.connection import Argument
from fallback.deferral import Callback, deferral_name
from fallback.errors import DemurError, InvalidError, NotFoundError
from fallback.outbox import Delivery, deliveries, target_of, with_gone
from fallback.queue_settings import QUEUE_NAME
from fallback.records import MS, Record
from fallback.store import NAME_CHARS_MAX, Store, accepted

IDS_MAX: Final = 1_000
PAGE_MAX: Final = 1_000
BATCHES_MAX: Final = 100_000
_TOKEN: Final = re.compile(r"(\d{1,15})-(\d{1,9})", re.ASCII)


class CallbackState(Enum):
    """Where a callback stands."""

    PENDING = "pending"  # due, waiting for its next attempt, or under way
    DEAD = "dead"  # given up; redeliver
    TOLD = "told"  # the receiver took it


_INDEXES: Final = {CallbackState.PENDING: "outbox", CallbackState.DEAD: "dead"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackEntry:
    """One callback as it stands; `deferral` is that one's name, `version` the version of it that is told.

    `time` is when it is due next, or when it was given up, Unix seconds; 0: neither. While an attempt is under way it
    is due when that attempt would be given to another dispatcher. `disabled`: its target answered 410 Gone.
    `callback` is None where its record cannot be read: `reason` says why, nothing else is known of it, and redelivered
    it is told once somebody has repaired that.
    """

    name: str
    deferral: str
    version: int
    type: str
    callback: Callback | None
    state: CallbackState
    attempt: int
    create_time: float
    time: float = 0.0
    reason: str = ""
    disabled: bool = False


async def page(
    store: Store, queue: str, state: CallbackState, page_size: int, page_token: str
) -> tuple[list[CallbackEntry], str]:
    """Return up to `page_size` callbacks, those due or given up first before others, and the next page's token.

    The list moves while it is read: what is redelivered or told between two pages may shift the rest by as much. A
    page may hold fewer than there are; the token is empty at the end.
    """
    check_queue_name(queue)
    if state not in _INDEXES:
        raise InvalidError("state: expected PENDING or DEAD")
    if not 1 <= page_size <= PAGE_MAX:
        raise InvalidError(f"page_size: expected 1 to {PAGE_MAX}, got {page_size}")
    start, skipped = _token(page_token)
    rows = await _rows(store, queue, _INDEXES[state], f"{start}", skipped, page_size + 1)
    shown = rows[:page_size]
    token = ""
    if len(rows) > page_size:
        last = shown[-1][1]
        same = sum(score == last for _, score in shown)
        token = f"{last}-{same + (skipped if last == start else 0)}"
    return await _entries(store, queue, state, shown), token


async def dead_letters(store: Store, queue: str) -> list[Delivery]:
    """Return the oldest PAGE_MAX outcomes that nobody took."""
    check_queue_name(queue)
    rows = await _rows(store, queue, "dead", "-inf", 0, PAGE_MAX)
    return deliveries(await store.fetch(queue, [one for one, _ in rows]))


async def get(store: Store, name: str) -> CallbackEntry:
    """Return one callback; raises NotFoundError for what never had one to tell, or is kept no more."""
    queue, one = parse(name)
    redis = store.connection.redis

    async def call() -> list[float | None]:
        pipeline = redis.pipeline(transaction=False)
        for index in _INDEXES.values():
            pipeline.zscore(keys.index(queue, index), one)
        return list(await pipeline.execute())

    scores = await store.connection.attempt(call)
    for state, score in zip(_INDEXES, scores, strict=True):
        if score is not None:
            found = await _entries(store, queue, state, [(one, int(score))])
            break
    else:
        told = [each for each in deliveries(await store.fetch(queue, [one])) if each.type]
        found = [_entry(each, CallbackState.TOLD, 0.0) for each in await with_gone(store, queue, told)]
    if not found:
        raise NotFoundError(f"{name}: no such callback; it never was, or its retention time is over")
    return found[0]


async def redeliver(store: Store, queue: str, ids: Sequence[str], request_id: str) -> int:
    """Make dead letters due now, and have their targets called again; returns how many of `ids` were any."""
    check_queue_name(queue)
    if len(ids) > IDS_MAX:
        raise InvalidError(f"names: expected at most {IDS_MAX}, got {len(ids)}")
    if not ids:
        return 0
    request = store.request(queue, request_id, "redeliver", queue, *sorted(ids))
    reply = await store.run("redeliver", queue, "", *await _with_targets(store, queue, ids), request=request)
    return int(accepted(reply, queue)[0])


async def redeliver_all(store: Store, queue: str, request_id: str) -> int:
    """Make all that were given up until now due now, batch by batch; returns how many.

    Each batch has a request of its own, which also remembers whether there were more: a repeat after a crash goes on
    where the first stopped, and a repeat after success finds every batch done.
    """
    check_queue_name(queue)
    total, until_ms = 0, int(await store.clock(queue) * MS)
    for number in range(BATCHES_MAX):
        rows = await _rows(store, queue, "dead", "-inf", 0, IDS_MAX + 1, until=str(until_ms))
        note = f"{until_ms} {'more' if len(rows) > IDS_MAX else 'end'}"
        ids = [one for one, _ in rows[:IDS_MAX]]
        request = store.request(queue, request_id, f"redeliver all {number}", queue)
        reply = await store.run("redeliver", queue, note, *await _with_targets(store, queue, ids), request=request)
        count, kept = accepted(reply, queue)
        total += int(count)
        # What is given up anew while this goes on is not told again by it, nor by its repeat.
        until, more = str(kept).split(" ")
        until_ms = int(until)
        if more == "end":
            break
    return total


async def enable(store: Store, queue: str, target: str) -> bool:
    """Have a target called again that said it is gone for good; returns whether it had."""
    check_queue_name(queue)
    redis, key = store.connection.redis, keys.gone(queue, target)
    return bool(await store.connection.attempt(lambda: redis.unlink(key)))


def parse(name: str, field: str = "name") -> tuple[str, str]:
    """Return queue and id of `queues/<queue>/callbacks/<id>`; raises InvalidError naming `field`."""
    parts = name.split("/") if len(name) <= NAME_CHARS_MAX else []
    match parts:
        case ["queues", queue, "callbacks", one] if QUEUE_NAME.fullmatch(queue) and one.isascii() and one.isalnum():
            return queue, one
    raise InvalidError(f"{field}: expected queues/<queue>/callbacks/<id>, got {name[:100]!r}")


async def _rows(
    store: Store, queue: str, index: str, start: str, skipped: int, count: int, *, until: str = "+inf"
) -> list[tuple[str, int]]:
    key, redis = keys.index(queue, index), store.connection.redis
    rows = await store.connection.attempt(
        lambda: redis.zrange(key, start, until, byscore=True, offset=skipped, num=count, withscores=True)
    )
    return [(member.decode(), int(score)) for member, score in rows]


async def _entries(
    store: Store, queue: str, state: CallbackState, rows: Sequence[tuple[str, int]]
) -> list[CallbackEntry]:
    times = dict(rows)
    read = await store.read(queue, list(times))
    told = await with_gone(store, queue, deliveries(one for one in read if isinstance(one, Record)))
    entries = {one.id: _entry(one, state, times[one.id] / MS) for one in told}
    for one, record in zip(times, read, strict=True):
        if isinstance(record, DemurError):
            entries[one] = _unreadable(queue, one, state, times[one] / MS, record)
    return [entries[one] for one in times if one in entries]


def _unreadable(queue: str, one: str, state: CallbackState, time: float, why: DemurError) -> CallbackEntry:
    return CallbackEntry(
        name=_name(queue, one),
        deferral=deferral_name(queue, one),
        version=0,
        type="",
        callback=None,
        state=state,
        attempt=0,
        create_time=0.0,
        time=time,
        reason=why.message,
    )


def _name(queue: str, one: str) -> str:
    return f"queues/{queue}/callbacks/{one}"


def _entry(found: Delivery, state: CallbackState, time: float) -> CallbackEntry:
    return CallbackEntry(
        name=_name(found.deferral.queue, found.id),
        deferral=found.deferral.name,
        version=found.deferral.version,
        type=found.type,
        callback=found.callback,
        state=state,
        attempt=found.attempt,
        create_time=found.create_time,
        time=time,
        reason=found.reason,
        disabled=bool(found.gone),
    )


async def _with_targets(store: Store, queue: str, ids: Sequence[str]) -> list[Argument]:
    found = {one.id: keys.digest(target_of(one.callback)) for one in deliveries(await store.fetch(queue, ids))}
    return [argument for one in ids for argument in (one, found.get(one, ""))]


def _token(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise InvalidError(f"page_token: expected one that came with a page, got {text[:60]!r}")
    return int(found[1]), int(found[2])
