"""The slow side: one asyncio loop in a thread of its own does everything of this process that waits for Redis.

What blocks (`asyncio.to_thread`: files, loading a model) is done by a fixed number of threads, all started with the
loop. An executor that starts them as it goes starts one more than it needs now and then, since a thread counts as idle
only a moment after its caller has the result: after fifty loads there would be another thread, which looks like a leak.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from fallback.ending import end_all
from gateway.internal import told

_LOOP_SECONDS: Final = 10.0
# Threads for what blocks.
_BLOCKING: Final = 6

log = structlog.get_logger(__name__)


class SlowLoop:
    """One asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="slow", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_started(_BLOCKING))
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], *, timeout_seconds: float | None = None) -> Any:
        """Run `work` there and return its result; called from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let `work` run there; trouble is logged. From any thread. False where the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(self._start, work)
        except RuntimeError:
            work.close()
            return False
        return True

    def stop(self, grace_seconds: float, *, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let what was spawned finish for up to `grace_seconds`, do `last`, cancel the rest, end the thread."""
        if not self._thread.is_alive():
            return
        try:
            self.run(self._drain(grace_seconds, last), timeout_seconds=grace_seconds + _LOOP_SECONDS)
        except concurrent.futures.TimeoutError:
            log.error("the slow loop did not drain in time")  # noqa: TRY400 - a traceback would say nothing more
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_LOOP_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, grace_seconds: float, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        await last()
        await end_all(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


def _started(threads: int) -> ThreadPoolExecutor:
    """Return an executor that has all of its threads."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="blocking")
    all_there = threading.Barrier(threads)
    for _ in range(threads):
        executor.submit(all_there.wait)
    return executor


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - the root of a task: it is logged and ends
        told(error, where="slow loop")
