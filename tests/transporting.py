"""Transports for tests: started on a free port, asked, and looked at when they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import grpc

from gateway.aio import AioTransport
from gateway.cq import CqTransport
from gateway.slow import SlowLoop
from gateway.transport import Call, Routes, Transport

SECONDS = 10.0


async def nothing() -> None:
    """What a slow loop does last."""


class Serving(Protocol):
    """Serves routes on a free port."""

    def __call__(self, routes: Routes, **fields: Any) -> AbstractContextManager[tuple[Transport, grpc.Channel]]: ...


def server_of(make: type[AioTransport | CqTransport]) -> Serving:
    """Return what serves on one transport, and checks afterwards that no call of it is left."""

    @contextmanager
    def serve(routes: Routes, **fields: Any) -> Iterator[tuple[Transport, grpc.Channel]]:
        slow = SlowLoop()
        slow.start()
        given = {
            "listen": "127.0.0.1:0",
            "message_bytes_max": 1024 * 1024,
            "calls_max": 100,
            "requests_bytes_max": 1024 * 1024,
            "names": ("test.T",),
            "files": (),
        }
        terms: Any = {**given, **fields}
        transport = make(routes, slow_loop=slow.loop, **terms)
        try:
            transport.start()
            address = terms["listen"] if terms["listen"].startswith("unix:") else f"127.0.0.1:{transport.port}"
            with grpc.insecure_channel(address) as channel:
                yield transport, channel
        finally:
            transport.stop(1.0)
            slow.stop(1.0, last=nothing)
        if isinstance(transport, CqTransport):
            assert transport.under_way.nothing
            assert transport.under_way.requests_bytes == 0

    return serve


def hot(handler: Callable[[Call], None]) -> Routes:
    return Routes(hot={"/test.T/M": handler}, slow={})


def ask(channel: grpc.Channel, payload: bytes = b"x", **options: Any) -> bytes:
    method: Any = channel.unary_unary("/test.T/M")
    reply: bytes = method(payload, timeout=options.pop("timeout", SECONDS), **options)
    return reply


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
