"""What is known of queues that take nothing now: who would not be parked need not be recorded as evidence first.

While no threshold is proved every request goes to a person, and one that is recorded and then not parked counts as an
error: an outage of minutes would undo the proof of weeks. Whether a request is recorded may depend on what happened
before, not on the request; and here it does not, since all are refused alike. Once a threshold is in force the sure
are answered and recorded meanwhile, so the unsure must be recorded too, whatever becomes of them. What becomes of
those that are held off is the operator's choice: they are refused, or answered by the model alone, marked unreviewed.
"""

from __future__ import annotations

import time
from typing import Final

from fallback.errors import AwayError, DemurError, FullError, UnavailableError

_SECONDS_MIN: Final = 1.0
_SECONDS_MAX: Final = 60.0


class HoldOff:
    """By queue: of a cluster's servers one may be away and another there. Thread-safe."""

    def __init__(self) -> None:
        self._away: dict[str, UnavailableError] = {}
        # Those of which the server itself was away: of these nobody's request need be tried.
        self._gone: dict[str, AwayError] = {}
        self._over: dict[str, tuple[float, FullError]] = {}

    @property
    def away(self) -> tuple[str, ...]:
        """The queues where nothing could be parked when somebody last asked."""
        return tuple(self._away.copy())

    def gone(self, queue: str) -> UnavailableError | None:
        """Return what who asks is told, where the server of `queue` was away when somebody last asked."""
        error = self._gone.get(queue)
        # Not the same again: what was heard before says nothing of how it is when this is told.
        return error and UnavailableError(error.message, retry_after_seconds=error.retry_after_seconds)

    def heard(self, queue: str) -> None:
        """Hear that the server of `queue` is there."""
        self._away.pop(queue, None)
        self._gone.pop(queue, None)

    def failed(self, queue: str, error: DemurError) -> None:
        """Hear why a request could not be parked."""
        if isinstance(error, UnavailableError):
            self._away[queue] = error
            if isinstance(error, AwayError):
                self._gone[queue] = error
        elif isinstance(error, FullError):
            seconds = min(max(error.retry_after_seconds or 0.0, _SECONDS_MIN), _SECONDS_MAX)
            self._over[queue] = time.monotonic() + seconds, error

    def why(self, queue: str) -> DemurError | None:
        """Return why a request for `queue` would not be parked; None where it may be tried."""
        if away := self._away.get(queue):
            return away
        until, error = self._over.get(queue, (0.0, None))
        return error if time.monotonic() < until else None
