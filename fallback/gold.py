"""Gold items: subjects whose answer is known, asked like any other, so that it is seen how often reviewers are wrong.

Theory of operation. An operator adds items with their answers to a queue. Where reviewers take items, now and then
(`gold_share` of what they take) one is planted: parked as a deferral of its own that is up next, always blind, asked of
as many people as any other, and marked with the item it is of; the mark is shown to nobody who reviews. A planted item
has no client: where it ends it is told to nobody and stands in no stream of outcomes, so that neither a client nor the
ledger, and so neither training nor a certificate, ever sees it. What is kept instead is who answered right and who
wrong (`tried`), written by the same script that ends it.

Nobody is asked twice about one item: who answered or skipped it is excluded from where it is planted again. Its key is
made of the item and how many people have seen it by then, so there is one planted at a time, whoever plants.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import structlog

from fallback import contents, keys, settling
from fallback.answer import Answer, Label, Labels, Subject, Task, check_answer, check_task
from fallback.config import check_queue_name
from fallback.deferral import Deferral, GoldMark, Lease, OnExpiry, Parking, deferral_name
from fallback.errors import DemurError, FullError, InvalidError, NotFoundError, StateError
from fallback.intake import Parked, park
from fallback.limits import Limits
from fallback.parking import EXCLUDED_MAX, NAME_CHARS_MAX
from fallback.records import MS
from fallback.store import NO_REQUEST, Store

# Items a queue has at most, and what one may weigh.
ITEMS_MAX: Final = 1_000
SUBJECT_BYTES_MAX: Final = 1024 * 1024
# How long an answer says something of a reviewer.
TRIED_SECONDS: Final = 90 * 86_400
# No client: names of clients have no line feed.
NOBODY: Final = "gold\n"
_TRIES: Final = 4
_FULL_RETRY_SECONDS: Final = 60.0
_CHANCE: Final = random.SystemRandom()

log = structlog.get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A gold item as it is kept, its subject beside it; `digest` is that one's sha256, hex."""

    task: Task
    answer: Answer
    media_type: str
    attributes: dict[str, str]
    digest: str


class GoldItem(msgspec.Struct, frozen=True, kw_only=True):
    """A subject with its known answer."""

    task: Task
    answer: Answer
    subject: bytes
    media_type: str
    attributes: dict[str, str] = {}

    @property
    def id(self) -> str:
        """What names it: the same subject of the same task is the same item."""
        task = msgspec.json.encode(self.task, order="sorted")
        parts = (hashlib.sha256(part).hexdigest() for part in (task, self.media_type.encode(), self.subject))
        return keys.digest(*parts)


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """How people did: answers that were right and wrong; "can't tell" is wrong where the answer is known."""

    right: int = 0
    wrong: int = 0


