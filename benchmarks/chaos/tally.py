"""How far everybody is, entry by entry: what is asked, named, ended, told. Quick to ask, however long a run is."""

from __future__ import annotations

from benchmarks.chaos.check import TAKEN
from benchmarks.chaos.history import OK, Asked, Called, Entry, Replied, Watched


class Tally:
    """Counts what is on its way; entries come in any order, and more than once."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._unnamed: set[str] = set()
        self._named: set[str] = set()
        self._keys: set[str] = set()
        self._ended: set[str] = set()
        self._told: set[str] = set()
        self._flying: set[str] = set()
        self._untold: set[str] = set()

    @property
    def named(self) -> int:
        """How many requests have a name."""
        return len(self._keys)

    @property
    def in_flight(self) -> int:
        """How many deferrals that a client knows of have no outcome yet."""
        return len(self._flying)

    def all_named(self, total: int) -> bool:
        """Whether `total` requests were made, and each has a name."""
        return len(self._asked) >= total and not self._unnamed

    def settled(self, total: int) -> bool:
        """Whether every request has a name, every name an outcome, and every outcome was told."""
        return self.all_named(total) and not self._flying and not self._untold

    def note(self, entry: Entry) -> None:
        """Count one entry."""
        match entry:
            case Asked() if entry.key not in self._asked:
                self._asked.add(entry.key)
                if entry.key not in self._keys:
                    self._unnamed.add(entry.key)
            case Replied() if entry.code == OK:
                self._name(entry.key, entry.deferral)
            case Watched():
                self._ended.add(entry.deferral)
                self._flying.discard(entry.deferral)
            case Called() if entry.status == TAKEN:
                self._told.add(entry.deferral)
                self._untold.discard(entry.deferral)
            case _:
                pass

    def _name(self, key: str, name: str) -> None:
        self._keys.add(key)
        self._unnamed.discard(key)
        if name in self._named:
            return
        self._named.add(name)
        if name not in self._ended:
            self._flying.add(name)
        if name not in self._told:
            self._untold.add(name)
