"""The slow side's threads."""

from __future__ import annotations

import asyncio
import threading
import time

from gateway.slow import SlowLoop


async def _nothing() -> None:
    """Do nothing at the end."""


def _blocking() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("blocking")}


def test_what_blocks_starts_no_thread() -> None:
    """One after the other or at once: the threads are those that started with the loop, and end with it."""
    before, loop = _blocking(), SlowLoop()
    loop.start()
    there = _blocking()

    async def block() -> None:
        for _ in range(200):
            await asyncio.to_thread(lambda: None)
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.001) for _ in range(20)))

    loop.run(block())
    assert _blocking() == there > before
    loop.stop(1.0, last=_nothing)
    assert _blocking() == before
