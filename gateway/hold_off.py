"""What is known of queues that take nothing now: who would be told so need not be recorded as evidence first.

While no threshold is proved every request goes to a person, and one that is recorded and then not parked counts as an
error: an outage of minutes would undo the proof of weeks. Whether a request is recorded may depend on what happened
before, not on the request; and here it does not, since all are refused alike. Once a threshold is in force the sure
are answered and recorded meanwhile, so the unsure must be recorded too, whatever becomes of them.
"""

from __future__ import annotations

import time
from typing import Final

from fallback.errors import DemurError, FullError, OverError, UnavailableError

_SECONDS_MIN: Final = 1.0
_SECONDS_MAX: Final = 60.0


class HoldOff:
    """By queue, and for all queues while their server is away. Thread-safe."""

    def __init__(self) -> None:
        self._away: UnavailableError | None = None
        self._over: dict[str, tuple[float, FullError]] = {}

    @property
    def away(self) -> bool:
        """Whether the server was away when somebody last asked."""
        return self._away is not None

    def heard(self) -> None:
        """Hear that the server is there."""
        self._away = None

    def failed(self, queue: str, error: DemurError) -> None:
        """Hear why a request could not be parked."""
        if isinstance(error, UnavailableError):
            self._away = error
        elif isinstance(error, FullError) and not (isinstance(error, OverError) and error.unreviewed):
            seconds = min(max(error.retry_after_seconds or 0.0, _SECONDS_MIN), _SECONDS_MAX)
            self._over[queue] = time.monotonic() + seconds, error

    def why(self, queue: str) -> DemurError | None:
        """Return what a request for `queue` would be refused with; None where it may be tried."""
        if self._away is not None:
            return self._away
        until, error = self._over.get(queue, (0.0, None))
        return error if time.monotonic() < until else None
