"""Ending tasks that do not want to."""

from __future__ import annotations

import asyncio
import gc

import pytest

from fallback.ending import until_cancelled


async def test_work_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    """As a library's call may; one Ctrl-C is enough."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(until_cancelled(stubborn()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert swallowed == 3


async def test_what_work_raises_comes_through() -> None:
    """And what it does is done."""

    async def failing() -> None:
        await asyncio.sleep(0)
        raise LookupError("as it was")

    with pytest.raises(LookupError, match="as it was"):
        await until_cancelled(failing())


async def test_what_breaks_while_it_is_ended_is_not_shown() -> None:
    """Ctrl-C ends a command without a trace, also where a library makes an error of the cancellation."""
    shown: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: shown.append(context))

    async def breaking() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError("broken by it") from None

    async def interrupted() -> None:
        task = asyncio.create_task(until_cancelled(breaking()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    # By then nothing holds the task any more that broke.
    await interrupted()
    gc.collect()
    assert shown == []
