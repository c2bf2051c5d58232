"""Ends a deferral: what its reviews add up to, what happens at expiry, what a cancellation leaves.

Deciding is in `fallback.consensus`, doing in the scripts; this carries values from one to the other. `conclude` may be
run by anybody at any time, by the process that took the last review or by the reaper after that process died: the
script compares the version that the reviews were read at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from fallback.answer import Answer
from fallback.connection import Argument, Reply
from fallback.consensus import Escalate, NeedMore, Settled, consensus
from fallback.deferral import Deferral, Event, OnExpiry, Review, Source, State, deferral_name, overdue, telling, tried
from fallback.errors import AbortedError
from fallback.parking import boost_ms
from fallback.records import MS, Record, Verdict, encode_verdict
from fallback.store import NO_REQUEST, Request, Store, accepted, missing, refused

# Undo windows that one run of a script ends at most: others are served between two runs.
CLOSE_MAX: Final = 32
_ATTEMPTS_MAX: Final = 8
# Somebody else was faster, or there is nothing to do: read again.
_OVERTAKEN: Final = frozenset({"changed", "ended", "limit", "full", "early", "open"})

log = structlog.get_logger(__name__)


async def conclude(store: Store, queue: str, one: str | Record) -> Record:
    """Settle a deferral whose reviews decide it, grow or escalate one whose slots are all FILLED without that.

    Returns it as it then is. Raises NotFoundError.

    `one` is its id, or the record as it was just read.
    """
    known, deferral_id = (None, one) if isinstance(one, str) else (one, one.deferral.id)
    name = deferral_name(queue, deferral_id)
    for _ in range(_ATTEMPTS_MAX):
        record, known = known or await store.get(name), None
        if record.deferral.state is not State.OPEN or record.settling:
            return record
        match _weigh(store, record, record.deferral.reviews):
            case NeedMore() if not record.full:
                return record
            case NeedMore(places=places):
                reply = await _grow(store, record, places)
            case Escalate():
                reply = await _escalate(store, record, "split")
            case Settled(source=source, answer=answer):
                reply = await _settle(store, record, Verdict(source=source, answer=answer, reviewed=True))
                if reply[0] == "ok":
                    return await store.record(queue, deferral_id, reply[2])
        if reply[0] != "ok" and reply[1] not in _OVERTAKEN:
            raise refused(reply, name)
    raise AbortedError(f"{name}: others keep changing it; read it again, then retry")


def foresee(store: Store, record: Record, reviewer: str, answer: Answer) -> tuple[Argument, ...]:
    """Return what lets `submit` settle in the same step: the version of `record`, and how it ends with one more review.

    Nothing where that review would not decide, or the deferral grows or escalates.
    """
    deferral = record.deferral
    # Consensus is about who said what, not when.
    review = Review(
        reviewer=reviewer, answer=answer, create_time=0.0, blind=True, duration_seconds=0.0, tier=deferral.tier
    )
    reviews = (*deferral.reviews, review)
    record = msgspec.structs.replace(record, deferral=msgspec.structs.replace(deferral, reviews=reviews))
    match _weigh(store, record, reviews):
        case NeedMore() | Escalate():
            return ()
        case Settled(source=source, answer=settled):
            return _settlement(store, record, Verdict(source=source, answer=settled, reviewed=True))


async def close(store: Store, queue: str, deferral_id: str) -> bool:
    """End the undo window of a SETTLING deferral if its time is over; False where there was nothing to do."""
    (reply,) = await close_all(store, queue, [deferral_id])
    if reply[0] != "ok" and reply[1] not in _OVERTAKEN:
        raise refused(reply, deferral_name(queue, deferral_id))
    return bool(reply[0] == "ok")


async def close_all(store: Store, queue: str, ids: Sequence[str]) -> list[Reply]:
    """End the undo windows of up to CLOSE_MAX deferrals whose time is over, in one step; return how each went."""
    reply = await store.run("close", queue, retention_ms(store, queue), *ids, request=NO_REQUEST)
    return accepted(reply, queue)


async def close_over(store: Store, queue: str, ids: Sequence[str]) -> int:
    """End the undo windows of any number; return of how many. One that cannot be ended keeps no other waiting."""
    count = 0
    for start in range(0, len(ids), CLOSE_MAX):
        some = ids[start : start + CLOSE_MAX]
        for one, reply in zip(some, await close_all(store, queue, some), strict=True):
            count += reply[0] == "ok"
            if reply[0] != "ok" and reply[1] not in _OVERTAKEN:
                log.error("cannot close an undo window; going on with the others", queue=queue, id=one, why=reply[1])
    return count


async def expire(store: Store, record: Record) -> Event | None:
    """Escalate or expire a deferral whose time is over, as it asks for; None where there was nothing to do any more.

    One that its reviews decide is settled, should whoever took the last of them have died before that: None too.
    """
    deferral = record.deferral
    if isinstance(_weigh(store, record, deferral.reviews), Settled):
        await conclude(store, deferral.queue, record)
        return None
    if deferral.on_expiry is OnExpiry.ESCALATE and _has_higher(store, record):
        event, reply = Event.ESCALATE, await _escalate(store, record, "overdue")
    else:
        answer = overdue(deferral.prediction, deferral.on_expiry)
        ending = _ending(store, record, State.EXPIRED, Verdict(source=Source.EXPIRY, answer=answer, reviewed=False))
        event, reply = Event.EXPIRE, await store.run("expire", deferral.queue, deferral.id, *ending)
    if reply[0] != "ok" and reply[1] not in _OVERTAKEN:
        raise refused(reply, deferral.name)
    return event if reply[0] == "ok" else None


def ascent(store: Store, deferral: Deferral) -> tuple[Argument, ...]:
    """Return what escalating takes: how many tiers there are, slots wanted and at most, time to review, boost."""
    settings = store.config.queue(deferral.queue)
    wanted, length_ms = settings.tier_reviews_wanted, max(1, int(settings.review_seconds * MS))
    boost = boost_ms(deferral.priority, settings)
    return len(settings.tiers), wanted, max(wanted, settings.reviews_max), length_ms, boost


async def cancel(store: Store, record: Record, request: Request) -> None:
    """Cancel an OPEN deferral; raises StateError where it ended."""
    deferral = record.deferral
    verdict = Verdict(source=Source.CANCELLATION, answer=None, reviewed=False)
    ending = _ending(store, record, State.CANCELLED, verdict)
    reply = await store.run("cancel", deferral.queue, deferral.id, *ending, request=request)
    if reply[0] != "ok" and reply[1] == "unknown":
        raise missing(deferral.name)
    accepted(reply, deferral)


def _weigh(store: Store, record: Record, reviews: tuple[Review, ...]) -> NeedMore | Settled | Escalate:
    return consensus(
        reviews,
        wanted=record.wanted,
        limit=record.limit,
        places=record.places,
        tier=record.deferral.tier,
        higher=_has_higher(store, record),
        opinion=record.deferral.second_opinion,
    )


def _has_higher(store: Store, record: Record) -> bool:
    return record.tier + 1 < len(store.config.queue(record.deferral.queue).tiers)


async def _grow(store: Store, record: Record, places: int) -> Reply:
    """Ask one more person, or as many as it takes until there are `places` of this tier."""
    deferral, most, more = record.deferral, record.slots_max, 1
    if places:
        most, more = places + record.slots_max - record.limit, places - record.places
    return await store.run("grow", deferral.queue, deferral.id, deferral.version, most, more)


async def _escalate(store: Store, record: Record, why: str) -> Reply:
    deferral = record.deferral
    return await store.run("escalate", deferral.queue, deferral.id, deferral.version, why, *ascent(store, deferral))


async def _settle(store: Store, record: Record, verdict: Verdict) -> Reply:
    return await store.run("settle", record.deferral.queue, record.deferral.id, *_settlement(store, record, verdict))


def _settlement(store: Store, record: Record, verdict: Verdict) -> tuple[Argument, ...]:
    """Return what settling takes: the version it is decided at, the ending, the undo window."""
    window_ms = int(store.config.queue(record.deferral.queue).undo_seconds * MS)
    return record.deferral.version, *_ending(store, record, State.RESOLVED, verdict), window_ms


def _ending(store: Store, record: Record, state: State, verdict: Verdict) -> tuple[bytes, str, int]:
    """Return what every ending script takes: the outcome, the event to tell, how long all is kept."""
    deferral, retention = record.deferral, retention_ms(store, record.deferral.queue)
    event = telling(deferral, state, verdict.answer) if deferral.gold is None else tried(deferral, deferral.gold)
    return encode_verdict(verdict), event, retention


def retention_ms(store: Store, queue: str) -> int:
    """Return how long a deferral of `queue` is kept once it ended."""
    return int(store.config.queue(queue).retention_seconds * MS)
