"""Reads what a deferral came with, and says what became of it; nothing is handed out that is not what was parked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from fallback import keys
from fallback.blobs import INPUTS, SUBJECT, Blob, Reference, sha256
from fallback.deferral import Content, Deferral
from fallback.errors import InvalidError, NotFoundError
from fallback.records import Record
from fallback.store import Request, Store, accepted, parse

# Large subjects of one call that are read, in all; at least one is.
LEASE_BYTES_MAX: Final = 32 * 1024 * 1024
ERASURES_MAX: Final = 1_000


class Found(NamedTuple):
    """Content, or why there is none: `problem` is a sentence's end, empty where all is well."""

    content: bytes
    state: Content
    problem: str = ""


def reference(record: Record, what: str) -> Reference | None:
    """Return where a large content lies; None where it is small, or there is none."""
    return Reference.read(record.stored[what == INPUTS])


async def check(record: Record, what: str, content: bytes | None) -> Found:
    """Say whether `content` is what the deferral came with."""
    deferral = record.deferral
    digest = deferral.inputs_digest if what == INPUTS else deferral.subject_digest
    if not digest:
        return Found(b"", Content.NONE)
    if deferral.content is Content.ERASED:
        return Found(b"", Content.ERASED, "was erased")
    if content is None:
        return Found(b"", Content.LOST, "is gone")
    large = reference(record, what)
    if large is not None and len(content) < large.size_bytes:
        return Found(b"", Content.LOST, f"is short: expected {large.size_bytes} bytes, got {len(content)}")
    if (got := (await sha256(content)).hex()) != digest:
        return Found(b"", Content.LOST, f"was altered: expected sha256 {digest}, got {got}")
    return Found(content, Content.PRESENT)


async def read_large(store: Store, record: Record, what: str, large: Reference) -> Found:
    """Return a large content."""
    deferral = record.deferral
    blob = Blob(queue=deferral.queue, id=deferral.id, what=what)
    gone = deferral.content is Content.ERASED
    return await check(record, what, None if gone else await store.blobs.get(blob, large))


async def read(store: Store, name: str, what: str) -> bytes:
    """Return the subject or the inputs of a deferral, empty where there are none.

    Raises NotFoundError where the deferral is not there, and where its content was erased, is gone, short or altered.
    """
    record = await store.get(name)
    large = reference(record, what)
    if large is not None:
        found = await read_large(store, record, what, large)
    else:
        key = keys.content(record.deferral.queue, record.deferral.id, what)
        redis = store.connection.redis
        found = await check(record, what, await store.connection.attempt(lambda: redis.get(key)))
    if found.problem:
        raise NotFoundError(f"{name}: its {what} {found.problem}")
    return found.content


async def noted(store: Store, queue: str, records: Sequence[Record]) -> list[Deferral]:
    """Return deferrals, each saying LOST where nothing lies where its content should; contents are not read."""
    looked: dict[int, tuple[Blob, Reference | None]] = {}
    for number, record in enumerate(records):
        if record.deferral.content is Content.PRESENT:
            what = SUBJECT if record.deferral.subject_digest else INPUTS
            looked[number] = Blob(queue=queue, id=record.deferral.id, what=what), reference(record, what)
    there = await store.blobs.there(list(looked.values()))
    lost = {number for number, is_there in zip(looked, there, strict=True) if not is_there}
    return [
        msgspec.structs.replace(record.deferral, content=Content.LOST) if number in lost else record.deferral
        for number, record in enumerate(records)
    ]


async def erase(store: Store, name: str, request: Request) -> None:
    """Erase subject, inputs and drafts of a deferral, in whatever state it is; that it was, digests and counts stay.

    Comments, attributes and answers stay too: they are what people and clients said of it. Returns when the content is
    deleted; whoever dies before that leaves a file to the sweep, and a repeat goes on.
    """
    record = await store.get(name)
    queue, deferral_id = parse(name)
    accepted(await store.run("erase", queue, deferral_id, record.deferral.inputs_digest, request=request), name)
    await store.blobs.delete(queue, [deferral_id])


async def erasures(store: Store, queue: str) -> dict[str, str]:
    """Return up to about ERASURES_MAX erased deferrals of which copies may be kept elsewhere: id -> inputs' sha256."""
    redis, key = store.connection.redis, keys.index(queue, "erased")
    _, found = await store.connection.attempt(lambda: redis.hscan(key, 0, count=ERASURES_MAX))
    return {one.decode(): digest.decode() for one, digest in found.items()}


async def forget_erasures(store: Store, queue: str, ids: Sequence[str]) -> None:
    """Say that no copies of these are kept any more."""
    if len(ids) > 2 * ERASURES_MAX:
        raise InvalidError(f"ids: expected at most {2 * ERASURES_MAX}, got {len(ids)}")
    if ids:
        redis, key = store.connection.redis, keys.index(queue, "erased")
        await store.connection.attempt(lambda: redis.hdel(key, *ids))


async def strays(store: Store, queue: str, ids: Sequence[str]) -> set[str]:
    """Return those of `ids` whose content nobody needs: no record stands or is on its way, or it was erased."""

    async def call() -> list[list[Any]]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        # Notes first: what is accepted in between has no note any more, but a record by then.
        pipeline.zmscore(keys.index(queue, "arriving"), [keys.file_note(one) for one in ids])
        for one in ids:
            pipeline.hmget(keys.record(queue, one), "state", "erased")
        return list(await pipeline.execute())

    notes, *found = await store.connection.attempt(call) if ids else [[]]
    return {
        one
        for one, note, (state, erased) in zip(ids, notes, found, strict=True)
        if (state is None and note is None) or erased is not None
    }
