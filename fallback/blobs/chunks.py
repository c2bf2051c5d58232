"""Large content in Redis: a hash of its chunks, written and read a few at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from fallback import keys
from fallback.blobs import INPUTS, SUBJECT, Blob
from fallback.connection import Connection
from fallback.errors import UnavailableError

CHUNK_BYTES: Final = 256 * 1024
# Chunks that one pipeline carries at most: others are served between two.
PIPELINE_CHUNKS: Final = 4
# Keys asked for in one pipeline.
_KEYS_MAX: Final = 512


class Chunks:
    """Content in Redis: a hash of its chunks, by number."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, blob: Blob, content: bytes, *, orphan_seconds: float) -> None:
        """Write the chunks, a few in each transaction."""
        key, whole = keys.upload(*blob), memoryview(content)
        chunks = _chunks(len(content))
        found = 0
        for first in range(0, chunks, PIPELINE_CHUNKS):
            fields: dict[str, Any] = {
                str(number): whole[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
                for number in range(first, min(first + PIPELINE_CHUNKS, chunks))
            }
            found = await self._connection.attempt(lambda: self._write(key, fields, orphan_seconds))  # noqa: B023 - awaited at once
        if found != chunks:
            raise UnavailableError("the content was lost on its way; nothing was accepted, try again")

    async def get(self, blob: Blob, size_bytes: int) -> bytes | None:
        """Read the chunks, a few at a time."""
        redis, key = self._connection.redis, keys.content(*blob)
        parts: list[bytes] = []
        for first in range(0, _chunks(size_bytes), PIPELINE_CHUNKS):
            numbers = [str(number) for number in range(first, first + PIPELINE_CHUNKS)]
            found = await self._connection.attempt(lambda: redis.hmget(key, numbers))  # noqa: B023 - awaited at once
            parts += [part for part in found if part is not None]
        return b"".join(parts) if parts else None

    async def there(self, blobs: Sequence[Blob]) -> list[bool]:
        """Ask for the keys, which may be strings or hashes."""
        found: list[bool] = []
        for start in range(0, len(blobs), _KEYS_MAX):
            names = [keys.content(*blob) for blob in blobs[start : start + _KEYS_MAX]]
            found += await self._connection.attempt(lambda: self._exist(names))  # noqa: B023 - awaited at once
        return found

    async def delete(self, queue: str, ids: Sequence[str]) -> None:
        """Unlink the keys."""
        made = [
            key(queue, one, what) for one in ids for what in (SUBJECT, INPUTS) for key in (keys.content, keys.upload)
        ]
        if made:
            await self._connection.attempt(lambda: self._connection.redis.unlink(*made))

    async def sweep(
        self, queue: str, *, orphan_seconds: float, strays: Callable[[list[str]], Awaitable[set[str]]]
    ) -> int:
        """Do nothing: orphans have a time to live."""
        del queue, orphan_seconds, strays
        return 0

    async def _write(self, key: str, fields: Mapping[str, Any], seconds: float) -> int:
        pipeline = self._connection.redis.pipeline(transaction=True)
        pipeline.hset(key, mapping=fields)
        pipeline.pexpire(key, max(1, int(seconds * 1000)))
        pipeline.hlen(key)
        return int((await pipeline.execute())[-1])

    async def _exist(self, names: Sequence[str]) -> list[bool]:
        pipeline = self._connection.redis.pipeline(transaction=False)
        for name in names:
            pipeline.exists(name)
        return [bool(count) for count in await pipeline.execute()]


def _chunks(size_bytes: int) -> int:
    return -(-size_bytes // CHUNK_BYTES)
