"""Which idempotency keys were used for which input, as far back as there is room.

The queue itself refuses a key that was parked with another input. This remembers, in one gateway, those that were
answered at once, and which rows of a request were deferred, so that a retry stays deferred whatever version is live by
then.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from fallback.errors import ConflictError


class Remembered:
    """The newest `keys_max` keys. Thread-safe."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._lock = Lock()
        self._found: OrderedDict[str, tuple[str, frozenset[int]]] = OrderedDict()

    def check(self, key: str, digest: str) -> frozenset[int]:
        """Return the rows deferred under `key` before; raises ConflictError where it was used with another input."""
        with self._lock:
            known = self._found.get(key)
            if known is None:
                return frozenset()
            self._found.move_to_end(key)
        if known[0] != digest:
            raise conflict(key.partition("\n")[2])
        return known[1]

    def keep(self, key: str, digest: str, deferred: frozenset[int]) -> None:
        """Remember what came of a request; the oldest is forgotten when there is no room."""
        with self._lock:
            self._found[key] = (digest, deferred)
            self._found.move_to_end(key)
            while len(self._found) > self._keys_max:
                self._found.popitem(last=False)


def conflict(key: str) -> ConflictError:
    """Return what a client is told that uses a key for two inputs."""
    return ConflictError(
        f"idempotency_key: {key[:128]!r} was used with another input; expected the same input, or another key",
    )
