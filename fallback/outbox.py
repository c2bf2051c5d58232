"""The outbox: outcomes that are still to be told, claimed for a time, told at least once, given up as dead letters.

A row was written by the script that wrote the outcome. Claiming moves its time on by the visibility time, so that
whoever claims it and dies leaves it to the next one; the deferral's id is the idempotency key of every attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fallback import keys
from fallback.config import FallbackSettings
from fallback.deferral import Callback, Deferral
from fallback.errors import DemurError, InvalidError
from fallback.records import MS, Record
from fallback.store import Store, accepted

IDS_MAX: Final = 1_000
REASON_CHARS_MAX: Final = 1_000
UNREADABLE: Final = "its record cannot be read"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One telling of one outcome. `attempt` counts from 1; `create_time` is the outcome's, Unix seconds.

    `reason` is why the last attempt failed; only dead letters have one.
    """

    id: str
    type: str
    deferral: Deferral
    callback: Callback
    attempt: int
    create_time: float
    reason: str = ""


class Outbox:
    """The outboxes of all queues."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = 0
        settings = store.config.table("fallback", FallbackSettings)
        # An attempt that may still succeed must not be claimed by somebody else meanwhile.
        seconds = max(settings.callback_visibility_seconds, 2 * settings.callback_timeout_seconds)
        self._visibility_ms = int(seconds * MS)

    async def due(self, *, limit: int) -> list[Delivery]:
        """Claim up to `limit` outcomes that are due."""
        found: list[Delivery] = []
        queues = await self._store.queues()
        # Each call begins with another queue: none waits for ever behind a longer one.
        self._turn += 1
        for number in range(len(queues)):
            queue = queues[(number + self._turn) % len(queues)]
            if len(found) >= limit:
                break
            claimed = accepted(await self._store.run("claim", queue, limit - len(found), self._visibility_ms), queue)
            attempts = {str(one): int(attempt) for one, attempt in claimed}
            records = await self._store.read(queue, list(attempts))
            for one, record in zip(attempts, records, strict=True):
                if isinstance(record, DemurError):
                    # Nobody knows whom to tell: a dead letter, so that somebody looks.
                    await self._store.run("failed", queue, one, attempts[one], -1, UNREADABLE)
            deliveries = _deliveries([record for record in records if isinstance(record, Record)])
            found += [msgspec.structs.replace(one, attempt=attempts[one.id]) for one in deliveries]
        return found

    async def delivered(self, delivery: Delivery) -> None:
        """Strike a row off: the receiver took it."""
        await self._store.run("delivered", delivery.deferral.queue, delivery.deferral.id)

    async def failed(self, delivery: Delivery, *, retry_seconds: float | None, reason: str) -> None:
        """Put a row back for later, or among the dead letters where `retry_seconds` is None."""
        after = -1 if retry_seconds is None else max(0, int(retry_seconds * MS))
        arguments = (delivery.deferral.id, delivery.attempt, after, reason[:REASON_CHARS_MAX])
        await self._store.run("failed", delivery.deferral.queue, *arguments)

    async def dead_letters(self, queue: str) -> list[Delivery]:
        """Return the oldest IDS_MAX outcomes that nobody took."""
        dead = keys.index(queue, "dead")
        ids = await self._store.connection.attempt(lambda: self._store.connection.redis.zrange(dead, 0, IDS_MAX - 1))
        found = await self._store.fetch(queue, [one.decode() for one in ids])
        return _deliveries([record for record in found if record is not None])

    async def redeliver(self, queue: str, ids: Sequence[str]) -> int:
        """Make dead letters due now; returns how many of `ids` were any."""
        if len(ids) > IDS_MAX:
            raise InvalidError(f"ids: expected at most {IDS_MAX}, got {len(ids)}")
        if not ids:
            return 0
        (count,) = accepted(await self._store.run("redeliver", queue, *ids), queue)
        return int(count)


def _deliveries(records: Sequence[Record]) -> list[Delivery]:
    return [
        Delivery(
            id=record.deferral.id,
            type=record.event,
            deferral=record.deferral,
            callback=record.deferral.callback,
            attempt=record.attempt,
            create_time=record.deferral.outcome.create_time,
            reason=record.reason,
        )
        for record in records
        if record.deferral.callback is not None and record.deferral.outcome is not None
    ]
