"""Parks requests: content first, with a time to live, then the script that accepts it and takes that away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fallback import keys, records
from fallback.config import QueueSettings
from fallback.connection import Argument, Reply, script
from fallback.deferral import Parking, deferral_name
from fallback.errors import ConflictError, DemurError, FullError, InvalidError, UnavailableError
from fallback.parking import boost_ms, check_parking, expiry_of
from fallback.records import MS
from fallback.store import NO_REQUEST, Store, frame

FULL_RETRY_SECONDS: Final = 5.0
# Deferrals that one run of the script accepts at most: others are served between two runs.
RUN_MAX: Final = 64
Command = tuple[Argument, ...]


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """The deferral that holds a request now; `created` is False where an earlier call with the same key made it."""

    name: str
    created: bool


async def park(store: Store, parkings: Sequence[Parking]) -> list[Parked | DemurError]:
    """Accept requests in one pipeline; a verdict for each: durably parked, or why not."""
    refusals = [_judge(store, parking) for parking in parkings]
    ready = [parking for parking, refusal in zip(parkings, refusals, strict=True) if refusal is None]
    sent = iter(await _send(store, ready) if ready else [])
    return [next(sent) if refusal is None else refusal for refusal in refusals]


def _judge(store: Store, parking: Parking) -> InvalidError | None:
    try:
        check_parking(parking, store.config.queue(parking.queue))
    except InvalidError as error:
        return error
    return None


async def _send(store: Store, parkings: Sequence[Parking]) -> list[Parked | DemurError]:
    # An id made here tells a repeat of ours from a second request: the script finds the record of the first attempt.
    before: dict[Command, None] = {}
    calls: list[tuple[Sequence[str], Command]] = []
    groups = _groups(parkings)
    for queue, numbers in groups:
        settings = store.config.queue(queue)
        call = [*frame(keys.prefix(queue), NO_REQUEST), *_shared(settings)]
        before["SADD", keys.QUEUES, queue] = None
        for number in numbers:
            content, arguments = _prepare(keys.fresh_id(), parkings[number], settings)
            before |= dict.fromkeys(content)
            call += arguments
        calls.append((keys.indexes(queue), tuple(call)))
    try:
        replies = await store.connection.run_all(list(before), script("park"), calls)
    except DemurError as error:
        return [error] * len(parkings)
    verdicts: dict[int, Parked | DemurError] = {}
    for (_, numbers), reply in zip(groups, replies, strict=True):
        each = [reply] * len(numbers) if isinstance(reply, DemurError) else msgspec.json.decode(reply[1])
        verdicts |= {number: _verdict(one, parkings[number]) for number, one in zip(numbers, each, strict=True)}
    return [verdicts[number] for number in range(len(parkings))]


def _groups(parkings: Sequence[Parking]) -> list[tuple[str, list[int]]]:
    """Return what one run of the script each takes: a queue, and which of `parkings`, at most RUN_MAX."""
    queues: dict[str, list[int]] = {}
    for number, parking in enumerate(parkings):
        queues.setdefault(parking.queue, []).append(number)
    return [
        (queue, numbers[start : start + RUN_MAX])
        for queue, numbers in queues.items()
        for start in range(0, len(numbers), RUN_MAX)
    ]


def _shared(settings: QueueSettings) -> Command:
    """Return the script's arguments that are the queue's."""
    return settings.reviews_wanted, max(settings.reviews_wanted, settings.reviews_max), settings.depth_max


def _prepare(one: str, parking: Parking, settings: QueueSettings) -> tuple[list[Command], Command]:
    """Return the commands that store the content of a request, and the script's arguments that are its own."""
    queue = parking.queue
    digest, task = records.encode_task(parking.task)
    content = records.content_keys(queue, one, parking)
    orphan = int(settings.orphan_seconds)
    # NX: a repeat after the script accepted the first attempt must not give it a time to live again.
    before: list[Command] = [
        ("SET", keys.task(queue, digest), task, "NX", "EX", orphan),
        *(("SET", key, blob, "NX", "EX", orphan) for key, blob in content.values()),
    ]
    seconds = parking.review_seconds if parking.review_seconds is not None else settings.review_seconds
    arguments = (
        one,
        keys.digest(parking.client, parking.idempotency_key) if parking.idempotency_key else "",
        keys.digest(parking.input_digest),
        records.encode_body(parking, expiry_of(parking, settings)),
        digest,
        boost_ms(parking.priority, settings),
        max(1, int(seconds * MS)),
        " ".join(content),
        _whom(parking, settings) if parking.tier or parking.excluded_reviewers else "",
    )
    return before, arguments


def _whom(parking: Parking, settings: QueueSettings) -> bytes:
    """Return the number of the tier to begin at, and who is never asked, as the script takes it."""
    tier = settings.tiers.index(parking.tier) if parking.tier else 0
    return msgspec.json.encode([str(tier), *parking.excluded_reviewers])


def _verdict(reply: Reply | DemurError, parking: Parking) -> Parked | DemurError:
    match reply:
        case DemurError():
            return reply
        case ["ok", str(one), created]:
            return Parked(name=deferral_name(parking.queue, one), created=bool(created))
        case ["refused", "conflict", str(one)]:
            return ConflictError(
                f"idempotency_key: {parking.idempotency_key!r} was used with another input, "
                f"for {deferral_name(parking.queue, one)}; make a new key for each input"
            )
        case ["refused", "full", depth]:
            return FullError(
                f"queue {parking.queue}: holds {depth} open deferrals, as many as it may; try again later",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        case _:
            return UnavailableError("the content was lost on its way; nothing was accepted, try again")
