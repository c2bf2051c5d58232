"""The chain of one model on the disk: `<data>/chains/<model>/<first row>.rows`, appended to and never written again.

Theory of operation. A line is a row: its digest, a space, its bytes. A batch of rows ends with a line that begins with
`=` and says what the rows before it came from (`Notes`): how far the gateways' stream and the ledger of outcomes were
read. Rows and that line are one write, synced before anybody acts on them. A writer that is killed leaves, at the very
end, the beginning of a batch: rows that follow, perhaps a line without its end. Readers leave that out, and the next
writer cuts it off. So rows and cursors are there together or not at all, and a process that is killed anywhere begins
again at a place where nothing is doubled and nothing lost. Whatever else is no whole batch was changed, and whoever
comes to it is told (`BrokenError`): a line that nobody can read must not hide what stands behind it.

Plain files rather than a table of columns: evidence is read from the first row to the last and is never queried, merged
or written anew; a batch comes every half second, for which a table would write two files and a log entry; a digest a
row makes the checks that a table's log would. And whoever wants to check a certificate needs nothing to read it.

One process at a time appends (the ledger's lock); anybody may read meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fallback.errors import StateError
from trainer.errors import disk
from trainer.rows import UNREADABLE, Link, Row, chain, decode, first_break, genesis

FOLDER: Final = "chains"
SUFFIX: Final = ".rows"
SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
_MARK: Final = b"= "


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the rows: cursors of the gateways' stream (`arrivals`) and of the ledger, both read so far.

    `agreed` counts the records where the hash had three people look although the first one agreed with every
    prediction, `overturned` those among them where these three came to another truth. `gold` counts the answers to gold
    items in the queue of the model, `gold_wrong` the wrong ones among them, as it was when this was written.
    """

    arrivals: str = "0"
    ledger_row: int = 0
    agreed: int = 0
    overturned: int = 0
    gold: int = 0
    gold_wrong: int = 0


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    digest: str
    notes: Notes


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A place where a file of a chain ends: how many rows there are by then, the last one's digest, the notes.

    `files` are the chain's files up to there, each with its sha256 (hex).
    """

    rows: int
    digest: str
    notes: Notes
    files: dict[str, str]


class BrokenError(StateError):
    """The chain is not what was written: a line was changed, left out or put in."""


class Chain:
    """One model's rows. `open` before `append`; reading alone needs neither a lock nor `open`."""

    def __init__(self, folder: Path, model: str) -> None:
        self.model = model
        self.folder = folder / model
        self.rows = 0
        self.digest = genesis(model)
        self.notes = Notes()

    def open(self, take: Callable[[Row, str], None], start: Start | None = None) -> None:
        """Hand every row and its digest to `take`, in order, and cut off what was never finished.

        From `start` the rows after it only; raises BrokenError for a file before it that is not what it was, and else
        naming the first row whose digest does not follow.
        """
        self.rows, self.digest, self.notes = 0, genesis(self.model), Notes()
        with disk(self.folder):
            segments = self._segments()
            if start is not None:
                segments = self._after(start, segments)
                self.rows, self.digest, self.notes = start.rows, start.digest, start.notes
            whole = self._replay(segments, take)
            if segments and whole < segments[-1].stat().st_size:
                _cut(segments[-1], whole)

    @property
    def full(self) -> bool:
        """Whether the next rows begin a file."""
        with disk(self.folder):
            segments = self._segments()
            return bool(segments) and segments[-1].stat().st_size >= SEGMENT_BYTES_MAX

    def start(self) -> Start:
        """Return where the chain stands, at the end of its last file."""
        with disk(self.folder):
            files = {segment.name: _sha256(segment) for segment in self._segments()}
        return Start(rows=self.rows, digest=self.digest, notes=self.notes, files=files)

    def _after(self, start: Start, segments: list[Path]) -> list[Path]:
        """Return the files after `start`, once those before it are found to be what they were."""
        for name, digest in start.files.items():
            path = self.folder / name
            if not path.exists() or _sha256(path) != digest:
                raise BrokenError(f"{path}: was changed or is gone; see `demur verify {self.model}`")
        return [segment for segment in segments if segment.name not in start.files]

    def read(self, take: Callable[[Row, str], None]) -> None:
        """Hand every finished row to `take` as `open` does, changing nothing: while somebody else appends, too."""
        self.rows, self.digest, self.notes = 0, genesis(self.model), Notes()
        with disk(self.folder):
            self._replay(self._segments(), take)

    def append(self, links: Sequence[Link], notes: Notes) -> None:
        """Add rows, linked to `digest`, and `notes` in one step; they are on the disk when this returns.

        After an error nobody knows what is there: `open` again.
        """
        digest = links[-1].digest if links else self.digest
        mark = _Mark(rows=self.rows + len(links), digest=digest, notes=notes)
        body = b"".join(b"%b %b\n" % (each.digest.encode(), each.body) for each in links)
        with disk(self.folder):
            _write(self._segment(), body + _MARK + msgspec.json.encode(mark) + b"\n")
        self.rows, self.digest, self.notes = mark.rows, digest, notes

    def links(self) -> Iterator[Link]:
        """Yield every finished row as it is kept, its digest unchecked.

        Raises BrokenError, after the rows before it, where what comes next is no batch and no beginning of one.
        """
        rows, digest = 0, genesis(self.model)
        with disk(self.folder):
            segments = self._segments()
            for segment in segments:
                for batch, mark, _ in _batches(segment, rows, digest, last=segment == segments[-1]):
                    yield from batch
                    rows, digest = mark.rows, mark.digest

    def _replay(self, segments: Sequence[Path], take: Callable[[Row, str], None]) -> int:
        """Take the whole batches of some files; returns where they end in the last one."""
        whole = 0
        for segment in segments:
            whole = 0
            for batch, mark, end in _batches(segment, self.rows, self.digest, last=segment == segments[-1]):
                for kept in batch:
                    if chain(self.digest, kept.body) != kept.digest:
                        raise BrokenError(
                            f"{segment}: row {self.rows} of model {self.model!r} is not what was written; see "
                            f"`demur verify {self.model}`"
                        )
                    take(decode(kept.body), kept.digest)
                    self.rows, self.digest = self.rows + 1, kept.digest
                self.notes, whole = mark.notes, end
        return whole

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def _segment(self) -> Path:
        segments = self._segments()
        if segments and segments[-1].stat().st_size < SEGMENT_BYTES_MAX:
            return segments[-1]
        return self.folder / f"{self.rows:012d}{SUFFIX}"