class GoldState(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue has of gold: each item's answer, and how people did, by item and by reviewer, in TRIED_SECONDS."""

    answers: Mapping[str, Answer]
    items: Mapping[str, Tried]
    reviewers: Mapping[str, Tried]

    @property
    def all(self) -> Tried:
        """How people did, all in all."""
        found = self.items.values()
        return Tried(right=sum(each.right for each in found), wrong=sum(each.wrong for each in found))


class Golds:
    """The gold items of all queues. Every method raises DemurError only."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def add(self, queue: str, item: GoldItem) -> str:
        """Add an item, or give one that is there another answer; returns its id."""
        check_queue_name(queue)
        _check(item)
        if unknown := await self._limits.unknown({queue}):
            raise unknown[queue]
        redis, key = self._store.connection.redis, keys.index(queue, "gold")
        if await self._store.connection.attempt(lambda: redis.hlen(key)) >= ITEMS_MAX:
            raise FullError(
                f"queue {queue} has {ITEMS_MAX} gold items, the most there may be; remove some",
                retry_after_seconds=_FULL_RETRY_SECONDS,
            )
        kept = _Kept(
            task=item.task,
            answer=item.answer,
            media_type=item.media_type,
            attributes=item.attributes,
            digest=hashlib.sha256(item.subject).hexdigest(),
        )

        async def write() -> None:
            pipeline = redis.pipeline(transaction=True)
            pipeline.set(keys.gold_subject(queue, item.id), item.subject)
            pipeline.hset(key, item.id, msgspec.json.encode(kept))
            await pipeline.execute()

        await self._store.connection.attempt(lambda: redis.sadd(keys.QUEUES, queue))
        await self._store.connection.attempt(write)
        return item.id

    async def remove(self, queue: str, one: str) -> None:
        """Take an item away, what was planted of it, and what it found out. Raises NotFoundError."""
        check_queue_name(queue)
        redis, key = self._store.connection.redis, keys.index(queue, "gold")
        # Without its subject it is planted no more. It goes last: whoever dies before that finds it again.
        await self._store.connection.attempt(lambda: redis.unlink(keys.gold_subject(queue, one)))
        await self._end_planted(queue, one)
        if not await self._store.connection.attempt(lambda: redis.hdel(key, one)):
            raise NotFoundError(f"queue {queue} has no gold item {one[:40]!r}; see: demur queue gold list {queue}")
        found = await self._tried(queue)
        left = {each.decode() for each in await self._store.connection.attempt(lambda: redis.hkeys(key))}
        # Of others that are gone, too: an earlier version left some.
        fields = [field for field in found if field.partition(" ")[0] not in left]
        if fields:
            await self._store.connection.attempt(lambda: redis.hdel(keys.index(queue, "tried"), *fields))

    async def erase(self, queue: str, digest: str) -> None:
        """Have no gold item, nor any that was planted, with the subject of this sha256: it is to be erased for good."""
        redis = self._store.connection.redis
        items: dict[bytes, bytes] = await self._store.connection.attempt(
            lambda: redis.hgetall(keys.index(queue, "gold"))
        )
        for one, kept in items.items():
            if not digest or msgspec.json.decode(kept, type=_Kept).digest != digest:
                continue
            await self.remove(queue, one.decode())

    async def _end_planted(self, queue: str, one: str) -> None:
        """Cancel what is OPEN of an item, and erase the subject of all that was planted of it."""
        redis = self._store.connection.redis
        names = [keys.idempotency(queue, NOBODY, _key(one, seen)) for seen in range(EXCLUDED_MAX + 1)]
        for found in await self._store.connection.attempt(lambda: redis.mget(names)):
            if found is not None:
                name = deferral_name(queue, found.decode().partition(" ")[0])
                await contents.erase(self._store, name, NO_REQUEST)
                with suppress(StateError):
                    await settling.cancel(self._store, await self._store.get(name), NO_REQUEST)

    async def state(self, queue: str) -> GoldState:
        """Return what a queue has, and how people did."""
        check_queue_name(queue)
        redis, key = self._store.connection.redis, keys.index(queue, "gold")
        items: dict[bytes, bytes] = await self._store.connection.attempt(lambda: redis.hgetall(key))
        answers = {one.decode(): msgspec.json.decode(kept, type=_Kept).answer for one, kept in items.items()}
        return counted(answers, await self._tried(queue), since=await self._store.clock(queue) - TRIED_SECONDS)

    async def tried(self, queue: str) -> Tried:
        """Return how people did in a queue, all in all."""
        return (await self.state(queue)).all

    async def _tried(self, queue: str) -> dict[str, str]:
        redis, key = self._store.connection.redis, keys.index(queue, "tried")
        found: dict[bytes, bytes] = await self._store.connection.attempt(lambda: redis.hgetall(key))
        return {field.decode(): value.decode() for field, value in found.items()}

    async def plant(self, queue: str, leases: Sequence[Lease]) -> None:
        """Plant an item now and then, as reviewers take `leases`; trouble with it is nobody's trouble."""
        settings = self._store.config.queue(queue)
        taken = sum(lease.deferral.gold is None for lease in leases)
        share = settings.gold_share
        # Each that is planted is taken by as many as any other.
        if not taken or _CHANCE.random() >= taken * share / ((1 - share) * settings.reviews_wanted):
            return
        try:
            await self._plant(queue)
        except DemurError as error:
            log.warning("no gold item was planted", queue=queue, error=error.message)

    async def _plant(self, queue: str) -> None:
        redis, key = self._store.connection.redis, keys.index(queue, "gold")
        ids: list[bytes] = await self._store.connection.attempt(lambda: redis.hkeys(key))
        if not ids:
            return
        seen: dict[str, list[str]] = {one.decode(): [] for one in ids}
        for field in await self._tried(queue):
            one, _, reviewer = field.partition(" ")
            if one in seen:
                seen[one].append(reviewer)
        fit = [
            one
            for one, reviewers in seen.items()
            if len(reviewers) <= EXCLUDED_MAX and all(len(name) <= NAME_CHARS_MAX for name in reviewers)
        ]
        for one in _CHANCE.sample(fit, min(len(fit), _TRIES)):
            item = await self._item(queue, one)
            if item is None:
                continue
            (verdict,) = await park(self._store, [_parking(queue, one, item, seen[one])], self._limits)
            if isinstance(verdict, DemurError):
                raise verdict
            if isinstance(verdict, Parked) and verdict.created:
                # Removed meanwhile by somebody who did not find this one yet.
                if not await self._store.connection.attempt(partial(redis.exists, keys.gold_subject(queue, one))):
                    await self._end_planted(queue, one)
                return

    async def _item(self, queue: str, one: str) -> GoldItem | None:
        redis = self._store.connection.redis

        async def read() -> list[bytes | None]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hget(keys.index(queue, "gold"), one)
            pipeline.get(keys.gold_subject(queue, one))
            return list(await pipeline.execute())

        kept, subject = await self._store.connection.attempt(read)
        if kept is None or subject is None:
            return None
        said = msgspec.json.decode(kept, type=_Kept)
        return GoldItem(
            task=said.task,
            answer=said.answer,
            subject=subject,
            media_type=said.media_type,
            attributes=said.attributes,
        )


def counted(answers: Mapping[str, Answer], found: Mapping[str, str], *, since: float) -> GoldState:
    """Return how people did, from the fields of `tried` of items that are there, no older than `since`. Pure."""
    right: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    reviewers = set()
    for field, value in found.items():
        one, _, reviewer = field.partition(" ")
        how, _, milliseconds = value.partition(" ")
        if one not in answers or how == "skipped" or int(milliseconds) < since * MS:
            continue
        reviewers.add(reviewer)
        for name in (("item", one), ("reviewer", reviewer)):
            (right if how == "right" else wrong)[name] += 1

    def of(kind: str, name: str) -> Tried:
        return Tried(right=right[kind, name], wrong=wrong[kind, name])

    return GoldState(
        answers=answers,
        items={one: of("item", one) for one in answers},
        reviewers={name: of("reviewer", name) for name in sorted(reviewers)},
    )


def item_of(deferral: Deferral, subject: Subject, answer: Answer | None) -> GoldItem:
    """Return a gold item made of a deferral that was asked, with its outcome's answer unless another is given."""
    known = answer
    if known is None and deferral.outcome is not None and deferral.outcome.reviewed:
        known = deferral.outcome.answer
    if known is None:
        raise InvalidError(f"answer: expected one, since {deferral.name} has none that people gave")
    return GoldItem(
        task=deferral.task,
        answer=known,
        subject=subject.content,
        media_type=subject.media_type,
        attributes=deferral.attributes,
    )


def _check(item: GoldItem) -> None:
    check_task(item.task)
    # Of boxes, numbers and JSON nobody could say by comparing them whether they mean the same.
    if not isinstance(item.answer, Label | Labels):
        raise InvalidError(f"answer: expected a label or labels, got {type(item.answer).__name__}")
    check_answer(item.answer, item.task)
    if not 1 <= len(item.subject) <= SUBJECT_BYTES_MAX:
        raise InvalidError(f"subject.content: expected 1 to {SUBJECT_BYTES_MAX} bytes, got {len(item.subject)}")


def _key(one: str, seen: int) -> str:
    """Return the key of an item that is planted when `seen` people have seen it."""
    return f"{one} {seen}"


def _parking(queue: str, one: str, item: GoldItem, seen: Sequence[str]) -> Parking:
    return Parking(
        queue=queue,
        client=NOBODY,
        idempotency_key=_key(one, len(seen)),
        input_digest=one,
        task=item.task,
        subject=item.subject,
        media_type=item.media_type,
        attributes=item.attributes,
        # Never refused for want of budget, as audits are not.
        audit=True,
        on_expiry=OnExpiry.ABSTAIN,
        excluded_reviewers=tuple(seen),
        gold=GoldMark(id=one, answer=item.answer),
    )
