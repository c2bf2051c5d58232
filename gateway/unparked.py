"""Which recorded requests were not parked: unless their client tries again, nobody will ever be asked about them.

Without a word the certifier waits for their labels as long as a review may take, and all that came later waits with
them. So once no retry has parked a request for a while the certifier is told, and counts it as an error, which it would
be in any case. Whether a request was parked only its own tries can say: the first makes the record, and whoever tries
again parks it at the same place. What a start before this one did not park is not known here, and left to its time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from threading import Lock
from typing import Final

UNPARKED_SECONDS: Final = 600.0
PLACES_MAX: Final = 100_000
# Told at a time.
_DUE_MAX: Final = 1_000
# Model and place.
_Key = tuple[str, str]


class Unparked:
    """One gateway's; the places of records by model. Thread-safe. What there is no room for is left to its time."""

    def __init__(
        self,
        *,
        seconds: float = UNPARKED_SECONDS,
        places_max: int = PLACES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._places_max = places_max
        self._clock = clock
        self._lock = Lock()
        # By when they were last tried, the oldest first.
        self._lost: OrderedDict[_Key, float] = OrderedDict()
        # A first try may hear later than the retry that it was not parked.
        self._retried: OrderedDict[_Key, None] = OrderedDict()

    def lost(self, model: str, place: str, *, again: bool) -> None:
        """Hear that a request was not parked; `again`: its record was made at an earlier try, which may have been."""
        key = model, place
        with self._lock:
            if key in self._lost:
                self._lost[key] = self._clock()
                self._lost.move_to_end(key)
            elif not again and key not in self._retried and len(self._lost) < self._places_max:
                self._lost[key] = self._clock()

    def parked(self, model: str, place: str, *, again: bool) -> None:
        """Hear that a request was parked."""
        key = model, place
        with self._lock:
            self._lost.pop(key, None)
            if again:
                self._retried[key] = None
                while len(self._retried) > self._places_max:
                    self._retried.popitem(last=False)

    def due(self, model: str) -> list[str]:
        """Return places of a model that no try has parked for so long, some at a time, until they are `told`."""
        with self._lock:
            over = self._clock() - self.seconds
            late = takewhile(lambda each: each[1] <= over, self._lost.items())
            return [place for (whose, place), _ in islice((each for each in late if each[0][0] == model), _DUE_MAX)]

    def told(self, model: str, places: Sequence[str]) -> None:
        """Hear that the certifier will be told of `places`."""
        with self._lock:
            for place in places:
                self._lost.pop((model, place), None)
