"""What every part of the queue needs of Redis: running a script under a request id, and reading records."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from fallback import keys, records
from fallback.answer import Task
from fallback.blobs.places import BlobStore
from fallback.config import Config
from fallback.connection import Argument, Connection, Reply, script
from fallback.deferral import Deferral, deferral_name
from fallback.errors import (
    AbortedError,
    ConflictError,
    DemurError,
    FullError,
    InvalidError,
    NotFoundError,
    StateError,
    TakenOverError,
)
from fallback.queue_settings import QUEUE_NAME
from fallback.records import Record
from fallback.troubles import Troubles

REQUEST_ID_CHARS_MAX: Final = 128
NAME_CHARS_MAX: Final = 256
# Queues that an error names.
NAMED_MAX: Final = 10
TASKS_CACHED_MAX: Final = 1_024
HELD_CACHED_MAX: Final = 1_024
# Records that one run of a script reads at most: others are served between two runs.
READ_MAX: Final = 64
# Records that cannot be read are told of once each; that many are remembered.
UNREADABLE_MAX: Final = 1_024
# What we repeat ourselves is repeated within seconds.
OWN_REQUEST_SECONDS: Final = 60.0
_STALE: Final = {
    "lapsed": "it lapsed",
    "released": "it was released",
    "submitted": "its review was submitted",
    "skipped": "you skipped it",
    "retaken": "it ended, and the place was leased again",
    "resumed": "it was taken over in another place",
    "escalated": "the next tier is asked",
    # Nobody outside knows of an undo window.
    "settling": "being settled",
}
# Refusals whose detail is a time, ms.
_TIMED: Final = frozenset({"closed", "overdue"})
_REFUSALS: Final[dict[str, tuple[type[DemurError], str]]] = {
    "forged": (InvalidError, "token: expected a token that a lease came with, got something else"),
    "foreign": (StateError, "token: this lease of {name} is another reviewer's; lease one of your own"),
    "ended": (StateError, "{name}: is {0} already; nothing more can happen to it"),
    "stale": (StateError, "token: this lease of {name} is over: {0}; lease again"),
    "reused": (ConflictError, "request_id: was used for another call; make a new one for each call"),
    "changed": (AbortedError, "{name}: is at version {0} meanwhile; read it again, then retry"),
    "early": (StateError, "{name}: does not expire before {0} (Unix time, ms)"),
    "full": (StateError, "{name}: has all its reviews and is about to be settled"),
    "broken": (StateError, "{name}: its record lacks what ending it takes; it stays as it is until that is repaired"),
    "limit": (StateError, "{name}: has {0} places for reviews and gets no more now"),
    "nothing": (StateError, "{name}: holds no review of yours to take back"),
    "escalated": (StateError, "{name}: the next tier is asked because of your review; it cannot be taken back"),
    "highest": (StateError, "{name}: there is no tier above to send it to; skip or release it instead"),
    "open": (StateError, "{name}: waits for {0} more reviews"),
    "stranger": (StateError, "{name}: only who holds or answered it may flag it"),
    "flagged": (FullError, "{name}: has {0} flags already, as many as one may have"),
    "drafts": (
        FullError,
        "{name}: its queue holds {0} bytes of drafts and has no room for this one (setting drafts_bytes_max)",
    ),
    "erased": (
        StateError,
        "{name}: its content was erased, no draft of it is kept; submit or release it",
    ),
    "closed": (StateError, "{name}: its reviews could be taken back until {0}; that is over"),
    "overdue": (StateError, "{name}: its time to be reviewed ended at {0}"),
    "skipped": (FullError, "{name}: {0} people skipped it already, as many as may; release it instead"),
}


log = structlog.get_logger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Under what a script keeps its reply, what tells a repeat from another call, and for how long."""

    key: str
    fingerprint: str
    seconds: float


# For a script whose repeat is safe by other means.
NO_REQUEST: Final = Request(key="", fingerprint="", seconds=0)


