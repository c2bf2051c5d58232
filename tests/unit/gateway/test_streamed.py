"""What streams may have under way together, and what is left where one ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.streamed import METHOD, One, Streams


class Stream:
    """A call whose client sends `messages` and then waits."""

    deadline = None
    metadata = ()
    method = METHOD
    peer = "unix:"

    def __init__(self, *messages: bytes | None) -> None:
        self.cancelled = False
        self.reads = True
        self.lingers = False
        self._messages = list(messages)
        self.sent: list[bytes] = []

    async def receive(self) -> bytes | None:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, payload: bytes) -> None:
        if not self.reads:
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(20 * self.lingers):
                    await asyncio.sleep(0)
        self.sent.append(payload)


def begun(streams: Streams, stream: Any) -> asyncio.Task[None]:
    """A stream's handler, under way."""

    async def answer() -> None:
        await streams.slow()[METHOD](stream)

    return asyncio.create_task(answer())


async def settled() -> None:
    """Let all that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_requests_of_all_streams_are_bounded_by_weight_and_one_goes_in_any_case() -> None:
    """Who has no room waits, in the order in which they came, and goes on as others are answered."""
    asked: list[One] = []
    infer: Any = asked.append
    streams = Streams(infer, ready=lambda: True, bytes_max=100)
    first, second = Stream(bytes(60), bytes(60)), Stream(bytes(500))
    tasks = [begun(streams, each) for each in (first, second)]
    await settled()
    assert [len(one.payload) for one in asked] == [60]
    assert streams.bytes_under_way == 60
    for sizes in ([60, 500], [60, 500, 60]):
        asked[-1].reply(b"")
        await settled()
        assert [len(one.payload) for one in asked] == sizes
    asked[-1].reply(b"")
    await settled()
    assert (len(first.sent), len(second.sent), streams.bytes_under_way) == (2, 1, 0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_who_does_not_read_keeps_others_from_nothing() -> None:
    """What is answered has no weight any more, sent or not."""
    asked: list[One] = []
    infer: Any = asked.append
    streams = Streams(infer, ready=lambda: True, bytes_max=100)
    stuck, other = Stream(bytes(100)), Stream(bytes(100))
    stuck.reads = False
    tasks = [begun(streams, each) for each in (stuck, other)]
    for _ in range(2):
        await settled()
        asked[-1].reply(b"")
    await settled()
    assert (len(asked), len(stuck.sent), len(other.sent)) == (2, 0, 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert streams.bytes_under_way == 0


async def test_a_stream_that_is_cancelled_while_it_ends_leaves_nothing_under_way() -> None:
    """As one is whose client leaves while it ends anyway."""
    asked: list[One] = []
    infer: Any = asked.append
    streams = Streams(infer, ready=lambda: True, bytes_max=100)
    stream = Stream(*[bytes(10)] * 5)
    stream.reads, stream.lingers = False, True
    task = begun(streams, stream)
    await settled()
    asked[0].reply(b"")
    await settled()
    assert streams.bytes_under_way == 40
    for _ in range(10):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    await settled()
    assert streams.bytes_under_way == 0


async def test_a_whole_stream_ends_well_while_the_gateway_stops() -> None:
    """Nothing of it is left to ask another one."""
    asked: list[One] = []
    infer: Any = asked.append
    ready = True
    streams = Streams(infer, ready=lambda: ready, bytes_max=100)
    stream = Stream(bytes(10), None)
    task = begun(streams, stream)
    await settled()
    ready = False
    asked[0].reply(b"")
    await asyncio.wait_for(task, 5)
    assert len(stream.sent) == 1


@pytest.mark.parametrize("answered", [0, 1, 3])
async def test_a_stream_that_ends_leaves_nothing_under_way(answered: int) -> None:
    """However far it was; what runs for it hears that nobody waits."""
    asked: list[One] = []
    infer: Any = asked.append
    streams = Streams(infer, ready=lambda: True, bytes_max=150)
    stream = Stream(*[bytes(50)] * 5)
    task = begun(streams, stream)
    await settled()
    for one in asked[:answered]:
        one.reply(b"")
    await settled()
    stream.cancelled = True
    task.cancel()
    await asyncio.wait([task])
    assert streams.bytes_under_way == 0
    assert all(one.cancelled for one in asked)
