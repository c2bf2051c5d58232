"""What a reviewer does: take items, hold them, give them back, leave them to others, answer them, think again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from fallback import keys, token
from fallback.answer import TEXT_CHARS_MAX, Answer, Identity, check_answer, check_json
from fallback.blobs import SUBJECT
from fallback.config import QueueSettings, check_queue_name
from fallback.connection import Argument
from fallback.contents import LEASE_BYTES_MAX, check, read_large, reference
from fallback.deferral import Content, Deferral, Lease, deferral_name
from fallback.errors import ForbiddenError, InvalidError
from fallback.queue_settings import TIERS_MAX
from fallback.records import MS, Record
from fallback.settling import ascent, close, conclude, foresee
from fallback.store import Store, accepted, missing, parse
from fallback.token import Hold

LEASES_MAX: Final = 100
REVIEWER_CHARS_MAX: Final = 256
REASON_CHARS_MAX: Final = 500
FLAG_CHARS_MAX: Final = 2_000
DRAFT_BYTES_MAX: Final = 65_536
# How many entries of the index one run of the script looks at for items that this reviewer did not answer yet.
LOOK_MAX: Final = 2_048

log = structlog.get_logger(__name__)


def check_lease(queue: str, reviewer: Identity, limit: int) -> None:
    """Raise InvalidError naming the field that is wrong."""
    check_queue_name(queue)
    if not 1 <= len(reviewer.name) <= REVIEWER_CHARS_MAX:
        raise InvalidError(f"reviewer: expected 1 to {REVIEWER_CHARS_MAX} characters, got {len(reviewer.name)}")
    if not 1 <= limit <= LEASES_MAX:
        raise InvalidError(f"limit: expected 1 to {LEASES_MAX}, got {limit}")


def tiers_of(
    queue: str, settings: QueueSettings, reviewer: Identity, skills: Sequence[str] = ()
) -> tuple[Sequence[int], ...]:
    """Return the numbers of the tiers that `reviewer` may answer, those of `skills` where it names any.

    They come in one group or two, the second to be looked through where the first has nothing: what is left of tiers
    that the queue's setting named once, and does no more, falls to its last one. Raises InvalidError for a skill that
    no tier asks for, ForbiddenError where they have none of those wanted.
    """
    unknown = [skill for skill in skills if skill not in settings.tiers]
    if unknown:
        known = ", ".join(settings.tiers) or "it has no tiers: leave skills out"
        raise InvalidError(f"skills: expected some of queue {queue}'s ({known}), got {unknown[0][:100]!r}")
    wanted = [tier for tier in settings.tiers if not skills or tier in skills]
    able = [tier for tier in wanted if reviewer.skills is None or tier in reviewer.skills]
    if settings.tiers and not able:
        raise ForbiddenError(
            f"{reviewer.name!r} may not answer these: queue {queue} takes the skill {' or '.join(wanted)}"
        )
    found = [settings.tiers.index(tier) for tier in able] or [0]
    rest = range(max(1, len(settings.tiers)), TIERS_MAX)
    return (found, rest) if rest and found[-1] == rest[0] - 1 else (found,)


async def lease(
    store: Store, queue: str, reviewer: Identity, limit: int, tiers: Sequence[Sequence[int]] = ((0,),)
) -> list[Lease]:
    """Take up to `limit` items of `tiers` (groups of them, of the first that has any), the most urgent first.

    None that this reviewer answered or holds.
    """
    settings = store.config.queue(queue)
    how = "assisted" if settings.assisted else "blind"
    length_ms = max(1, int(settings.lease_seconds * MS))
    begin = at = ";".join(" ".join(f"{tier}:0" for tier in group) for group in tiers)
    while at:
        nonces = [secrets.token_hex(8) for _ in range(limit)]
        reply = await store.run("lease", queue, reviewer.name, limit, length_ms, how, at, LOOK_MAX, *nonces, raw=True)
        found, at = await _readable(store, queue, reviewer, reply[2:]), reply[1].decode()
        if len(found) < len(reply) - 2:
            # Behind what cannot be read there may be what can, also where the script had looked to the end.
            at = begin
        if found:
            count = _fitting([one.record for one in found])
            await _give_back(store, queue, reviewer, [one.hold for one in found[count:]])
            return await _leases(store, queue, found[:count])
    return []


async def resume(store: Store, queue: str, reviewer: Identity, limit: int) -> list[Lease]:
    """Go on with up to `limit` of what this reviewer holds, under new tokens; those they had are stale."""
    length_ms = max(1, int(store.config.queue(queue).lease_seconds * MS))
    nonces = [secrets.token_hex(8) for _ in range(limit)]
    reply = await store.run("resume", queue, reviewer.name, limit, length_ms, *nonces, raw=True)
    found = await _readable(store, queue, reviewer, reply[1:])
    # What does not fit into one reply stays held, and is there for the next one.
    found = found[: _fitting([one.record for one in found])]
    return [msgspec.structs.replace(one, resumed=True) for one in await _leases(store, queue, found)]


class _Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What was leased: the hold as a script tells it, its record, and its subject, None where it was not told."""

    hold: Sequence[str | int]
    record: Record | None
    subject: bytes | None = None


