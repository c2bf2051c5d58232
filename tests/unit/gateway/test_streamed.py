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

    def __init__(self, *messages: bytes) -> None:
        self.cancelled = False
        self._messages = list(messages)
        self.sent: list[bytes] = []

    async def receive(self) -> bytes | None:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, payload: bytes) -> None:
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