class Store:
    """The records of all queues; belongs to one event loop."""

    def __init__(self, config: Config, *, blocks: bool = False) -> None:
        self.config = config
        self.connection = Connection(config, blocks=blocks)
        self.blobs = BlobStore(config, self.connection)
        self.troubles = Troubles()
        self._tasks: dict[str, Task] = {}
        self._held: dict[tuple[str, str], Record] = {}
        self._unreadable: dict[tuple[str, str], None] = {}

    async def run(
        self, event: str, queue: str, *arguments: Argument, request: Request | None = None, raw: bool = False
    ) -> Reply:
        """Run the script of an event; returns its reply, {'ok', ...} or {'refused', ...}; `raw`: as bytes."""
        what = script(event)
        return await self.connection.run(
            what,
            keys.indexes(queue, what.indexes),
            *frame(keys.prefix(queue), request or own_request()),
            *arguments,
            raw=raw,
        )

    def request(self, queue: str, request_id: str, *call: str) -> Request:
        """Return the request of a caller's `request_id`; `call` is what it asks for and who asks, the caller first."""
        if len(request_id) > REQUEST_ID_CHARS_MAX:
            raise InvalidError(f"request_id: expected at most {REQUEST_ID_CHARS_MAX} characters, got {len(request_id)}")
        if not request_id:
            return own_request()
        return Request(
            key=keys.digest(call[0], request_id),
            fingerprint=keys.digest(*call),
            seconds=self.config.queue(queue).request_seconds,
        )

    async def queues(self) -> list[str]:
        """Return every queue's name, sorted: those configured and those that something was ever parked in."""
        return self.named(await self.connection.attempt(lambda: self.connection.redis.smembers(keys.QUEUES)))

    async def expect_queue(self, queue: str) -> None:
        """Raise NotFoundError for a queue that is not configured and that nothing was ever parked in."""
        if queue in self.config.queue_names():
            return
        redis = self.connection.redis
        if not await self.connection.attempt(lambda: redis.sismember(keys.QUEUES, queue)):
            known = await self.queues()
            near = difflib.get_close_matches(queue, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known[:NAMED_MAX]) or 'none'}"
            raise NotFoundError(f"queue: nothing was ever parked in {queue!r}{hint}")

    def named(self, members: Iterable[bytes]) -> list[str]:
        """Return the names of queues, sorted: those configured and `members`, what the server knows."""
        return sorted({*self.config.queue_names(), *(member.decode() for member in members)})

    async def clock(self, queue: str, *, once: bool = False) -> float:
        """Return the time of the server that holds `queue`, Unix seconds; `once`: it is asked no second time."""
        seconds, microseconds = await self.connection.time(keys.prefix(queue), once=once)
        return float(seconds) + float(microseconds) / 1e6

    async def get(self, name: str) -> Record:
        """Return one deferral; raises NotFoundError, and DemurError where its record cannot be read."""
        queue, deferral_id = parse(name)
        texts = (await self.run("read", queue, deferral_id, request=NO_REQUEST))[1:]
        return await self.record(queue, deferral_id, texts[0])

    async def fetch(self, queue: str, ids: Sequence[str]) -> list[Record | None]:
        """Return the deferrals of `ids`, in order; None for those that are not there, or cannot be read (logged)."""
        return [found if isinstance(found, Record) else None for found in await self.read(queue, ids)]

    async def read(self, queue: str, ids: Sequence[str]) -> list[Record | DemurError | None]:
        """Return the deferrals of `ids`, in order; None for those that are not there, why not for unreadable ones."""
        if not ids:
            return []
        texts: list[str | None] = []
        for start in range(0, len(ids), READ_MAX):
            texts += (await self.run("read", queue, *ids[start : start + READ_MAX], request=NO_REQUEST))[1:]
        return await self.records(queue, ids, texts)

    async def records(
        self, queue: str, ids: Sequence[str], texts: Sequence[str | None]
    ) -> list[Record | DemurError | None]:
        """Return the deferrals of `ids`, whose records the scripts returned as `texts`; None where there was none.

        One that cannot be read fails alone, as the error that says why.
        """
        found = [self._fields(queue, one, text) if text else None for one, text in zip(ids, texts, strict=True)]
        await self._load_tasks(queue, {fields.get("task", "") for fields in found if isinstance(fields, dict)} - {""})
        return [
            self._decode(queue, one, fields) if isinstance(fields, dict) else fields
            for one, fields in zip(ids, found, strict=True)
        ]

    async def record(self, queue: str, deferral_id: str, text: str | None) -> Record:
        """Return one deferral whose record a script returned as `text`; raises NotFoundError."""
        (found,) = await self.records(queue, [deferral_id], [text])
        if found is None:
            raise missing(deferral_name(queue, deferral_id))
        if isinstance(found, DemurError):
            raise found
        return found

    def hold(self, records: Sequence[Record]) -> None:
        """Remember deferrals as they were when somebody leased them."""
        for record in records:
            self._held[record.deferral.queue, record.deferral.id] = record
        while len(self._held) > HELD_CACHED_MAX:
            del self._held[next(iter(self._held))]

    def held(self, queue: str, deferral_id: str) -> Record | None:
        """Return a deferral as it was when somebody leased it here, which may be long ago; None where it is forgotten.

        What never changes of it is right, and all of it is as long as its version is the same.
        """
        return self._held.get((queue, deferral_id))

    async def _load_tasks(self, queue: str, digests: set[str]) -> None:
        unknown = sorted(digests - self._tasks.keys())
        if not unknown:
            return
        names = [keys.task(queue, digest) for digest in unknown]
        found = await self.connection.attempt(lambda: self.connection.redis.mget(names))
        for digest, encoded in zip(unknown, found, strict=True):
            if encoded is not None:
                self._tasks[digest] = msgspec.json.decode(encoded, type=Task)
        # The oldest go; those of this call are younger, or stay because the cache is larger than any one call.
        for digest in list(self._tasks)[: max(0, len(self._tasks) - TASKS_CACHED_MAX)]:
            if digest not in digests:
                del self._tasks[digest]

    def _decode(self, queue: str, deferral_id: str, fields: dict[str, str]) -> Record | DemurError:
        try:
            tiers = self.config.queue(queue).tiers
            return records.decode(queue, deferral_id, fields, self._tasks[fields["task"]], tiers)
        except (KeyError, ValueError, TypeError, msgspec.DecodeError) as error:
            return self._tell_unreadable(queue, deferral_id, error)

    def _fields(self, queue: str, deferral_id: str, text: str) -> dict[str, str] | DemurError:
        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except msgspec.DecodeError as error:
            return self._tell_unreadable(queue, deferral_id, error)

    def _tell_unreadable(self, queue: str, deferral_id: str, cause: Exception) -> DemurError:
        """Say it once in the log, loudly: somebody has to look."""
        error = DemurError(f"{deferral_name(queue, deferral_id)}: its record cannot be read: {cause!r}")
        error.__cause__ = cause
        if (queue, deferral_id) not in self._unreadable:
            log.error("a record cannot be read; going on without it", queue=queue, id=deferral_id, error=repr(cause))
            self._unreadable[queue, deferral_id] = None
            while len(self._unreadable) > UNREADABLE_MAX:
                del self._unreadable[next(iter(self._unreadable))]
        return error


