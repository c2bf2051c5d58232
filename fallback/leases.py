"""What a reviewer does: take items, hold them, give them back, answer them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from fallback import keys, token
from fallback.answer import TEXT_CHARS_MAX, Answer, Identity, check_answer
from fallback.config import check_queue_name
from fallback.deferral import Deferral, Lease, deferral_name
from fallback.errors import InvalidError
from fallback.records import MS, Record
from fallback.settling import conclude
from fallback.store import Store, accepted, missing
from fallback.token import Hold

LEASES_MAX: Final = 100
REVIEWER_CHARS_MAX: Final = 256
# How many entries of the index one run of the script looks at for items that this reviewer did not answer yet.
LOOK_MAX: Final = 2_048


def check_lease(queue: str, reviewer: Identity, limit: int) -> None:
    """Raise InvalidError naming the field that is wrong."""
    check_queue_name(queue)
    if not 1 <= len(reviewer.name) <= REVIEWER_CHARS_MAX:
        raise InvalidError(f"reviewer: expected 1 to {REVIEWER_CHARS_MAX} characters, got {len(reviewer.name)}")
    if not 1 <= limit <= LEASES_MAX:
        raise InvalidError(f"limit: expected 1 to {LEASES_MAX}, got {limit}")


async def lease(store: Store, queue: str, reviewer: Identity, limit: int) -> list[Lease]:
    """Take up to `limit` items, the most urgent first; none that this reviewer answered or holds."""
    settings = store.config.queue(queue)
    how = "assisted" if settings.assisted else "blind"
    length_ms, start = max(1, int(settings.lease_seconds * MS)), 0
    while start >= 0:
        nonces = [secrets.token_hex(8) for _ in range(limit)]
        reply = await store.run("lease", queue, reviewer.name, limit, length_ms, how, start, LOOK_MAX, *nonces)
        start, *taken = accepted(reply, queue)
        if taken:
            return await _leases(store, queue, taken, blind=not settings.assisted)
    return []


async def extend(store: Store, text: str, reviewer: Identity, request_id: str) -> Lease:
    """Hold on for another lease time, never past the deferral's own end."""
    hold = token.read(text)
    length_ms = max(1, int(store.config.queue(hold.queue).lease_seconds * MS))
    until, how = await _run(store, "extend", hold, reviewer, request_id, own=(length_ms,))
    (held,) = await _leases(
        store, hold.queue, [(hold.id, hold.slot, hold.generation, hold.nonce, until)], blind=how == "blind"
    )
    return held


async def release(store: Store, text: str, reviewer: Identity, request_id: str) -> None:
    """Give a slot back."""
    await _run(store, "release", token.read(text), reviewer, request_id)


async def submit(
    store: Store, text: str, reviewer: Identity, answer: Answer, comment: str, request_id: str
) -> Deferral:
    """Give a review; returns the deferral after it, settled where its reviews now add up to an answer."""
    hold = token.read(text)
    if len(comment) > TEXT_CHARS_MAX:
        raise InvalidError(f"comment: expected at most {TEXT_CHARS_MAX} characters, got {len(comment)}")
    record = await store.get(deferral_name(hold.queue, hold.id))
    check_answer(answer, record.deferral.task)
    encoded = msgspec.json.encode(answer).decode()
    await _run(store, "submit", hold, reviewer, request_id, said=(encoded, comment))
    return (await conclude(store, hold.queue, hold.id)).deferral


async def _run(
    store: Store,
    event: str,
    hold: Hold,
    reviewer: Identity,
    request_id: str,
    *,
    said: tuple[str, ...] = (),
    own: tuple[int, ...] = (),
) -> list[str]:
    """Run a holder's event; `said` came from the caller and must be the same in a repeat, `own` is ours."""
    request = store.request(hold.queue, request_id, reviewer.name, event, token.write(hold), *said)
    held = (hold.id, hold.slot, hold.generation, hold.nonce, reviewer.name)
    reply = await store.run(event, hold.queue, *held, *said, *own, request=request)
    return accepted(reply, deferral_name(hold.queue, hold.id))


async def _leases(store: Store, queue: str, taken: Sequence[Sequence[str | int]], *, blind: bool) -> list[Lease]:
    ids = [str(one[0]) for one in taken]
    found = await store.fetch(queue, ids)
    names = [keys.subject(queue, one) for one in ids]
    subjects = await store.connection.attempt(lambda: store.connection.redis.mget(names))
    return [
        _leased(queue, hold, record, subject or b"", blind=blind)
        for hold, record, subject in zip(taken, found, subjects, strict=True)
    ]


def _leased(queue: str, taken: Sequence[str | int], record: Record | None, subject: bytes, *, blind: bool) -> Lease:
    one, slot, generation, nonce, until = taken
    if record is None:
        raise missing(deferral_name(queue, str(one)))
    hold = Hold(queue=queue, id=str(one), slot=int(slot), generation=int(generation), nonce=str(nonce))
    return Lease(
        token=token.write(hold),
        deferral=record.deferral,
        subject=subject,
        expire_time=int(until) / MS,
        blind=blind,
    )
