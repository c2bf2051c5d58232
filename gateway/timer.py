"""One thread that looks after what waits, so that who is out of time is told while a run is under way.

Each batcher asks for a look at the soonest moment at which anything of its own may be due, and only where that is
sooner than what it asked for before; so a request costs a comparison, not an alarm of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final

import structlog

# A deadline may be further away than a thread can wait at once.
_WAIT_SECONDS_MAX: Final = 3600.0
# Between two looks of one who asks: at least so long, and so many times what the last one took.
_LOOK_SECONDS_MIN: Final = 0.002
_LOOK_TIMES_MIN: Final = 20

log = structlog.get_logger(__name__)
Look = Callable[[], None]


class Timer:
    """Calls back once for each look that was asked for. `at` from any thread."""

    def __init__(self) -> None:
        self._looks: dict[Look, float] = {}
        self._next = math.inf
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="timer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def at(self, when: float, look: Look) -> None:
        """Call `look` at `when`, by time.monotonic(), in place of what it was to be called at before."""
        with self._changed:
            self._looks[look] = when
            if when < self._next:
                self._changed.notify()

    def close(self) -> None:
        """Call nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def forget(self, look: Look) -> None:
        """Do not call `look` any more."""
        with self._changed:
            self._looks.pop(look, None)

    def _run(self) -> None:
        while (look := self._due()) is not None:
            try:
                look()
            except Exception as error:  # the root of the thread: one look must not end the others'
                log.critical("a look at what waits failed", exc_info=error)

    def _due(self) -> Look | None:
        """Wait for the next look that is due; None once closed."""
        with self._changed:
            while not self._closed:
                look = min(self._looks, key=self._looks.__getitem__, default=None)
                self._next = math.inf if look is None else self._looks[look]
                left = self._next - time.monotonic()
                if look is not None and left <= 0:
                    del self._looks[look]
                    return look
                self._changed.wait(min(left, _WAIT_SECONDS_MAX))
            return None


class Lookout:
    """The looks of one who asks: `look` at the soonest moment asked for, and not too often. Not thread-safe."""

    def __init__(self, timer: Timer, look: Look) -> None:
        self._timer = timer
        self._look = look
        # When it is to look, and before when it is not.
        self._at = math.inf
        self._after = 0.0

    def by(self, when: float) -> None:
        """Have it look at `when`, unless it looks sooner, or as soon as it may."""
        if when < self._at:
            self._at = max(when, self._after)
            self._timer.at(self._at, self._look)

    def began(self) -> None:
        """Hear that it looks, as it was asked to."""
        self._at = math.inf

    def ended(self, start: float) -> None:
        """Hear that a look is over that began at `start`."""
        took = time.monotonic() - start
        self._after = start + max(_LOOK_SECONDS_MIN, _LOOK_TIMES_MIN * took)

    def forget(self) -> None:
        """Have it look no more."""
        self._timer.forget(self._look)
