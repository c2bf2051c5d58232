"""A proxy for TCP and unix sockets that can be slow, stall, reset its connections or lose one direction."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 64 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def tcp(host: str, port: int) -> Dial:
    """Return how to reach a TCP server."""
    return lambda: asyncio.open_connection(host, port)


def unix(path: Path) -> Dial:
    """Return how to reach a server on a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


@dataclass(eq=False)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    # The directions that lost something.
    gaps: set[bool] = field(default_factory=set)

    def reset(self) -> None:
        """Close both ends with RST where there is one, so that neither takes it for an orderly end."""
        for writer in (self.near, self.far):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if sock is not None and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()


class Proxy:
    """Listens on a port of the loopback address and passes on to `dial` what it is not told to spoil."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._connections: set[_Connection] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stalls = 0
        self._latency_seconds = 0.0
        # Which direction is being lost: True what the caller says, False what is answered, None neither.
        self._losing: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str) -> None:
        """Listen on any free port."""
        self._server = await asyncio.start_server(self._accept, host, 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and cut what is connected."""
        self._server.close()
        self.reset()
        self._flowing.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Cut every connection now; new ones are welcome."""
        for connection in list(self._connections):
            connection.reset()

    @contextlib.asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Hold up each piece in both directions by `seconds`."""
        self._latency_seconds += seconds
        try:
            yield
        finally:
            self._latency_seconds = max(0.0, self._latency_seconds - seconds)

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        """Pass nothing on in either direction; afterwards everything goes on, nothing lost."""
        self._stalls += 1
        self._flowing.clear()
        try:
            yield
        finally:
            self._stalls -= 1
            if not self._stalls:
                self._flowing.set()

    @contextlib.asynccontextmanager
    async def losing(self, *, forward: bool) -> AsyncIterator[None]:
        """Swallow one direction; afterwards the connections that lost something are cut, as TCP would give them up."""
        self._losing = forward
        try:
            yield
        finally:
            self._losing = None
            for connection in list(self._connections):
                if connection.gaps:
                    connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # asyncio's server complains of a handler that was cancelled: `close` does that, and it is all there is to it.
        with contextlib.suppress(asyncio.CancelledError):
            await self._relay(reader, writer)
        self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(near=writer, far=far_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer, connection, forward=True))
                pumps.create_task(self._pump(far_reader, writer, connection, forward=False))
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection, *, forward: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                if self._latency_seconds:
                    await asyncio.sleep(self._latency_seconds)
                await self._flowing.wait()
                if self._losing is forward:
                    connection.gaps.add(forward)
                if forward in connection.gaps:
                    continue  # what comes after a gap must not be taken for what was lost
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()
