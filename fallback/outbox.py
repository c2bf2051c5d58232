"""The outbox: outcomes that are still to be told, claimed for a time, told at least once, given up as dead letters.

A row was written by the script that wrote the outcome. Claiming moves its time on by the visibility time, so that
whoever claims it and dies leaves it to the next one; the deferral's id is the idempotency key of every attempt. How
attempts went is written for many at once. What operators do about rows is `fallback.telling`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
import structlog

from fallback import keys
from fallback.config import FallbackSettings
from fallback.connection import Argument, Run, apart, script
from fallback.deferral import Callback, Deferral
from fallback.errors import DemurError
from fallback.records import MS, Record
from fallback.settling import retention_ms
from fallback.store import Store, accepted, frame, own_request

REASON_CHARS_MAX: Final = 1_000
UNREADABLE: Final = "its record cannot be read"
# Rows that one run of a script writes at most: others are served between two runs.
WRITE_MAX: Final = 256
CLAIMING: Final = "claim outcomes to tell"

log = structlog.get_logger(__name__)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One telling of one outcome. `attempt` counts from 1; `create_time` is the outcome's, Unix seconds.

    `reason` is why the last attempt failed; `gone` is when the target said that it is gone for good, empty where it
    did not: then it is not to be called.
    """

    id: str
    type: str
    deferral: Deferral
    callback: Callback
    attempt: int
    create_time: float
    reason: str = ""
    gone: str = ""


