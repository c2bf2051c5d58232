"""The proxy that spoils connections, between a real server and a real client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.chaos.proxy import Proxy, tcp

HOST = "127.0.0.1"


class _Echo:
    """Answers every line with itself; remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _ground() -> AsyncIterator[tuple[_Echo, Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    echo = _Echo()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    proxy = Proxy(tcp(HOST, server.sockets[0].getsockname()[1]))
    await proxy.start(HOST)
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield echo, proxy, reader, writer
    finally:
        writer.close()
        await proxy.close()
        server.close()


async def _said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    async with asyncio.timeout(2):
        return await reader.readline()


async def test_what_is_not_spoilt_goes_through_unchanged() -> None:
    """Both ways, in order."""
    async with _ground() as (echo, _, reader, writer):
        assert [await _said(reader, writer, b"%d\n" % n) for n in range(3)] == echo.heard == [b"0\n", b"1\n", b"2\n"]


async def test_latency_holds_up_both_directions() -> None:
    """There and back take twice as long, and afterwards it is over."""
    async with _ground() as (_, proxy, reader, writer):
        async with proxy.slow(0.1):
            start = time.monotonic()
            assert await _said(reader, writer, b"x\n") == b"x\n"
            assert time.monotonic() - start >= 0.2
        start = time.monotonic()
        await _said(reader, writer, b"y\n")
        assert time.monotonic() - start < 0.2


async def test_a_stall_holds_everything_and_loses_nothing() -> None:
    """What was said meanwhile arrives afterwards."""
    async with _ground() as (echo, proxy, reader, writer):
        async with proxy.stalled():
            writer.write(b"x\n")
            await asyncio.sleep(0.1)
            assert echo.heard == []
        assert await _said(reader, writer, b"y\n") == b"x\n"


async def test_a_reset_cuts_the_connection_and_the_next_one_is_welcome() -> None:
    """No orderly end: the caller sees an error."""
    async with _ground() as (_, proxy, reader, writer):
        await _said(reader, writer, b"x\n")
        proxy.reset()
        with pytest.raises(ConnectionError):
            assert await reader.read(1) == b"", "an orderly end"
        again = await asyncio.open_connection(HOST, proxy.port)
        assert await _said(*again, b"y\n") == b"y\n"
        again[1].close()


@pytest.mark.parametrize("forward", [True, False])
async def test_a_lost_direction_is_lost_for_good_and_the_other_is_not(*, forward: bool) -> None:
    """A reply lost after the server acted, or a request lost before; then the connection is given up."""
    async with _ground() as (echo, proxy, reader, writer):
        await _said(reader, writer, b"x\n")
        async with proxy.losing(forward=forward):
            writer.write(b"lost\n")
            await asyncio.sleep(0.1)
        assert (b"lost\n" in echo.heard) is not forward
        with pytest.raises(ConnectionError):
            assert await reader.read(1) == b"never", "the connection goes on as if nothing were lost"