async def _readable(store: Store, queue: str, reviewer: Identity, taken: Sequence[Sequence[bytes]]) -> list[_Taken]:
    """Return what was leased, as the scripts tell it; what cannot be read is set aside."""
    if not taken:
        return []
    holds = [msgspec.json.decode(one[0], type=list[str | int]) for one in taken]
    records = await store.records(queue, [str(one[0]) for one in holds], [one[1].decode() for one in taken])
    found: list[_Taken] = []
    for hold, record, (_, _, *subjects) in zip(holds, records, taken, strict=True):
        if isinstance(record, Record):
            found.append(_Taken(hold=hold, record=record, subject=subjects[0] if subjects else None))
        else:
            await _set_aside(store, queue, reviewer, hold)
    return found


async def _set_aside(store: Store, queue: str, reviewer: Identity, taken: Sequence[str | int]) -> None:
    """Put what was leased and cannot be read out of this reviewer's way, flagged; the script did it where it could."""
    one, slot, generation, nonce, *_ = taken
    log.error("set aside: a record that cannot be read", deferral=deferral_name(queue, str(one)))
    if int(slot) >= 0:
        reason, skips_enough = "its record cannot be read", 1
        await store.run("skip", queue, one, slot, generation, nonce, reviewer.name, reason, skips_enough)


async def extend(store: Store, text: str, reviewer: Identity, request_id: str, *, content: bool = True) -> Lease:
    """Hold on for another lease time, never past the deferral's own end."""
    hold = token.read(text)
    length_ms = max(1, int(store.config.queue(hold.queue).lease_seconds * MS))
    until, how = await _run(store, "extend", hold, reviewer, request_id, own=(length_ms,))
    taken = (hold.id, hold.slot, hold.generation, hold.nonce, until, how, "")
    found = await store.fetch(hold.queue, [hold.id])
    if not content and found[0] is not None:
        return _leased(hold.queue, taken, found[0].deferral, b"", "")
    (held,) = await _leases(store, hold.queue, [_Taken(hold=taken, record=found[0])])
    return held


async def release(store: Store, text: str, reviewer: Identity, request_id: str) -> None:
    """Give a slot back."""
    await _run(store, "release", token.read(text), reviewer, request_id)


