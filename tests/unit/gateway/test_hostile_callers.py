"""Every transport: what a hostile or careless caller does harms nobody else and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import Any

import grpc
import pytest

from gateway.cq import CqTransport
from gateway.transport import Call, Routes
from tests.raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, Raw, frame, headers, message
from tests.transporting import SECONDS, Serving, ask, hot, until

CANCEL = (8).to_bytes(4, "big")


def echo(call: Call) -> None:
    call.reply(call.payload)


def _served(channel: grpc.Channel) -> bool:
    """Say whether a call is answered; grpc.aio may end one or two in the wake of so many that were reset."""
    try:
        return ask(channel) == b"served"
    except grpc.RpcError:
        return False


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    told: Any = caught.value
    code: grpc.StatusCode = told.code()
    return code


def test_a_caller_that_closes_its_side_without_a_message_is_told_or_let_go(serving: Serving) -> None:
    """And the others are served."""
    with serving(hot(echo)) as (transport, channel):
        raw = Raw(transport.port)
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers("/test.T/M")))
        if isinstance(transport, CqTransport):
            assert b"takes exactly one message" in raw.frames(until=HEADERS)[-1][2]
        raw.close()
        assert ask(channel) == b"x"


def test_a_call_that_is_reset_under_way_is_dropped(serving: Serving) -> None:
    """So that it costs no inference; its late reply is ignored."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (transport, _):
        raw = Raw(transport.port)
        raw.call("/test.T/M", b"x")
        until(lambda: bool(seen))
        raw.send(frame(RST_STREAM, 0, 1, CANCEL))
        until(lambda: seen[0].cancelled)
        seen[0].reply(b"late")
        raw.close()


