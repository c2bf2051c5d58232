"""What the demo's processes write down: one JSON object a line, one file a process, read back by the orchestrator.

The counts of a run come from these files and from nothing else, so that nothing that Demur says of itself is taken on
trust: clients write what they were replied, reviewers what they answered, the receiver what it was told.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from fallback.answer import Answer, Label


class Replied(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="replied"):
    """A client's request came back. `time` is when it was sent, in Unix seconds; `deferral` is empty if answered.

    `certificate` is the name of the one in force, empty for none.
    """

    index: int
    time: float
    latency_ms: float
    decision: str
    label: str
    confidence: float
    version: str
    deferral: str = ""
    certificate: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="failed"):
    """A call of a client ended in anything but a reply. `call` is the method's name."""

    index: int
    time: float
    call: str
    error: str


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="told"):
    """What a client got when it waited for one of its deferrals; `label` is empty where the outcome has no answer."""

    deferral: str
    state: str
    label: str


class Watched(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="watched"):
    """One event of the stream of outcomes. `predicted` is what the model had said."""

    deferral: str
    state: str
    audit: bool
    label: str
    predicted: str


class Reviewed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="reviewed"):
    """A reviewer's answer went in. `truth` is what the image really shows."""

    deferral: str
    time: float
    label: str
    truth: str


class Called(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="called"):
    """One attempt to call back that carried a good signature; `status` is what the receiver answered (200 or 500)."""

    id: str
    time: float
    type: str
    deferral: str
    label: str
    status: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="refused"):
    """One attempt to call back that the receiver could not believe or read."""

    time: float
    reason: str


class Stumbled(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="stumbled"):
    """A reviewer's or the watcher's call failed and was made again."""

    time: float
    call: str
    error: str


Entry = Replied | Failed | Told | Watched | Reviewed | Called | Refused | Stumbled
_decoder = msgspec.json.Decoder(Entry)


class Journal:
    """Appends entries to one file, each on disk's side of the process as soon as it is written."""

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

    def write(self, entry: Entry) -> None:
        """Append one entry."""
        assert self._file is not None, "a journal is used within its with block"
        self._file.write(msgspec.json.encode(entry) + b"\n")


class Tail:
    """Reads a file that is still being written, entry by entry, from where it last stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Entry]:
        """Return the entries that were completed since the last call; a file that is not there yet has none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return []
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_decoder.decode(line) for line in whole.splitlines()]


def read_all(paths: Iterable[Path]) -> list[Entry]:
    """Return every entry of `paths`, file after file."""
    return [entry for path in paths for entry in Tail(path).read()]


def label_of(answer: Answer | None) -> str:
    """Return the label of an answer, empty for none: nobody answered, or the person could not tell."""
    return answer.label if isinstance(answer, Label) else ""