def own_request() -> Request:
    """Return a request of our own, for what only we repeat."""
    return Request(key=secrets.token_hex(12), fingerprint="-", seconds=OWN_REQUEST_SECONDS)


def frame(prefix: str, request: Request) -> tuple[Argument, ...]:
    """Return the arguments that every script begins with."""
    return prefix, request.key, request.fingerprint, int(request.seconds * records.MS)


def parse(name: str) -> tuple[str, str]:
    """Return queue and id of `queues/<queue>/deferrals/<id>`; raises InvalidError for what is no such name."""
    parts = name.split("/") if len(name) <= NAME_CHARS_MAX else []
    if len(parts) != 4 or (parts[0], parts[2]) != ("queues", "deferrals") or not _is_id(parts[3]):  # noqa: PLR2004
        raise InvalidError(f"name: expected queues/<queue>/deferrals/<id>, got {name[:100]!r}")
    if not QUEUE_NAME.fullmatch(parts[1]):
        raise InvalidError(f"name: expected queues/<queue>/deferrals/<id>, got {name[:100]!r}")
    return parts[1], parts[3]


def missing(name: str) -> NotFoundError:
    """Return the error for a deferral that is not there."""
    return NotFoundError(f"{name}: no such deferral; it never was, or its retention time is over")


def refused(reply: Reply, name: str) -> DemurError:
    """Return the error for a script's refusal."""
    why, detail = str(reply[1]), [str(item) for item in reply[2:]]
    if why == "unknown":
        return missing(name)
    known = _REFUSALS.get(why)
    if known is None:
        return StateError(f"{name}: {' '.join([why, *detail])}")
    kind, sentence = (TakenOverError, known[1]) if [why, *detail] == ["stale", "resumed"] else known
    shown = [_when(item) if why in _TIMED else _STALE.get(item, item) for item in detail]
    return kind(sentence.format(*shown, name=name))


def accepted(reply: Reply, deferral: Deferral | str) -> Reply:
    """Return what follows 'ok'; raises the refusal's error."""
    if reply[0] != "ok":
        raise refused(reply, deferral if isinstance(deferral, str) else deferral.name)
    return reply[1:]


def _when(milliseconds: str) -> str:
    return datetime.fromtimestamp(int(milliseconds) / records.MS, UTC).isoformat(timespec="milliseconds")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isalnum()
