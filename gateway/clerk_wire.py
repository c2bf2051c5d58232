"""What a gateway and its clerk say to each other: frames of MessagePack behind their length. Pure.

A gateway first tells its settings, and hears nothing in reply, which says that the clerk is there. Then it names, in
each order, the terms that the clerk does not know yet, and its errands. The clerk answers with the verdicts of each
errand, a row each, in whatever order; of those that nobody waits for and that are parked as they should be, it names
the tickets alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self, TypeAlias

import msgspec

from fallback import keys
from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.errors import (
    AwayError,
    ConflictError,
    DemurError,
    FullError,
    InvalidError,
    OverdueError,
    OverError,
    UnavailableError,
)
from fallback.queue import Parked
from fallback.redis_settings import RedisSettings
from gateway.slip import Slip, Terms

LENGTH_BYTES: Final = 4
# Terms that a clerk keeps; a gateway names no older ones.
TERMS_MAX: Final = 512
NONCE_BYTES: Final = 16
_NUMBER_BYTES: Final = 8
_KINDS: Final = {
    kind.__name__: kind for kind in (AwayError, ConflictError, FullError, InvalidError, OverdueError, UnavailableError)
}
_ENCODER: Final = msgspec.msgpack.Encoder()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a clerk needs to know of its gateway's configuration."""

    data_folder: str
    redis: RedisSettings
    fallback: FallbackSettings
    queues: dict[str, QueueSettings]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return that of `config`."""
        return cls(
            data_folder=str(config.data_folder),
            redis=config.table("redis", RedisSettings),
            fallback=config.table("fallback", FallbackSettings),
            queues={name: config.queue(name) for name in ("default", *config.queue_names())},
        )

    def config(self) -> Config:
        """Return it as the queue takes it."""
        tables = {"redis": self.redis, "fallback": self.fallback}
        return Config(data_folder=Path(self.data_folder), tables=tables, queues=self.queues)


class Errand(msgspec.Struct, frozen=True, array_like=True):
    """The rows of one request that go to people.

    `until`: when its caller stops waiting, by time.monotonic(), which all processes of a machine share; None: nobody
    waits, it is answered.
    """

    ticket: int
    terms: int
    until: float | None
    slips: tuple[Slip, ...]


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="parked"):
    """A row that is parked; see `fallback.queue.Parked`."""

    name: str
    created: bool
    expected_wait: float | None
    over: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A row that is not, and why."""

    kind: str
    message: str
    retry_after_seconds: float | None
    queue: str = ""
    limit: str = ""
    unreviewed: bool = False


Order: TypeAlias = tuple[tuple[tuple[int, Terms], ...], tuple[Errand, ...]]
Reply: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, tuple[Kept | Refused, ...]], ...]]


def frame(content: object) -> bytes:
    """Return an order or a reply as it is sent."""
    encoded = _ENCODER.encode(content)
    return len(encoded).to_bytes(LENGTH_BYTES) + encoded


class Frames:
    """What came of a stream."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, came: bytes) -> Iterator[memoryview]:
        """Yield the contents that are whole now."""
        rest = self._rest
        rest += came
        # By the length first: of a large one that is not whole yet nothing is copied again and again.
        while len(rest) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(rest[:LENGTH_BYTES])
            if end > len(rest):
                return
            content = memoryview(bytes(rest[LENGTH_BYTES:end]))
            del rest[:end]
            yield content


def ids(nonce: bytes, ticket: int, rows: int) -> list[str]:
    """Return what the rows of an errand are called in the queue: the same for whoever parks them, however often."""
    seed = nonce + ticket.to_bytes(_NUMBER_BYTES)
    return [keys.id_from(seed + row.to_bytes(_NUMBER_BYTES)) for row in range(rows)]


def to_wire(verdicts: Sequence[Parked | DemurError]) -> tuple[Kept | Refused, ...]:
    """Return verdicts as they are sent."""
    return tuple(
        Kept(each.name, each.created, each.expected_wait, each.over) if isinstance(each, Parked) else _refused(each)
        for each in verdicts
    )


def from_wire(verdicts: Sequence[Kept | Refused]) -> list[Parked | DemurError]:
    """Return verdicts as they were before."""
    return [
        Parked(name=each.name, created=each.created, expected_wait=each.expected_wait, over=each.over)
        if isinstance(each, Kept)
        else _error(each)
        for each in verdicts
    ]


def reply(said: Sequence[tuple[Errand, Sequence[Parked | DemurError]]]) -> bytes:
    """Return what became of errands as it is sent."""
    fine, others = [], []
    for errand, verdicts in said:
        if errand.until is None and all(
            isinstance(each, Parked) and each.created and not each.over for each in verdicts
        ):
            fine.append(errand.ticket)
        else:
            others.append((errand.ticket, to_wire(verdicts)))
    return frame((fine, others))


def _refused(error: DemurError) -> Refused:
    kind, after = type(error).__name__, error.retry_after_seconds
    if isinstance(error, OverError):
        return Refused(kind, error.message, after, error.queue, error.limit, error.unreviewed)
    return Refused(kind, error.message, after)


def _error(said: Refused) -> DemurError:
    after = said.retry_after_seconds
    if said.kind == OverError.__name__:
        return OverError(
            said.message, queue=said.queue, limit=said.limit, unreviewed=said.unreviewed, retry_after_seconds=after
        )
    return _KINDS.get(said.kind, DemurError)(said.message, retry_after_seconds=after)
