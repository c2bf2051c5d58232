"""Parks requests: content first, with a time to live, then the script that accepts it and takes that away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fallback import keys, records
from fallback.config import QueueSettings
from fallback.connection import Argument, Reply, script
from fallback.deferral import Parking, deferral_name
from fallback.errors import ConflictError, DemurError, InvalidError, UnavailableError
from fallback.limits import Limits
from fallback.load import Load
from fallback.parking import check_parking, expiry_of
from fallback.records import MS
from fallback.store import NO_REQUEST, Store, frame

# Deferrals that one run of the script accepts at most: others are served between two runs.
RUN_MAX: Final = 64
Command = tuple[Argument, ...]


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """The deferral that holds a request now; `created` is False where an earlier call with the same key made it.

    `expected_wait`: seconds until it has its outcome, as far as can be said, else None. `over`: the limit, by the name
    of its setting, that the queue was over and kept it all the same; else empty.
    """

    name: str
    created: bool
    expected_wait: float | None = None
    over: str = ""


async def park(store: Store, parkings: Sequence[Parking], limits: Limits | None = None) -> list[Parked | DemurError]:
    """Accept requests in one pipeline; a verdict for each: durably parked, or why not."""
    limits = limits or Limits(store)
    refusals = [_judge(store, parking) for parking in parkings]
    try:
        unknown = await limits.unknown(
            {parking.queue for parking, no in zip(parkings, refusals, strict=True) if not no}
        )
    except DemurError as error:
        return [refusal or error for refusal in refusals]
    if unknown:
        refusals = [no or unknown.get(parking.queue) for parking, no in zip(parkings, refusals, strict=True)]
    ready = [parking for parking, refusal in zip(parkings, refusals, strict=True) if refusal is None]
    sent = iter(await _send(store, limits, ready) if ready else [])
    return [next(sent) if refusal is None else refusal for refusal in refusals]


def _judge(store: Store, parking: Parking) -> DemurError | None:
    try:
        check_parking(parking, store.config.queue(parking.queue))
    except InvalidError as error:
        return error
    return None


async def _send(store: Store, limits: Limits, parkings: Sequence[Parking]) -> list[Parked | DemurError]:
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
    for (queue, numbers), reply in zip(groups, replies, strict=True):
        load = None if isinstance(reply, DemurError) else await limits.load(queue)
        each = [reply] * len(numbers) if isinstance(reply, DemurError) else msgspec.json.decode(reply[1])
        verdicts |= {
            number: _verdict(one, parkings[number], limits, load) for number, one in zip(numbers, each, strict=True)
        }
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
    keep = settings.when_over == "keep"
    return (
        settings.reviews_wanted,
        max(settings.reviews_wanted, settings.reviews_max),
        settings.depth_max,
        settings.budget_per_hour,
        "keep" if keep else "",
        max(settings.depth_max, settings.open_max) if keep else settings.depth_max,
        settings.bytes_max,
        settings.outbox_max,
    )


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
        parking.priority,
        max(1, int(seconds * MS)),
        " ".join(content),
        f"{len(parking.subject) + len(parking.inputs)}{'a' * parking.audit}{'c' * (parking.callback is not None)}",
    )
    return before, arguments


def _verdict(reply: Reply | DemurError, parking: Parking, limits: Limits, load: Load | None) -> Parked | DemurError:
    match reply:
        case DemurError():
            return reply
        case ["ok", str(one), created, int(ahead), str(over)]:
            if over:
                limits.warn(parking.queue, over, "keeps all the same")
            wait = limits.parked(load, parking, ahead) if ahead >= 0 else None
            name = deferral_name(parking.queue, one)
            return Parked(name=name, created=bool(created), expected_wait=wait, over=over)
        case ["refused", "conflict", str(one)]:
            return ConflictError(
                f"idempotency_key: {parking.idempotency_key!r} was used with another input, "
                f"for {deferral_name(parking.queue, one)}; make a new key for each input"
            )
        case ["refused", "over", str(limit), int(much), int(room_ms)]:
            return limits.refusal(load, parking.queue, limit, much, room_ms)
        case _:
            return UnavailableError("the content was lost on its way; nothing was accepted, try again")
