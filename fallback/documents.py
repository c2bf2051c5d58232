"""Small values that all processes share, each with a revision: which version of a model is live, by which policy.

A write names the revision that its writer read; where another write came first it is refused, so nothing is lost
between reading and writing. All documents live in one hash and one stream, so one reader sees every change.
"""

from __future__ import annotations

import re
import time
from typing import Final, Self

import msgspec

from fallback import keys
from fallback.config import Config
from fallback.connection import Connection, Reply, Script
from fallback.errors import AbortedError, FullError, InvalidError
from fallback.store import frame, own_request

KEY: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.ASCII)
KEY_CHARS_MAX: Final = 256
BODY_BYTES_MAX: Final = 1024 * 1024
DOCUMENTS_MAX: Final = 10_000
FULL_RETRY_SECONDS: Final = 60.0
WAIT_SECONDS_MAX: Final = 3_600.0
_CURSOR: Final = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_WRITE: Final = Script("write", indexes=keys.DOCUMENT_INDEXES)
_BODIES, _CHANGES = keys.document_indexes()


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document's body and its revision: 1 for the first write, one more for each."""

    revision: int
    body: bytes


class Documents:
    """The shared documents; belongs to one event loop. Every method raises DemurError only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis

    @classmethod
    def connect(cls, config: Config) -> Self:
        """Return documents that connect when they are first used."""
        return cls(Connection(config))

    async def close(self) -> None:
        """Give the connections back."""
        await self._connection.close()

    async def read(self, key: str) -> Document | None:
        """Return the document `key`; None where there is none."""
        _check_key(key)
        found: bytes | None = await self._connection.attempt(lambda: self._redis.hget(_BODIES, key))
        return None if found is None else _document(found)

    async def read_all(self, prefix: str) -> dict[str, Document]:
        """Return the documents whose keys begin with `prefix`, by key, as they stood at one moment."""
        found: dict[bytes, bytes] = await self._connection.attempt(lambda: self._redis.hgetall(_BODIES))
        return {
            name: _document(body) for key, body in sorted(found.items()) if (name := key.decode()).startswith(prefix)
        }

    async def write(self, key: str, body: bytes, *, expected_revision: int | None) -> Document:
        """Write a document that still is at `expected_revision` (0: that is not there yet; None: not compared).

        Raises AbortedError where it is at another one, FullError at DOCUMENTS_MAX documents.
        """
        _check_key(key)
        if len(body) > BODY_BYTES_MAX:
            raise InvalidError(f"document {key}: expected at most {BODY_BYTES_MAX} bytes, got {len(body)}")
        expected = "" if expected_revision is None else expected_revision
        reply = await self._connection.run(
            _WRITE,
            keys.document_indexes(),
            *frame(keys.DOCUMENTS, own_request()),
            key,
            body,
            expected,
            DOCUMENTS_MAX,
        )
        return Document(revision=_revision(reply, key, expected_revision), body=body)

    async def wait_change(self, since: str, *, timeout_seconds: float) -> str:
        """Return the cursor of the newest change, as soon as there is one after the cursor `since`.

        At the time-out `since` itself comes back. An empty `since` returns the newest cursor at once.
        """
        if not since:
            return await self._newest()
        if not _CURSOR.fullmatch(since):
            raise InvalidError(f"since: expected a cursor from an earlier call, got {since[:60]!r}")
        if not 0 <= timeout_seconds <= WAIT_SECONDS_MAX:
            raise InvalidError(f"timeout: expected 0 to {WAIT_SECONDS_MAX:.0f} s, got {timeout_seconds}")
        deadline = time.monotonic() + timeout_seconds
        while True:
            newest = await self._newest()
            left = deadline - time.monotonic()
            # Another history of the server (a restored copy) may be behind the cursor: that is a change too.
            if newest != since or left <= 0:
                return newest
            await self._block(since, min(left, self._connection.block_seconds))

    async def _block(self, since: str, seconds: float) -> None:
        milliseconds = max(1, int(seconds * 1000))
        await self._connection.attempt(lambda: self._redis.xread({_CHANGES: since}, count=1, block=milliseconds))

    async def _newest(self) -> str:
        return await self._connection.newest(_CHANGES)


def _revision(reply: Reply, key: str, expected: int | None) -> int:
    match reply:
        case ["ok", int(revision)]:
            return revision
        case ["refused", "changed", revision]:
            raise AbortedError(
                f"document {key}: expected revision {expected}, is at {revision}; read it again, then retry"
            )
        case _:
            raise FullError(
                f"document {key}: there are {DOCUMENTS_MAX} documents already", retry_after_seconds=FULL_RETRY_SECONDS
            )


def _document(kept: bytes) -> Document:
    revision, _, body = kept.partition(b" ")
    return Document(revision=int(revision), body=body)


def _check_key(key: str) -> None:
    if len(key) > KEY_CHARS_MAX or not KEY.fullmatch(key):
        raise InvalidError(f"document: expected a key like models/digits, got {key[:100]!r}")
