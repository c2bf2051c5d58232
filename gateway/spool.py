"""What a gateway must not forget, on this machine's disk: rows on their way to the certifier, and audits to be parked.

Theory of operation. A spool is a folder of segments that are only appended to; an entry is its length, a CRC-32, its
kind and its bytes. Entries that belong together are written in one call of the system, so that a process killed at
whatever point leaves whole entries and at most one torn at the end, which was never acted upon. What was written is
safe from the death of the process at once. From the death of the machine it is not: nothing is synced, since what a
certificate says does not need it (`gateway.adoption` says why) and every batch would wait for the disk.

Whoever writes a spool holds its lock for as long as the process lives, so a spool whose lock can be had is a dead
gateway's. Locks are taken and folders come and go under the lock of the root folder.

Readers go by positions (segment, offset). The mark remembers how far they came; it is written after the fact, so that
after a crash something may be read twice, and nothing is left out. Segments that all readers have passed are deleted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from threading import Lock
from typing import Final, Self, TypeAlias

import msgspec
import structlog

from fallback.errors import DemurError, FullError, UnavailableError
from fallback.presence import read_json, write_atomic

SEGMENT_BYTES_MAX: Final = 8 * 1024 * 1024
SEGMENTS_MIN: Final = 8
# Rows that close seconds are small, and may be written where a sampled request would be too much.
SPARE_BYTES: Final = 4 * 1024 * 1024
FULL_RETRY_SECONDS: Final = 5.0
_HEAD: Final = struct.Struct("<IIB")
_LOCK: Final = "lock"
_ABOUT: Final = "about.json"
_MARK: Final = "mark.json"
# Always as many, in one write of less than a page: a process that is killed leaves the old mark or the new one.
_MARK_BYTES: Final = 256
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# Segment and offset in it.
Position: TypeAlias = tuple[int, int]
START: Final = (0, 0)
log = structlog.get_logger(__name__)


class Kind(IntEnum):
    """What an entry is: a row of evidence as JSON, or a Parking as MessagePack."""

    ROW = 1
    AUDIT = 2


Entry: TypeAlias = tuple[Kind, bytes]
_KINDS: Final = frozenset(Kind)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Whose spool it is, and the second it was made in.

    `boot` is that of the machine it was written on, empty where that is not known.
    """

    model: str
    gateway: str
    second: int = 0
    boot: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far readers came: past `closed` no row was sent, up to it all were, and second `second` was closed there.

    `joined`: that the gateway joined was sent; `final`: that it ended. Audits up to `parked` are parked, or given up.
    """

    closed: Position = START
    second: int = -1
    joined: bool = False
    final: bool = False
    parked: Position = START


def boot() -> str:
    """Return what names the time since this machine started; empty where nothing does."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep others from making, taking or removing spools under `root`."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Spool:
    """One gateway's, of one model. One thread appends at a time; others read meanwhile."""

    def __init__(self, folder: Path, about: About, lock: int, *, bytes_max: int) -> None:
        self.folder = folder
        self.about = about
        self._locking: int | None = lock
        self._bytes_max = bytes_max
        self._segment_bytes_max = max(1, min(SEGMENT_BYTES_MAX, bytes_max // SEGMENTS_MIN))
        self._sizes_lock = Lock()
        self._sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.seg")}
        last = max(self._sizes, default=0)
        self.end: Position = last, self._sizes.setdefault(last, 0)
        self.damaged = False
        self._file: int | None = None
        self._mark_file: int | None = None
        self._torn = False

    @classmethod
    def create(cls, root: Path, about: About, *, bytes_max: int) -> Self:
        """Make one; raises DemurError where the disk does not let us."""
        folder = root / about.model / about.gateway
        try:
            with locked(root):
                folder.mkdir(parents=True)
                lock = _lock(folder)
                assert lock is not None, "nobody else knows the folder"
                write_atomic(folder / _ABOUT, msgspec.json.encode(about))
            return cls(folder, about, lock, bytes_max=bytes_max)
        except OSError as error:
            raise _trouble(folder, error) from error

    @classmethod
    def take(cls, folder: Path, *, bytes_max: int) -> Self | None:
        """Take over the spool of a dead gateway, under the root's lock; None where its gateway lives.

        One that came to nothing, because its gateway died while it made it, is removed.
        """
        lock = _lock(folder)
        if lock is None:
            return None
        about = read_json(folder / _ABOUT, About)
        if about is None:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return cls(folder, about, lock, bytes_max=bytes_max)

    @property
    def size(self) -> int:
        """How many bytes its segments have."""
        with self._sizes_lock:
            return sum(self._sizes.values())

    def append(self, entries: Sequence[Entry], *, spare: bool = False) -> None:
        """Write `entries`, all of them or none, in one call of the system.

        `spare`: may take what is kept back for small rows. Raises FullError where the spool or the disk is full,
        UnavailableError where the disk cannot be written.
        """
        self.check(spare=spare)
        try:
            self._write(b"".join(frame(kind, payload) for kind, payload in entries))
        except OSError as error:
            raise _trouble(self.folder, error) from error

    def check(self, *, spare: bool = False) -> None:
        """Raise FullError where the spool is full.

        Where it is not, one write more has room, whatever it weighs: did a large one not fit where a small one does, it
        would depend on what was asked whether it is evidence.
        """
        if (size := self.size) >= self._bytes_max + (SPARE_BYTES if spare else 0):
            raise FullError(
                f"spool of model {self.about.model!r}: {size} bytes wait for Redis, at most {self._bytes_max} may "
                "(gateway.spool_bytes_max)",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )

    def read(
        self, start: Position, kind: Kind, *, count: int, bytes_max: int
    ) -> tuple[list[tuple[bytes, Position]], Position]:
        """Return up to `count` entries of one kind from `start` on, each with the place after it, and where to go on.

        Ends early once they weigh `bytes_max`. What was damaged is left out, to the end of its segment.
        """
        found: list[tuple[bytes, Position]] = []
        end, weight, place = self.end, 0, start
        while place < end and len(found) < count and weight < bytes_max:
            for entry_kind, payload, after in self._entries(place, end, only=kind):
                place = after
                if entry_kind is kind:
                    found.append((payload, after))
                    weight += len(payload)
                if len(found) >= count or weight >= bytes_max:
                    break
            else:
                # To the next segment; in the last one, past what is damaged.
                place = (place[0] + 1, 0) if place[0] < end[0] else end
        return found, place

    def scan(self, start: Position) -> Iterator[tuple[Kind, bytes]]:
        """Go through all entries from `start` on, stop at the first that is not whole, and drop that and what follows.

        Only for a spool that was taken over. Afterwards `damaged` says whether more was wrong than that the gateway
        died while it wrote the last one.
        """
        place = start
        while place < self.end:
            for kind, payload, after in self._entries(place, self.end):
                place = after
                yield kind, payload
            left = self._limit(place, self.end) - place[1]
            if left or place[0] == self.end[0]:
                self.damaged = bool(left) and (place[0] != self.end[0] or not self._torn_at(place, left))
                self._cut(place)
                return
            place = place[0] + 1, 0

    def mark(self) -> Mark:
        """Read how far readers came; from the start where that cannot be read."""
        return read_json(self.folder / _MARK, Mark) or Mark()

    def set_mark(self, mark: Mark) -> None:
        """Remember how far readers came, and delete what all of them have passed.

        Raises nothing: a mark that cannot be written has something read twice after a crash, no more.
        """
        try:
            # First of all room, which a full disk lacks.
            self._delete(before=min(mark.closed, mark.parked)[0])
            if self._mark_file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._mark_file = os.open(self.folder / _MARK, flags, 0o600)
            os.pwrite(self._mark_file, msgspec.json.encode(mark).ljust(_MARK_BYTES), 0)
        except OSError as error:
            log.warning("a spool's mark cannot be written", folder=str(self.folder), error=str(error))

    def close(self) -> None:
        """Let go of it; another gateway may take it over."""
        for file in (self._file, self._mark_file):
            if file is not None:
                os.close(file)
        self._file = self._mark_file = None
        if self._locking is not None:
            os.close(self._locking)
            self._locking = None

    def remove(self) -> None:
        """Delete it, once everything in it is done; raises nothing."""
        try:
            with locked(self.folder.parent.parent):
                shutil.rmtree(self.folder)
        except OSError as error:
            log.warning("a spool could not be removed", folder=str(self.folder), error=str(error))
        self.close()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:010}.seg"

    def _write(self, content: bytes) -> None:
        number, offset = self.end
        if self._torn:
            # What a failed write left; nothing may be written behind it.
            os.truncate(self._path(number), offset)
            self._torn = False
        if offset >= self._segment_bytes_max:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            number, offset = number + 1, 0
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._path(number), flags, 0o600)
            self.end = number, offset
        try:
            done = os.write(self._file, content)
            while done < len(content):
                done += os.write(self._file, content[done:])
        except OSError:
            self._torn = True
            with suppress(OSError):
                os.truncate(self._path(number), offset)
                self._torn = False
            raise
        with self._sizes_lock:
            self._sizes[number] = offset + len(content)
        self.end = number, offset + len(content)

    def _limit(self, place: Position, end: Position) -> int:
        """Return how many bytes of the segment of `place` are whole."""
        with self._sizes_lock:
            return end[1] if place[0] == end[0] else self._sizes.get(place[0], 0)

    def _torn_at(self, place: Position, left: int) -> bool:
        """Return whether the last `left` bytes are the beginning of an entry."""
        with self._path(place[0]).open("rb") as file:
            file.seek(place[1])
            head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return True
        length, _, kind = _HEAD.unpack(head)
        return kind in _KINDS and _HEAD.size + length > left

    def _entries(
        self, start: Position, end: Position, *, only: Kind | None = None
    ) -> Iterator[tuple[Kind, bytes, Position]]:
        """Go through one segment from `start` on; the bytes of another kind than `only` are not read.

        Stops before what is torn or damaged.
        """
        number, offset = start
        limit = self._limit(start, end)
        if offset >= limit:
            return
        with self._path(number).open("rb") as file:
            file.seek(offset)
            while offset + _HEAD.size <= limit:
                length, crc, kind = _HEAD.unpack(file.read(_HEAD.size))
                after = offset + _HEAD.size + length
                if after > limit or kind not in _KINDS:
                    break
                if only is not None and kind != only:
                    file.seek(length, os.SEEK_CUR)
                    payload = b""
                elif zlib.crc32(payload := file.read(length), kind) != crc:
                    break
                offset = after
                yield Kind(kind), payload, (number, offset)
        if offset < limit and only is not None:
            log.error("a spool is damaged; the rest of its segment is left out", path=str(self._path(number)))

    def _cut(self, place: Position) -> None:
        """Drop everything from `place` on."""
        number, offset = place
        for path in self.folder.glob("*.seg"):
            if int(path.stem) > number:
                path.unlink()
        if self._path(number).exists():
            os.truncate(self._path(number), offset)
        with self._sizes_lock:
            self._sizes = {each: size for each, size in self._sizes.items() if each < number} | {number: offset}
        self.end = place

    def _delete(self, *, before: int) -> None:
        with self._sizes_lock:
            gone = [number for number in self._sizes if number < min(before, self.end[0])]
        for number in gone:
            self._path(number).unlink(missing_ok=True)
            with self._sizes_lock:
                del self._sizes[number]


def frame(kind: Kind, payload: bytes) -> bytes:
    """Return an entry as it stands in a segment."""
    return _HEAD.pack(len(payload), zlib.crc32(payload, kind), kind) + payload


def _lock(folder: Path) -> int | None:
    """Take the lock of a spool and return its open file; None where somebody has it."""
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _trouble(folder: Path, error: OSError) -> DemurError:
    kind = FullError if error.errno in _NO_ROOM else UnavailableError
    return kind(f"spool {folder.name}: {error.strerror or error}", retry_after_seconds=FULL_RETRY_SECONDS)