async def skip(
    store: Store, text: str, reviewer: Identity, reason: str, request_id: str, *, higher: bool = False
) -> None:
    """Leave an item to others for good, those of the next tier where it is to go `higher`."""
    hold = token.read(text)
    _check_text("reason", reason, REASON_CHARS_MAX)
    own: tuple[Argument, ...] = (store.config.queue(hold.queue).skips_max,)
    if higher:
        record = store.held(hold.queue, hold.id) or await store.get(deferral_name(hold.queue, hold.id))
        own += ascent(store, record.deferral)
    await _run(store, "skip", hold, reviewer, request_id, said=(reason,), own=own, kind="skip higher" * higher)


async def save_draft(store: Store, text: str, reviewer: Identity, draft: str, request_id: str) -> None:
    """Keep a holder's unfinished work, a JSON text."""
    hold = token.read(text)
    _check_text("draft", draft, DRAFT_BYTES_MAX)
    if (size := len(draft.encode())) > DRAFT_BYTES_MAX:
        raise InvalidError(f"draft: expected at most {DRAFT_BYTES_MAX} bytes, got {size}")
    check_json("draft", draft)
    most = store.config.queue(hold.queue).drafts_bytes_max
    await _run(store, "draft", hold, reviewer, request_id, said=(draft,), own=(most,))


async def flag(store: Store, name: str, reviewer: Identity, comment: str, request_id: str) -> None:
    """Leave a word for the review managers at a deferral that the reviewer holds or answered."""
    queue, deferral_id = parse(name)
    _check_text("comment", comment, FLAG_CHARS_MAX)
    if not comment.strip():
        raise InvalidError("comment: expected what is to be looked at, got nothing")
    request = store.request(queue, request_id, reviewer.name, "flag", name, comment)
    accepted(await store.run("flag", queue, deferral_id, reviewer.name, comment, request=request), name)


async def undo(store: Store, name: str, reviewer: Identity, request_id: str) -> Lease:
    """Take a review back and hold its slot again; only while the outcome is not final."""
    queue, deferral_id = parse(name)
    length_ms = max(1, int(store.config.queue(queue).lease_seconds * MS))
    request = store.request(queue, request_id, reviewer.name, "undo", name)
    reply = await store.run("undo", queue, deferral_id, reviewer.name, length_ms, secrets.token_hex(8), request=request)
    if reply[:2] == ["refused", "closed"]:
        # Nobody closed the window on time: it is for whoever finds that.
        await close(store, queue, deferral_id)
    taken = (deferral_id, *accepted(reply, name), "")
    (record,) = await store.fetch(queue, [deferral_id])
    (held,) = await _leases(store, queue, [_Taken(hold=taken, record=record)])
    return held


async def submit(
    store: Store, text: str, reviewer: Identity, answer: Answer, comment: str, request_id: str
) -> Deferral:
    """Give a review; returns the deferral after it, settled where its reviews now add up to an answer."""
    hold = token.read(text)
    _check_text("comment", comment, TEXT_CHARS_MAX)
    record = store.held(hold.queue, hold.id) or await store.get(deferral_name(hold.queue, hold.id))
    check_answer(answer, record.deferral.task)
    encoded = msgspec.json.encode(answer).decode()
    ahead = foresee(store, record, reviewer.name, answer)
    _, text = await _run(store, "submit", hold, reviewer, request_id, said=(encoded, comment), own=ahead)
    return (await conclude(store, hold.queue, await store.record(hold.queue, hold.id, text))).deferral


async def _run(
    store: Store,
    event: str,
    hold: Hold,
    reviewer: Identity,
    request_id: str,
    *,
    said: tuple[str, ...] = (),
    own: tuple[Argument, ...] = (),
    kind: str = "",
) -> list[str]:
    """Run a holder's event; `said`, `kind` came from the caller and must be the same in a repeat, `own` is ours."""
    request = store.request(hold.queue, request_id, reviewer.name, kind or event, token.write(hold), *said)
    held = (hold.id, hold.slot, hold.generation, hold.nonce, reviewer.name)
    reply = await store.run(event, hold.queue, *held, *said, *own, request=request)
    return accepted(reply, deferral_name(hold.queue, hold.id))


