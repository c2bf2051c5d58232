"""Parks requests: content first, then the script that accepts it, and stores the task where that is new.

Before small content comes goes a note that it is on its way (`arriving`). The script takes the note away, whatever it
says; where it never runs, the reaper finds the note and forgets the content. One server does all of that in one step,
unless it is so much that others would wait, and so syncs its file once; of a cluster each command is one. Large
content goes before that, each by itself (`fallback.blobs`), so that what is small does not wait behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

import msgspec

from fallback import keys, records
from fallback.answer import Task, check_task
from fallback.blobs import FOLDER, REDIS, Reference
from fallback.config import QueueSettings
from fallback.connection import Argument, Reply, Run, script
from fallback.deferral import Parking, deferral_name
from fallback.errors import ConflictError, DemurError, FullError, InvalidError, UnavailableError
from fallback.limits import Limits
from fallback.load import Load
from fallback.parking import boost_ms, check_parking, expiry_of
from fallback.records import MS
from fallback.store import NO_REQUEST, Store, frame

# Deferrals that one run of the script accepts at most: others are served between two runs.
RUN_MAX: Final = 64
# Content that one command stores at most, unless one item brings more: nobody else is served meanwhile.
STORED_BYTES_MAX: Final = 1_048_576
Command = tuple[Argument, ...]
# A request and its id.
Named = tuple[str, Parking]
_NOTHING_LARGE: Final[Mapping[str, Reference]] = MappingProxyType({})


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """The deferral that holds a request now; `created` is False where an earlier call with the same key made it.

    `expected_wait`: seconds until it has its outcome, as far as can be said, else None. `over`: the limit, by the name
    of its setting, that the queue was over and kept it all the same; else empty.
    """

    name: str
    created: bool
    expected_wait: float | None = None
    over: str = ""


async def park(
    store: Store, parkings: Sequence[Parking], limits: Limits | None = None, ids: Sequence[str] = ()
) -> list[Parked | DemurError]:
    """Accept requests in one pipeline; a verdict for each: durably parked, or why not.

    `ids` are what they are called, where the caller may have to ask again; else each gets one here.
    """
    limits = limits or Limits(store)
    # One object stands for a task in all requests of a model: by its identity it is judged once.
    distinct = {id(parking.task): parking.task for parking in parkings}
    tasks = {one: _judge_task(task) for one, task in distinct.items()}
    refusals = [tasks[id(parking.task)] or _judge(store, parking) for parking in parkings]
    try:
        unknown = await limits.unknown(
            {parking.queue for parking, no in zip(parkings, refusals, strict=True) if not no}
        )
    except DemurError as error:
        return [refusal or error for refusal in refusals]
    if unknown:
        refusals = [no or unknown.get(parking.queue) for parking, no in zip(parkings, refusals, strict=True)]
    # An id made here tells a repeat of ours from a second request: the script finds the record of the first attempt.
    named = zip(ids or [keys.fresh_id() for _ in parkings], parkings, refusals, strict=True)
    ready = [(one, parking) for one, parking, refusal in named if refusal is None]
    sent = iter(await _send_all(store, limits, ready) if ready else [])
    return [next(sent) if refusal is None else refusal for refusal in refusals]


def _judge_task(task: Task) -> DemurError | None:
    try:
        check_task(task)
    except InvalidError as error:
        return error
    return None


def _judge(store: Store, parking: Parking) -> DemurError | None:
    try:
        check_parking(parking, store.config.queue(parking.queue))
    except InvalidError as error:
        return error
    return None


async def _send_all(store: Store, limits: Limits, asked: Sequence[Named]) -> list[Parked | DemurError]:
    large = [number for number, (_, parking) in enumerate(asked) if store.blobs.takes(parking)]
    if not large:
        return await _send(store, limits, asked)
    small = [number for number in range(len(asked)) if number not in set(large)]
    at_once, *one_by_one = await asyncio.gather(
        _send(store, limits, [asked[number] for number in small]) if small else _nothing(),
        *(_send_large(store, limits, *asked[number]) for number in large),
    )
    verdicts = dict(zip([*small, *large], [*at_once, *chain(*one_by_one)], strict=True))
    return [verdicts[number] for number in range(len(asked))]


async def _nothing() -> list[Parked | DemurError]:
    return []


async def _send_large(store: Store, limits: Limits, one: str, parking: Parking) -> list[Parked | DemurError]:
    """Write large content, then park. What is not accepted is deleted here, or left as an orphan."""
    seconds = store.config.queue(parking.queue).orphan_seconds
    redis = store.connection.redis
    try:
        # Known first: a queue's orphans are swept by those who know it.
        await store.connection.attempt(lambda: redis.sadd(keys.QUEUES, parking.queue))
        if store.blobs.needs_note:
            # Once: a repeat of what follows must not renew a note by whose end the sweep may go already.
            note = {keys.file_note(one): 0}
            await store.connection.attempt(lambda: redis.zadd(keys.index(parking.queue, "arriving"), note, nx=True))
        large = await store.blobs.put(one, parking, orphan_seconds=seconds)
        (verdict,) = await _send(store, limits, [(one, parking)], large=large)
        if not _perhaps_made(verdict) and not _made(verdict, parking, one):
            await store.blobs.delete(parking.queue, [one])
    except DemurError as error:
        return [error]
    return [verdict]


async def _send(
    store: Store,
    limits: Limits,
    named: Sequence[Named],
    *,
    large: Mapping[str, Reference] = _NOTHING_LARGE,
) -> list[Parked | DemurError]:
    """Send small content and run the script; `large` says where the large contents of the only one lie."""
    parkings = [parking for _, parking in named]
    groups = _groups(parkings)
    runs = [
        _prepare(queue, dict(named[number] for number in numbers), store.config.queue(queue), large)
        for queue, numbers in groups
    ]
    try:
        replies = await store.connection.run_all(script("park"), runs)
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
        settings.depth_max,
        settings.budget_per_hour,
        "keep" if keep else "",
        settings.open_max if keep else settings.depth_max,
        settings.bytes_max,
        settings.outbox_max,
    )


def _prepare(queue: str, asked: dict[str, Parking], settings: QueueSettings, large: Mapping[str, Reference]) -> Run:
    """Return the commands that store what the requests bring, and the script's run; `asked` is by id.

    `large` is what of the only request lies elsewhere already.
    """
    places = settings.reviews_wanted, max(settings.reviews_wanted, settings.reviews_max)
    content: list[tuple[str, bytes]] = []
    each: list[Argument] = []
    # One object stands for a task in all requests of a model: by its identity it is encoded once.
    tasks: dict[int, tuple[str, bytes]] = {}
    for one, parking in asked.items():
        task = tasks.get(id(parking.task)) or tasks.setdefault(id(parking.task), records.encode_task(parking.task))
        brought = records.content_keys(queue, one, parking, large)
        content += brought.values()
        names = (*brought, *(f"{what}.up" for what in large if large[what].place == REDIS))
        file = any(reference.place == FOLDER for reference in large.values())
        each.append(_words(one, parking, task[0], names, settings, file=file))
        each.append(records.encode_body(parking, expiry_of(parking, settings), places, large))
    # The same may come as two objects.
    distinct = dict(tasks.values())
    arguments: list[Argument] = [*frame(keys.prefix(queue), NO_REQUEST), *_shared(settings), len(distinct)]
    for digest, encoded in distinct.items():
        arguments += (digest, encoded)
    arguments += each
    before: list[Command] = [("SADD", keys.QUEUES, queue)]
    stored = _stored(content) if content else []
    if content:
        scores = [word for one in asked for word in (0, one)]
        before += (("ZADD", keys.index(queue, "arriving"), *scores), *stored)
    # Nobody else is served meanwhile.
    return Run(keys.indexes(queue, script("park").indexes), arguments, before, together=len(stored) <= 1)


def _words(
    one: str, parking: Parking, task: str, content: Iterable[str], settings: QueueSettings, *, file: bool
) -> str:
    """Return what the script is told of a request beside its body, in one text: many short arguments cost more."""
    idempotency = keys.digest(parking.client, parking.idempotency_key) if parking.idempotency_key else "-"
    seconds = parking.review_seconds if parking.review_seconds is not None else settings.review_seconds
    length_ms = max(1, int(seconds * MS))
    digest = keys.digest(parking.input_digest)
    marks = f"{'a' * parking.audit}{'c' * (parking.callback is not None)}{'f' * file}"
    facts = f"{len(parking.subject) + len(parking.inputs)}{marks}"
    # A gold item is up next: it is not to wait behind what came long before.
    boost = boost_ms(parking.priority, settings) if parking.gold is None else length_ms
    times = f"{parking.priority} {boost} {length_ms}"
    blind = parking.second_opinion is not None or parking.gold is not None
    narrow = parking.tier or parking.excluded_reviewers or blind
    whom = f"\n{_whom(parking, settings)}" if narrow else ""
    return " ".join([one, idempotency, digest, task, times, facts, *content]) + whom


def _whom(parking: Parking, settings: QueueSettings) -> str:
    """Return the number of the tier to begin at, how it is reviewed, and who is never asked, as the script takes it."""
    tier = settings.tiers.index(parking.tier) if parking.tier else 0
    how = "blind" if parking.second_opinion is not None or parking.gold is not None else ""
    return msgspec.json.encode([str(tier), how, *parking.excluded_reviewers]).decode()


def _stored(content: Sequence[tuple[str, bytes]]) -> list[Command]:
    """Return the commands that store content, each with as many items as are not too much."""
    commands: list[Command] = []
    command: list[Argument] = ["MSET"]
    size = 0
    for key, blob in content:
        if size and size + len(blob) > STORED_BYTES_MAX:
            commands.append(tuple(command))
            command, size = ["MSET"], 0
        command += (key, blob)
        size += len(blob)
    return [*commands, tuple(command)]


def _perhaps_made(verdict: Parked | DemurError) -> bool:
    """Say whether a deferral may have been made all the same: a server without memory refuses command by command."""
    return isinstance(verdict, UnavailableError) or type(verdict) is FullError


def _made(verdict: Parked | DemurError, parking: Parking, one: str) -> bool:
    """Say whether a deferral of this id was made: the content that was written under it is in use."""
    return isinstance(verdict, Parked) and verdict.created and verdict.name == deferral_name(parking.queue, one)


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