def models(folder: Path) -> list[str]:
    """Return the models that have a chain under `folder`, sorted."""
    with disk(folder):
        return sorted(path.name for path in folder.glob("*") if any(path.glob(f"*{SUFFIX}")))


def _batches(segment: Path, rows: int, digest: str, *, last: bool) -> Iterator[tuple[list[Link], _Mark, int]]:
    """Yield a file's finished batches, each with its mark and the place where it ends.

    Before the file there are `rows` rows up to `digest`; only the `last` one of a chain may end unfinished.
    """
    batch: list[Link] = []
    at = 0
    with segment.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                _check_unfinished(segment, rows, digest, batch, last=last)
                return
            end = at + len(line)
            if line.startswith(_MARK):
                mark = _mark(line)
                if mark is None:
                    raise BrokenError(
                        f"{segment}: the line at byte {at}, after row {rows + len(batch)}, is damaged: expected the "
                        "end of a batch"
                    )
                yield batch, mark, end
                rows, digest = rows + len(batch), batch[-1].digest if batch else digest
                if (mark.rows, mark.digest) != (rows, digest):
                    raise BrokenError(
                        f"{segment}: the line at byte {at} ends row {mark.rows}, digest {mark.digest}, but before it "
                        f"stand {rows} rows up to digest {digest}"
                    )
                batch = []
            else:
                kept, _, body = line[:-1].partition(b" ")
                batch.append(Link(body=body, digest=kept.decode("latin-1")))
            at = end
    if batch:
        _check_unfinished(segment, rows, digest, batch, last=last)


def _check_unfinished(segment: Path, rows: int, digest: str, batch: Sequence[Link], *, last: bool) -> None:
    """Raise BrokenError unless whole rows without their mark are what a writer that was killed, or is at it, leaves."""
    wrong = first_break(digest, batch)
    if wrong is not None:
        raise BrokenError(
            f"{segment}: after row {rows + wrong} comes something that is neither a row nor its batch's end"
        )
    if not last:
        raise BrokenError(f"{segment}: after row {rows} comes something that is no whole batch")


def _mark(line: bytes) -> _Mark | None:
    try:
        return msgspec.json.decode(line[len(_MARK) :], type=_Mark)
    except UNREADABLE:
        return None


def _write(path: Path, body: bytes) -> None:
    """Append to a file, or make it, and wait until that is on the disk."""
    fresh = not path.exists()
    if fresh:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if fresh:
        for folder in (path.parent, path.parent.parent):
            _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut(path: Path, end: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(handle, end)
        os.fsync(handle)
    finally:
        os.close(handle)