def test_a_connection_that_is_cut_ends_all_its_calls(serving: Serving) -> None:
    """Without a word from the other end."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (transport, _):
        raw = Raw(transport.port)
        for stream in range(1, 40, 2):
            raw.call("/test.T/M", b"x", stream=stream)
        until(lambda: len(seen) == 20)
        raw.close()
        until(lambda: all(call.cancelled for call in seen))


def test_an_upload_that_is_cut_off_is_never_taken_for_a_whole_one(serving: Serving) -> None:
    """Its handler is cancelled, it does not see an end."""
    ends: list[str] = []
    begun = threading.Semaphore(0)

    async def gather(call: Call) -> None:
        try:
            begun.release()
            while await call.receive() is not None:
                pass
            ends.append("whole")
        except asyncio.CancelledError:
            ends.append("cut")
            raise

    routes = Routes(hot={}, slow={"/test.T/M": gather}, reads=frozenset({"/test.T/M"}))
    with serving(routes) as (transport, _):
        raw = Raw(transport.port)
        for number in range(20):
            stream = 2 * number + 1
            raw.send(frame(HEADERS, END_HEADERS, stream, headers("/test.T/M")))
            raw.send(frame(DATA, 0, stream, message(b"part")))
            if number % 2:
                assert begun.acquire(timeout=SECONDS)
            raw.send(frame(RST_STREAM, 0, stream, CANCEL))
        until(lambda: len(ends) >= 10)
        raw.close()
        time.sleep(0.1)
    assert set(ends) == {"cut"}


def test_ten_thousand_calls_are_cancelled(serving: Serving) -> None:
    """And nothing is left of them."""
    seen: list[Call] = []

    def handler(call: Call) -> None:
        if call.payload == b"x":
            call.reply(b"served")
        else:
            seen.append(call)

    with serving(hot(handler), calls_max=20_000) as (transport, channel):
        for _ in range(10):
            raw = Raw(transport.port)
            with contextlib.suppress(OSError):  # the core cuts off who resets too fast
                for stream in range(1, 2_001, 2):
                    raw.call("/test.T/M", b"dropped", stream=stream)
                    raw.send(frame(RST_STREAM, 0, stream, CANCEL))
            raw.close()
        until(lambda: all(call.cancelled for call in tuple(seen)))
        if isinstance(transport, CqTransport):
            until(lambda: transport.under_way.nothing)
        until(lambda: _served(channel))


def test_a_message_beyond_the_most_is_refused(serving: Serving) -> None:
    """Before it is taken in."""
    with serving(hot(echo), message_bytes_max=1024) as (_, channel):
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, b"x" * 2_000)
        assert code_of(caught) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(channel) == b"x"


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_taken_unless_they_unfold_beyond_the_most(
    serving: Serving, algorithm: grpc.Compression
) -> None:
    """A bomb is refused while it unfolds."""
    with serving(hot(echo), message_bytes_max=1024 * 1024) as (_, channel):
        assert ask(channel, bytes(1000), compression=algorithm) == bytes(1000)
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, bytes(64 * 1024 * 1024), compression=algorithm)
        assert code_of(caught) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(channel) == b"x"


def test_garbage_ends_its_own_connection_only(serving: Serving) -> None:
    """From the first byte, after the preface, in the headers, in a message."""
    with serving(hot(echo)) as (transport, channel):
        for garbage in (
            os.urandom(200),
            PREFACE + os.urandom(200),
            frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
            frame(HEADERS, END_HEADERS, 1, headers("/test.T/M")) + frame(DATA, END_STREAM, 1, b"\x07\xff\xff"),
            frame(HEADERS, END_HEADERS, 2, headers("/test.T/M")),
            frame(0xEE, 0xFF, 0x7FFFFFFF, b"?"),
        ):
            raw = Raw(transport.port)
            raw.send(garbage)
            raw.close()
        assert ask(channel) == b"x"


def test_many_connections_are_served(serving: Serving) -> None:
    """Each its own call."""
    with serving(hot(echo)) as (transport, _):
        connections = [Raw(transport.port) for _ in range(100)]
        for number, raw in enumerate(connections):
            raw.call("/test.T/M", b"%d" % number)
        for number, raw in enumerate(connections):
            assert (DATA, 0, message(b"%d" % number)) in raw.frames(until=HEADERS)
            raw.close()


def test_a_stream_waits_for_a_slow_reader(serving: Serving) -> None:
    """Its handler gets no further than what is on the way, and ends when the reader goes."""
    sent = 0
    ended = threading.Event()

    async def scatter(call: Call) -> None:
        nonlocal sent
        try:
            for _ in range(1_000):
                await call.send(bytes(1024))
                sent += 1
        finally:
            ended.set()

    routes = Routes(hot={}, slow={"/test.T/M": scatter}, writes=frozenset({"/test.T/M"}))
    with serving(routes) as (transport, _):
        raw = Raw(transport.port)
        raw.call("/test.T/M", b"x")
        until(lambda: sent > 0)
        time.sleep(0.2)
        before = sent
        time.sleep(0.2)
        assert sent == before < 1_000
        raw.close()
        assert ended.wait(SECONDS)


def test_a_deadline_that_the_caller_does_not_keep_itself_is_kept_here(serving: Serving) -> None:
    """DEADLINE_EXCEEDED comes from this side."""
    seen: list[Call] = []
    with serving(hot(seen.append)) as (transport, _):
        raw = Raw(transport.port)
        raw.send(frame(HEADERS, END_HEADERS, 1, headers("/test.T/M", ("grpc-timeout", "100m"))))
        raw.send(frame(DATA, END_STREAM, 1, message(b"x")))
        frames = raw.frames(until=HEADERS)
        assert b"grpc-status" in frames[-1][2]
        assert frames[-1][2].partition(b"grpc-status")[2][1:2] == b"4"
        until(lambda: seen[0].cancelled)
        raw.close()


def test_what_is_under_way_when_the_grace_ends_is_ended(serving: Serving) -> None:
    """Hot or streaming, and no reply that comes later does harm."""
    seen: list[Call] = []
    cut = threading.Event()

    async def scatter(call: Call) -> None:
        try:
            while True:
                await call.send(b"x")
                await asyncio.sleep(0.01)
        finally:
            cut.set()

    routes = Routes(hot={"/test.T/M": seen.append}, slow={"/test.T/S": scatter}, writes=frozenset({"/test.T/S"}))
    with serving(routes) as (transport, channel):
        method: Any = channel.unary_unary("/test.T/M")
        hot_call = method.future(b"x", timeout=SECONDS)
        streaming: Any = channel.unary_stream("/test.T/S")
        stream = streaming(b"x", timeout=SECONDS)
        next(stream)
        until(lambda: bool(seen))
        transport.stop(0.1)
        for call in seen:
            call.reply(b"late")
        with pytest.raises(grpc.RpcError):
            hot_call.result(SECONDS)
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert cut.wait(SECONDS)
