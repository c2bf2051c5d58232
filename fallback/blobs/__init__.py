"""Where large content lies: in Redis, in chunks, or in a folder. An object store would be a third `Blobs`.

Content of up to `fallback.blob_bytes_min` is one string beside its record. What is larger is written here first, then
its reference (place, bytes, sha256) is parked with the record. Until a record is accepted its content is an orphan: it
goes by its time to live in Redis, by the sweep in a folder. So whatever dies between the content and the record leaves
only an orphan, and a record never stands without its content.

In Redis content is written under a name of its own (`...up`), which the script that accepts the record changes in the
same step: a write that arrives late, after its connection was given up for dead, makes an orphan again and never gives
accepted content a time to live. Each write is one transaction, so that no chunk is ever without one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

SUBJECT: Final = "subject"
INPUTS: Final = "inputs"
REDIS: Final = "redis"
FOLDER: Final = "folder"
# From here on a sha256 is computed in a thread: it would hold the loop up for a millisecond and more.
_THREAD_BYTES: Final = 256 * 1024


class Blob(NamedTuple):
    """Names one content: the queue, the deferral's id, and which of its contents."""

    queue: str
    id: str
    what: str


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a large content lies, its size, and its sha256 (base64 without padding)."""

    place: str
    size_bytes: int
    digest: str

    def write(self) -> str:
        """Return it as a record keeps it, where small content has its digest alone."""
        return f"{self.place}:{self.size_bytes}:{self.digest}"

    @classmethod
    def read(cls, stored: str) -> Reference | None:
        """Return what a record keeps; None where the content is small, or there is none."""
        place, _, rest = stored.partition(":")
        size, _, digest = rest.partition(":")
        return cls(place=place, size_bytes=int(size), digest=digest) if digest else None


class Blobs(Protocol):
    """A place for large content. Raises DemurError only."""

    async def put(self, blob: Blob, content: bytes, *, orphan_seconds: float) -> None:
        """Write content durably, as an orphan that goes after `orphan_seconds` unless its record is accepted."""

    async def get(self, blob: Blob, size_bytes: int) -> bytes | None:
        """Return at most a byte more than `size_bytes` of what lies there, None for nothing. Who asks checks it."""

    async def there(self, blobs: Sequence[Blob]) -> list[bool]:
        """Say of each whether something lies there."""

    async def delete(self, queue: str, ids: Sequence[str]) -> None:
        """Delete all contents of these deferrals, orphans too; what is not there is no fault."""

    async def sweep(
        self, queue: str, *, orphan_seconds: float, strays: Callable[[list[str]], Awaitable[set[str]]]
    ) -> int:
        """Delete what is older than `orphan_seconds` and whose id `strays` returns; a bounded step at a time."""


async def sha256(content: bytes) -> bytes:
    """Return the digest, without holding the loop up where it takes a while."""
    if len(content) < _THREAD_BYTES:
        return hashlib.sha256(content).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(content).digest())
