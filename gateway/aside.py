"""Work that another thread has for the thread that answers: done between two passes of that, while it is busy.

Two threads that both want the interpreter hand it to and fro, which costs more than what most of them would do with it.
So what is small, and may wait for a millisecond, is left to the thread that answers while that has much to do; while it
waits for calls, whoever has the work does it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

# One that waited for calls for as long is idle.
IDLE_SECONDS: Final = 0.001

Work = Callable[[], None]


class Aside:
    """`begin` and `end` are the answering thread's, around each pass; one that says neither is idle."""

    def __init__(self) -> None:
        self._left: deque[Work] = deque()
        # When the answering thread began to wait for calls; infinite while it does not.
        self._idle_since = -inf

    def begin(self) -> None:
        """Hear that the answering thread has work of its own."""
        self._idle_since = inf

    def end(self) -> None:
        """Do what was left, on the answering thread, before it waits for calls."""
        self._idle_since = time.monotonic()
        if self._left:
            self._work()

    def do(self, work: Work) -> bool:
        """Do `work` here, or leave it; False where it is left, and `catch_up` is to be called IDLE_SECONDS later."""
        self._left.append(work)
        return self.catch_up()

    def catch_up(self) -> bool:
        """Do what was left, where the answering thread is idle; returns whether nothing is left."""
        if self._left and time.monotonic() >= self._idle_since + IDLE_SECONDS:
            self._work()
        return not self._left

    def do_all(self) -> None:
        """Do what was left, whatever the answering thread does: nobody comes back for it."""
        self._work()

    def _work(self) -> None:
        while True:
            try:
                # Whoever takes it does it: both may be here.
                work = self._left.popleft()
            except IndexError:
                return
            work()