class Untold(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed delivery that was not taken: due again in `retry_seconds`, None: given up.

    `reason` is empty where it was not attempted, which counts as no attempt. `gone`: its target is never to be called
    again, until somebody redelivers or enables it.
    """

    delivery: Delivery
    retry_seconds: float | None
    reason: str
    gone: bool = False


class Outbox:
    """The outboxes of all queues."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = 0
        # As they were when last looked at.
        self._queues: list[str] = []
        settings = store.config.table("fallback", FallbackSettings)
        # An attempt that may still succeed must not be claimed by somebody else meanwhile.
        seconds = max(settings.callback_visibility_seconds, 2 * settings.callback_timeout_seconds)
        self._visibility_ms = int(seconds * MS)

    async def due(self, *, limit: int) -> list[Delivery]:
        """Claim up to `limit` outcomes that are due, of every queue a share.

        A queue at which that fails keeps no other waiting; raises where the server is away.
        """
        queues = await self._waiting()
        if not queues:
            return []
        # Each call begins with another queue: none waits for ever behind a longer one.
        self._turn += 1
        start = self._turn % len(queues)
        queues = (queues[start:] + queues[:start])[:limit]
        share, more = divmod(limit, len(queues))
        claim = script("claim")
        runs = [
            Run(
                keys.indexes(queue, claim.indexes),
                (*frame(keys.prefix(queue), own_request()), share + (number < more), self._visibility_ms),
            )
            for number, queue in enumerate(queues)
        ]
        found: list[Delivery] = []
        for queue, reply in zip(queues, await self._store.connection.run_all(claim, runs), strict=True):
            try:
                if isinstance(reply, DemurError):
                    raise reply
                found += await self._claimed(queue, accepted(reply, queue))
                self._store.troubles.went_well(queue, CLAIMING)
            except DemurError as error:
                # Raises where the server is away.
                await self._store.clock(queue)
                self._store.troubles.failed(queue, CLAIMING, error)
        return found

    async def _waiting(self) -> list[str]:
        """Return the queues that have anything to tell, now or later."""

        async def call() -> list[Any]:
            pipeline = self._store.connection.redis.pipeline(transaction=False)
            pipeline.smembers(keys.QUEUES)
            for queue in self._queues:
                pipeline.zcard(keys.index(queue, "outbox"))
            return apart(await pipeline.execute(raise_on_error=False))

        while True:
            asked = self._queues
            members, *counts = await self._store.connection.attempt(call)
            if isinstance(members, Exception):
                raise DemurError(f"the names of the queues cannot be read: {members}")
            self._queues = self._store.named(members)
            # With those that are new it is asked again, which is seldom: one step is enough nearly always.
            if self._queues == asked:
                return [
                    queue for queue, count in zip(asked, counts, strict=True) if count and self._usable(queue, count)
                ]

    def _usable(self, queue: str, count: int | Exception) -> bool:
        if isinstance(count, Exception):
            self._store.troubles.failed(queue, CLAIMING, count)
        return not isinstance(count, Exception) and not self._store.troubles.resting(queue, CLAIMING)

    async def _claimed(self, queue: str, rows: Sequence[Sequence[str | None]]) -> list[Delivery]:
        texts = {str(one): text for one, text in rows}
        records = await self._store.records(queue, list(texts), list(texts.values()))
        for one, record in zip(texts, records, strict=True):
            if isinstance(record, DemurError):
                await self._bury(queue, one)
        return await with_gone(self._store, queue, deliveries(one for one in records if isinstance(one, Record)))

    async def _bury(self, queue: str, one: str) -> None:
        """Make a dead letter of what cannot be read, so that somebody looks: nobody knows whom to tell."""
        redis, name = self._store.connection.redis, keys.record(queue, one)
        attempt = await self._store.connection.attempt(lambda: redis.hget(name, "attempt"))
        if attempt is not None:
            row = (one, attempt, -1, UNREADABLE, "", "")
            await self._store.run("failed", queue, retention_ms(self._store, queue), *row)

    async def write(self, told: Sequence[Delivery], untold: Sequence[Untold]) -> None:
        """Strike off what was taken, and put back, or among the dead letters, what was not."""
        calls = [
            *(self._store.run("delivered", queue, *(one.id for one in some)) for queue, some in _batches(told)),
            *(self._failed(queue, some) for queue, some in _groups(untold)),
        ]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _failed(self, queue: str, untold: Sequence[Untold]) -> None:
        arguments: list[Argument] = [retention_ms(self._store, queue)]
        for one in untold:
            after = -1 if one.retry_seconds is None else max(0, int(one.retry_seconds * MS))
            target = target_of(one.delivery.callback)
            gone = keys.digest(target) if one.gone else ""
            arguments += [one.delivery.id, one.delivery.attempt, after, one.reason[:REASON_CHARS_MAX], gone, target]
        await self._store.run("failed", queue, *arguments)


def target_of(callback: Callback) -> str:
    """Return the whole URL or host:port that a callback goes to."""
    return callback.webhook_url or callback.grpc_target


def deliveries(records: Iterable[Record | None]) -> list[Delivery]:
    """Return what is told of each record that has something to tell."""
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
        if record is not None and record.deferral.callback is not None and record.deferral.outcome is not None
    ]


async def with_gone(store: Store, queue: str, found: Sequence[Delivery]) -> list[Delivery]:
    """Return deliveries with what their targets said of themselves."""
    targets = sorted({target_of(one.callback) for one in found})
    if not targets:
        return []
    names = [keys.gone(queue, target) for target in targets]
    said = await store.connection.attempt(lambda: store.connection.redis.mget(names))
    gone = {
        target: text.decode().partition(" ")[0] for target, text in zip(targets, said, strict=True) if text is not None
    }
    if not gone:
        return list(found)
    return [msgspec.structs.replace(one, gone=gone.get(target_of(one.callback), "")) for one in found]


def _batches(told: Sequence[Delivery]) -> list[tuple[str, list[Delivery]]]:
    ordered = sorted(told, key=lambda one: one.deferral.queue)
    found = []
    for queue, group in groupby(ordered, key=lambda one: one.deferral.queue):
        some = list(group)
        found += [(queue, some[start : start + WRITE_MAX]) for start in range(0, len(some), WRITE_MAX)]
    return found


def _groups(untold: Sequence[Untold]) -> list[tuple[str, list[Untold]]]:
    by_id = {(one.delivery.deferral.queue, one.delivery.id): one for one in untold}
    return [
        (queue, [by_id[queue, each.id] for each in some]) for queue, some in _batches([one.delivery for one in untold])
    ]
