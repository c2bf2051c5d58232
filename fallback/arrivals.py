"""Rows of evidence on their way from the gateways to the certifier: one stream for each model, in order of arrival.

A row may come twice, after a reply that was lost; whoever reads knows its rows by their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

from fallback import keys
from fallback.config import Config
from fallback.connection import Connection
from fallback.errors import FullError

# Nobody reads them for hours, or days: whoever adds keeps the rest itself.
ROWS_MAX: Final = 1_000_000
READ_MAX: Final = 10_000
FULL_RETRY_SECONDS: Final = 10.0
START: Final = "0"


class Arrivals:
    """The streams; belongs to one event loop. Every method raises DemurError only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis: Any = connection.redis

    @classmethod
    def connect(cls, config: Config) -> Self:
        """Return arrivals that connect when they are first used."""
        return cls(Connection(config))

    async def close(self) -> None:
        """Give the connections back."""
        await self._connection.close()

    async def add(self, model: str, rows: Sequence[bytes]) -> None:
        """Add `rows` in this order, in one step; raises FullError where ROWS_MAX wait already."""
        if not rows:
            return
        key = keys.arrivals(model)
        waiting: int = await self._connection.attempt(lambda: self._redis.xlen(key))
        if waiting + len(rows) > ROWS_MAX:
            raise FullError(
                f"model {model!r}: {waiting} rows of evidence wait for the certifier, at most {ROWS_MAX} may; is "
                "`demur train --watch` running?",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        await self._connection.attempt(lambda: self._add(key, rows))

    async def _add(self, key: str, rows: Sequence[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for row in rows:
            pipeline.xadd(key, {"row": row})
        await pipeline.execute()

    async def read(self, model: str, cursor: str, *, count: int = READ_MAX) -> list[tuple[str, bytes]]:
        """Return up to `count` rows after `cursor` (START: from the oldest), each with its own cursor."""
        key, after = keys.arrivals(model), cursor if cursor == START else f"({cursor}"
        found = await self._connection.attempt(lambda: self._redis.xrange(key, after, "+", min(count, READ_MAX)))
        return [(place.decode(), fields[b"row"]) for place, fields in found]

    async def newest(self, model: str) -> str:
        """Return the cursor of the newest row that ever came, trimmed or not; "0-0" where none did."""
        return await self._connection.newest(keys.arrivals(model))

    async def time(self, model: str) -> int:
        """Return the time of the server that holds the stream, Unix seconds."""
        seconds, _ = await self._connection.time(keys.arrivals(model))
        return seconds

    async def trim(self, model: str, cursor: str) -> None:
        """Forget the rows before the one of `cursor`."""
        await self._connection.attempt(lambda: self._redis.xtrim(keys.arrivals(model), minid=cursor, approximate=False))
