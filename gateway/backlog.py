"""What is on its way to the queue, in this process and in the clerk: so much and no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

from fallback.errors import FullError
from gateway.declined import Declined

_RETRY_SECONDS: Final = 1.0


class Backlog:
    """At most `rows_max` rows, of requests of at most `bytes_max` bytes in all. Thread-safe.

    A request larger than all of it goes where nothing else is on its way: it would never go otherwise.
    """

    def __init__(self, *, rows_max: int, bytes_max: int) -> None:
        self.rows_max = rows_max
        self.bytes_max = bytes_max
        self._lock = Lock()
        self._rows = 0
        self._bytes = 0

    def admit(self, batch: Sequence[Declined]) -> tuple[Sequence[Declined], list[tuple[Declined, FullError]]]:
        """Return whom there is room for, and the others, each with why not; who goes is to `leave`."""
        rows, weight = sum([each.rows for each in batch]), sum([each.weight for each in batch])
        with self._lock:
            if self._rows + rows <= self.rows_max and self._bytes + weight <= self.bytes_max:
                self._rows += rows
                self._bytes += weight
                return batch, []
            wanted, refused = [], []
            for declined in batch:
                if error := self._refusal(declined):
                    refused.append((declined, error))
                else:
                    self._rows += declined.rows
                    self._bytes += declined.weight
                    wanted.append(declined)
            return wanted, refused

    def leave(self, batch: Iterable[Declined]) -> None:
        """Hear that these are parked, or given up."""
        rows = weight = 0
        for declined in batch:
            rows += declined.rows
            weight += declined.weight
        with self._lock:
            self._rows -= rows
            self._bytes -= weight

    def _refusal(self, declined: Declined) -> FullError | None:
        if self._rows + declined.rows > self.rows_max:
            problem = f"{self.rows_max} rows are on their way to the queue, the most at a time (setting parkings_max)"
        elif self._rows and self._bytes + declined.weight > self.bytes_max:
            problem = (
                f"requests of {self._bytes} bytes are on their way to the queue, the most is {self.bytes_max} "
                "(setting parkings_bytes_max)"
            )
        else:
            return None
        return FullError(problem, retry_after_seconds=_RETRY_SECONDS)
