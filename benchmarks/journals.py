"""Journals: what a process writes down while another reads, one JSON object a line, one file a process."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO, Generic, Self, TypeVar

import msgspec

E = TypeVar("E", bound=msgspec.Struct)


class Journal(Generic[E]):
    """Appends entries to one file, each out of the process's hands as soon as it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, entry: E) -> None:
        """Append one entry in one system call: whoever is killed leaves whole lines."""
        assert self._file is not None, "a journal is used within its with block"
        self._file.write(msgspec.json.encode(entry) + b"\n")


class Tail(Generic[E]):
    """Reads a file that is still being written, entry by entry, from where it last stopped."""

    def __init__(self, path: Path, decoder: msgspec.json.Decoder[E]) -> None:
        self._path = path
        self._decoder = decoder
        self._offset = 0

    def read(self) -> list[E]:
        """Return the entries that were completed since the last call; a file that is not there yet has none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return []
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [self._decoder.decode(line) for line in whole.splitlines()]
