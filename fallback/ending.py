"""Ends tasks for good: a library may swallow a cancellation, redis-py before Python 3.12 for one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import structlog

_CANCEL_SECONDS: Final = 0.2
_CANCELS_MAX: Final = 25

log = structlog.get_logger(__name__)


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` until they have ended."""
    left = set(tasks)
    for _ in range(_CANCELS_MAX):
        if not left:
            return
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS)
    log.error("tasks did not end", tasks=[str(task.get_coro()) for task in left])


async def until_cancelled(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`; whoever cancels this ends it, however often that takes."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await end_all([task])
        if task.done() and not task.cancelled():
            task.exception()  # seen: what breaks while it is ended is nobody's news, and would be shown as a trace
        raise
    await task
