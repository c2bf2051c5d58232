"""Threads that read what takes a while to read, so that a large request holds up nobody else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

from fallback.errors import FullError
from gateway.internal import told
from gateway.transport import Call, Hot

# Up to this a request is read on the transport's thread: a hand-over would take longer than the reading.
SMALL_BYTES: Final = 256 * 1024
_RETRY_SECONDS: Final = 0.5


class Reader:
    """A few threads, bounded in what waits for them."""

    def __init__(self, *, threads: int, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._room = BoundedSemaphore(waiting_max)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def submit(self, work: Callable[[], None]) -> None:
        """Let `work`, which does not raise, run soon; raises FullError when too much waits."""
        if not self._room.acquire(blocking=False):
            raise FullError(
                f"{self._waiting_max} requests wait to be read, the most at a time",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._pool.submit(work).add_done_callback(lambda _: self._room.release())

    def close(self) -> None:
        """Finish what waits and end the threads."""
        self._pool.shutdown()


def unburdened(handler: Hot, reader: Reader) -> Hot:
    """Return `handler` with what is large read by `reader`, since the transport's thread must not block."""

    def handle(call: Call) -> None:
        if len(call.payload) <= SMALL_BYTES:
            handler(call)
            return

        def read() -> None:
            try:
                handler(call)
            except Exception as error:  # noqa: BLE001 - the root of a reader's work: the caller is told
                call.fail(told(error, method=call.method))

        reader.submit(read)

    return handle
