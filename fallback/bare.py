"""Plain commands over the queue's own client: what a queue that promised nothing would cost. Only for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fallback import keys
from fallback.config import Config
from fallback.connection import Connection

# One hash tag, apart from every queue's.
_PREFIX: Final = f"{keys.LAYOUT}:{{bare}}:"
_WRITE: Final = "return redis.call('SET', KEYS[1], ARGV[1])"


class Bare:
    """A client as the queue's, with its timeouts, protocol and pool; nothing is retried. Belongs to one event loop."""

    def __init__(self, config: Config) -> None:
        self._connection = Connection(config)
        self._redis = self._connection.redis
        self._sha = ""

    async def close(self) -> None:
        """Give the connections back."""
        await self._connection.close()

    async def park(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Send one HSET and one ZADD for each id and payload, in one pipeline."""
        pipeline = self._redis.pipeline(transaction=False)
        for number, (one, payload) in enumerate(items):
            pipeline.hset(f"{_PREFIX}d:{one}", "payload", payload)
            pipeline.zadd(f"{_PREFIX}free", {one: number})
        await pipeline.execute()

    async def write(self, one: str, payload: bytes = b"") -> None:
        """Run a script that writes its one key, by its digest: `payload`, or the key's name where there is none."""
        if not self._sha:
            self._sha = await self._redis.script_load(_WRITE)
        await self._redis.evalsha(self._sha, 1, f"{_PREFIX}w:{one}", payload or one)

    async def memory_bytes(self) -> int:
        """Return what the server uses."""
        return int((await self._redis.info("memory"))["used_memory"])

    async def lapse_all(self, queue: str) -> None:
        """Put the end of every lease of a queue into the past."""
        leases = keys.index(queue, "leases")
        await self._redis.zunionstore(leases, {leases: 0})

    async def version(self) -> str:
        """Return the server's name and version."""
        info = await self._redis.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {info.get('valkey_version') or info.get('redis_version')}"