async def _leases(store: Store, queue: str, taken: Sequence[_Taken]) -> list[Lease]:
    subjects = await _subjects(store, queue, [str(one.hold[0]) for one in taken if one.subject is None])
    drafts = await _drafts(store, queue, [one.hold for one in taken])
    store.hold([one.record for one in taken if one.record is not None])
    leases = []
    for one in taken:
        deferral_id = str(one.hold[0])
        small = subjects[deferral_id] if one.subject is None else one.subject or None
        deferral, content = await _subject(store, queue, one, small)
        leases.append(_leased(queue, one.hold, deferral, content, drafts.get(deferral_id, "")))
    return leases


async def _subjects(store: Store, queue: str, ids: Sequence[str]) -> dict[str, bytes | None]:
    """Return what stands beside the records of `ids`, by id."""
    if not ids:
        return {}
    names = [keys.subject(queue, one) for one in ids]
    found = await store.connection.attempt(lambda: store.connection.redis.mget(names))
    return dict(zip(ids, found, strict=True))


async def _subject(store: Store, queue: str, taken: _Taken, small: bytes | None) -> tuple[Deferral, bytes]:
    """Return a deferral and its subject; `small` is what stands beside the record."""
    record = taken.record
    if record is None:
        raise missing(deferral_name(queue, str(taken.hold[0])))
    deferral, large = record.deferral, reference(record, SUBJECT)
    looked = await check(record, SUBJECT, small) if large is None else await read_large(store, record, SUBJECT, large)
    if looked.state is Content.LOST:
        log.error("content is lost", deferral=deferral.name, problem=looked.problem)
        deferral = msgspec.structs.replace(deferral, content=Content.LOST)
    return deferral, looked.content


def _fitting(found: Sequence[Record | None]) -> int:
    """Return how many of what was leased one reply holds: their large subjects are in memory all at once."""
    size = 0
    for count, record in enumerate(found):
        large = reference(record, SUBJECT) if record is not None else None
        size += large.size_bytes if large is not None else 0
        if size > LEASE_BYTES_MAX and count > 0:
            return count
    return len(found)


async def _give_back(store: Store, queue: str, reviewer: Identity, taken: Sequence[Sequence[str | int]]) -> None:
    for one, slot, generation, nonce, *_ in taken:
        reply = await store.run("release", queue, one, slot, generation, nonce, reviewer.name)
        if reply[0] != "ok":
            log.warning("lease not returned, it is over", deferral=deferral_name(queue, str(one)), why=reply[1])


async def _drafts(store: Store, queue: str, taken: Sequence[Sequence[str | int]]) -> dict[str, str]:
    """Return the drafts by id; asks the server only for those that the script found."""
    fields = {str(one[0]): str(one[-1]) for one in taken if one[-1]}
    if not fields:
        return {}

    async def call() -> list[bytes | None]:
        pipeline = store.connection.redis.pipeline(transaction=False)
        for one, field in fields.items():
            pipeline.hget(keys.drafts(queue, one), field)
        return list(await pipeline.execute())

    found = await store.connection.attempt(call)
    return {one: draft.decode() for one, draft in zip(fields, found, strict=True) if draft is not None}


def _leased(queue: str, taken: Sequence[str | int], deferral: Deferral, subject: bytes, draft: str) -> Lease:
    one, slot, generation, nonce, until, how, _ = taken
    hold = Hold(queue=queue, id=str(one), slot=int(slot), generation=int(generation), nonce=str(nonce))
    return Lease(
        token=token.write(hold),
        deferral=deferral,
        subject=subject,
        expire_time=int(until) / MS,
        blind=how == "blind",
        draft=draft,
    )


def _check_text(field: str, text: str, chars_max: int) -> None:
    if len(text) > chars_max:
        raise InvalidError(f"{field}: expected at most {chars_max} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(f"{field}: expected text, got half of a surrogate pair at {error.start}") from error
