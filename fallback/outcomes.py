"""Reads outcomes in the order they were written, and forgets them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from fallback import keys
from fallback.config import check_queue_name
from fallback.deferral import Deferral
from fallback.errors import InvalidError, TrimmedError
from fallback.store import Store, accepted

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


async def after(store: Store, queue: str, cursor: str, count: int, *, whole: bool = False) -> list[OutcomeEvent]:
    """Return up to `count` outcomes after `cursor`, in order.

    Those whose retention time is over are passed over; with `whole`, unless the cursor is OLDEST, that raises
    TrimmedError, as does anything after the cursor that was trimmed.
    """
    whole = whole and cursor != OLDEST
    while True:
        entries = await _entries(store, queue, cursor, count, whole=whole)
        if not entries:
            return []
        records = await store.fetch(queue, [fields[b"id"].decode() for _, fields in entries])
        if whole and None in records:
            raise _trimmed(cursor)
        found = [
            OutcomeEvent(cursor=entry.decode(), deferral=record.deferral)
            for (entry, _), record in zip(entries, records, strict=True)
            if record is not None
        ]
        if found:
            return found
        cursor = entries[-1][0].decode()


async def _entries(
    store: Store, queue: str, cursor: str, count: int, *, whole: bool
) -> list[tuple[bytes, dict[bytes, bytes]]]:
    redis, stream = store.connection.redis, keys.index(queue, "outcomes")

    async def call() -> tuple[bytes | None, list[tuple[bytes, dict[bytes, bytes]]]]:
        # At one moment: what is trimmed between the two would be missed by both.
        pipeline = redis.pipeline(transaction=True)
        pipeline.get(keys.trimmed(queue))
        pipeline.xrange(stream, min=f"({cursor}", count=count)
        trimmed, entries = await pipeline.execute()
        return trimmed, entries

    if not whole:
        found: list[tuple[bytes, dict[bytes, bytes]]] = await store.connection.attempt(
            lambda: redis.xrange(stream, min=f"({cursor}", count=count)
        )
        return found
    trimmed, entries = await store.connection.attempt(call)
    if trimmed is not None and _parts(trimmed.decode()) > _parts(cursor):
        raise _trimmed(cursor)
    return entries


def _trimmed(cursor: str) -> TrimmedError:
    return TrimmedError(
        f"cursor: outcomes after {cursor} are no longer kept; go on from {OLDEST} (the oldest that are), and ask for "
        "the deferrals whose outcomes you miss by name"
    )


async def trim(store: Store, queue: str, cursor: str) -> None:
    """Forget the outcomes up to and with `cursor`; their deferrals stay for the retention time."""
    check_queue_name(queue)
    milliseconds, number = _parts(cursor)
    accepted(await store.run("trim", queue, f"{milliseconds}-{number}"), queue)


def _parts(cursor: str) -> tuple[int, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None or max(int(found[1]), int(found[2] or 0)) > _LAST:
        raise InvalidError(f"cursor: expected one that came with an outcome, or 0, got {cursor[:60]!r}")
    return int(found[1]), int(found[2] or 0)
