"""One server for a process that has nothing else to do: commands are waited for in the thread, not in its event loop.

A loop takes several turns for a call, and each wakes Python anew. Who parks one round after the other, and tells what
became of it, is woken once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from redis import ConnectionPool, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from fallback.packing import Argument, packing

# What is copied to be sent in one piece, at most: a server that is woken by a part of it syncs its file for that.
JOINED_BYTES_MAX: Final = 1 << 20
# Ours: redis-py repeats by itself else.
_NO_RETRY: Final = Retry(NoBackoff(), 0)


class Blocking:
    """One connection, made when it is first used, and anew after one that broke."""

    def __init__(self, url: str, *, connect_seconds: float, command_seconds: float) -> None:
        pool = ConnectionPool.from_url(
            url, socket_connect_timeout=connect_seconds, socket_timeout=command_seconds, retry=_NO_RETRY, protocol=2
        )
        pool.connection_class = packing(pool.connection_class)
        self._command_seconds = command_seconds
        # redis-py's, which has no types for what we added.
        self._connection: Any = pool.make_connection()

    def send(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send `commands` at once, and return a reply or the server's error for each; raises redis-py's errors."""
        connection = self._connection
        until = time.monotonic() + self._command_seconds
        try:
            connection.send_packed_command(_joined(connection.pack_commands(commands)))
            return [self._reply(until) for _ in commands]
        except BaseException:
            # What was left unread would be taken for the next one's.
            connection.disconnect()
            raise

    def close(self) -> None:
        """Give the connection back."""
        self._connection.disconnect()

    def _reply(self, until: float) -> object:
        if time.monotonic() > until:  # the socket's own limit is that of one reply
            raise exceptions.TimeoutError(f"no answer to all of them within {self._command_seconds:g} s")
        try:
            return self._connection.read_response()
        except exceptions.ResponseError as error:
            return error


def _joined(pieces: list[bytes]) -> list[bytes]:
    return [b"".join(pieces)] if sum(map(len, pieces)) <= JOINED_BYTES_MAX else pieces
