"""Queues at which something fails while the others go on: each is told of once, and left alone for a moment."""

from __future__ import annotations

import time
from typing import Final

import structlog

# So long a queue that failed is left alone: what is broken stays so until somebody repairs it.
PAUSE_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Troubles:
    """What fails at which queue, by what was being done; belongs to one process."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, str], float] = {}

    def resting(self, queue: str, doing: str) -> bool:
        """Say whether it failed a moment ago."""
        failed_at = self._failed.get((queue, doing))
        return failed_at is not None and time.monotonic() - failed_at < PAUSE_SECONDS

    def failed(self, queue: str, doing: str, error: Exception) -> None:
        """Note that it failed, and log it unless it failed the last time, too."""
        if (queue, doing) not in self._failed:
            log.error("a queue fails; going on with the others", queue=queue, doing=doing, error=str(error))
        self._failed[queue, doing] = time.monotonic()

    def went_well(self, queue: str, doing: str) -> None:
        """Forget that it failed."""
        self._failed.pop((queue, doing), None)
