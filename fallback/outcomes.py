"""Reads outcomes in the order they were written, and waits for them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from fallback import keys
from fallback.config import check_queue_name
from fallback.deferral import Deferral
from fallback.errors import InvalidError
from fallback.store import Store

OLDEST: Final = "0"
COUNT_MAX: Final = 1_000
_CURSOR: Final = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)
_LAST: Final = 2**64 - 1


class OutcomeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome; `cursor` is where to go on after it."""

    cursor: str
    deferral: Deferral


def check_outcomes(queue: str, cursor: str, count: int) -> None:
    """Raise InvalidError naming the field that is wrong."""
    check_queue_name(queue)
    if cursor:
        _parts(cursor)
    if not 1 <= count <= COUNT_MAX:
        raise InvalidError(f"count: expected 1 to {COUNT_MAX}, got {count}")


async def after(store: Store, queue: str, cursor: str, count: int) -> list[OutcomeEvent]:
    """Return up to `count` outcomes after `cursor`, in order; those whose retention time is over are passed over."""
    redis, stream = store.connection.redis, keys.index(queue, "outcomes")
    while True:
        start = f"({cursor}"
        entries = await store.connection.attempt(lambda: redis.xrange(stream, min=start, count=count))  # noqa: B023 - awaited at once
        if not entries:
            return []
        records = await store.fetch(queue, [fields[b"id"].decode() for _, fields in entries])
        found = [
            OutcomeEvent(cursor=entry.decode(), deferral=record.deferral)
            for (entry, _), record in zip(entries, records, strict=True)
            if record is not None
        ]
        if found:
            return found
        cursor = entries[-1][0].decode()


async def trim(store: Store, queue: str, cursor: str) -> None:
    """Forget the outcomes up to and with `cursor`; their deferrals stay for the retention time."""
    check_queue_name(queue)
    milliseconds, number = _parts(cursor)
    following = f"{milliseconds}-{number + 1}" if number < _LAST else f"{milliseconds + 1}-0"
    redis, stream = store.connection.redis, keys.index(queue, "outcomes")
    await store.connection.attempt(lambda: redis.xtrim(stream, minid=following, approximate=False))


def _parts(cursor: str) -> tuple[int, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None or max(int(found[1]), int(found[2] or 0)) > _LAST:
        raise InvalidError(f"cursor: expected one that came with an outcome, or 0, got {cursor[:60]!r}")
    return int(found[1]), int(found[2] or 0)
