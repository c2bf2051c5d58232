"""Large content as files: one folder on a volume that all processes mount.

    <folder>/<queue>/<first two characters of the id>/<id>.<what>

A file is written beside its place, synced, renamed, and its folder synced: it is there whole or not at all. Paths are
made of ids that the queue made, never of what a client says. Nothing here knows which files belong to a record: the
sweep asks, for files older than the orphan time by the folder's own clock, so that no clock of ours is trusted. A
folder belongs to one server: what another one parked would look like orphans.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from fallback.blobs import INPUTS, SUBJECT, Blob
from fallback.errors import FullError, UnavailableError
from fallback.presence import write_atomic
from fallback.queue_settings import QUEUE_NAME

WHATS: Final = (SUBJECT, INPUTS)
RETRY_SECONDS: Final = 5.0
# A sweep looks at so many files at most, then goes on in the next round.
SWEEP_FILES_MAX: Final = 1_024
# A sweep that came to the end begins anew after so long, or the orphan time where that is shorter.
SWEEP_PAUSE_SECONDS: Final = 60.0
_SHARD_CHARS: Final = 2
_CLOCK: Final = ".clock"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


T = TypeVar("T")


class Folder:
    """Content below one folder, which is made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Of each queue: the shards that this round of the sweep has yet to see, and when the next round may begin.
        self._unseen: dict[str, list[str]] = {}
        self._next: dict[str, float] = {}
        self._sweeping = asyncio.Lock()

    async def put(self, blob: Blob, content: bytes, *, orphan_seconds: float) -> None:
        """Write a file and wait until the disk has it."""
        del orphan_seconds
        path = self._path(blob.queue, blob.id, blob.what)
        await _in_thread(lambda: _write(path, content), path)
        await _in_thread(lambda: self._mounted() or _clock(self._folder), path)

    async def get(self, blob: Blob, size_bytes: int) -> bytes | None:
        """Read a file; raises UnavailableError where the whole folder is not there, and nothing can be said of it."""
        path = self._path(blob.queue, blob.id, blob.what)
        found = await _in_thread(lambda: _read(path, size_bytes + 1), path)
        if found is None and not await _in_thread(self._mounted, path):
            raise UnavailableError(
                f"the folder of contents is empty here; is its volume mounted? {path.name} cannot be read",
                retry_after_seconds=RETRY_SECONDS,
            )
        return found

    async def there(self, blobs: Sequence[Blob]) -> list[bool]:
        """Look for the files; where the whole folder is not there nothing was seen to be gone."""
        paths = [self._path(blob.queue, blob.id, blob.what) for blob in blobs]
        return await _in_thread(
            lambda: [path.is_file() for path in paths] if self._mounted() else [True] * len(paths), self._folder
        )

    async def delete(self, queue: str, ids: Sequence[str]) -> None:
        """Delete the files."""
        await _in_thread(lambda: self._delete(queue, ids), self._folder)

    async def sweep(
        self, queue: str, *, orphan_seconds: float, strays: Callable[[list[str]], Awaitable[set[str]]]
    ) -> int:
        """Look at the next shards for files that are old and whose id `strays` returns, and delete those."""
        if self._sweeping.locked() or time.monotonic() < self._next.get(queue, 0.0):
            return 0
        async with self._sweeping:
            old = await _in_thread(lambda: self._old(queue, orphan_seconds), self._folder)
            if not self._unseen[queue]:
                del self._unseen[queue]
                self._next[queue] = time.monotonic() + min(SWEEP_PAUSE_SECONDS, orphan_seconds)
        if not old:
            return 0
        gone = {"", *await strays(sorted(old.keys() - {""}))}
        paths = [path for one, found in old.items() if one in gone for path in found]
        return await _in_thread(lambda: _unlink(paths), self._folder)

    def _mounted(self) -> bool:
        """Say whether this is the folder that somebody wrote to, and not a place where it should be mounted."""
        return (self._folder / _CLOCK).exists()

    def _path(self, queue: str, deferral_id: str, what: str) -> Path:
        if not (QUEUE_NAME.fullmatch(queue) and deferral_id.isascii() and deferral_id.isalnum() and what in WHATS):
            raise ValueError(f"blob: expected a queue, an id, and one of {WHATS}, got {(queue, deferral_id, what)}")
        return self._folder / queue / deferral_id[:_SHARD_CHARS] / f"{deferral_id}.{what}"

    def _delete(self, queue: str, ids: Sequence[str]) -> None:
        if self._folder.is_dir():
            paths = [self._path(queue, one, what) for one in ids for what in WHATS]
            _unlink(paths)

    def _old(self, queue: str, seconds: float) -> dict[str, list[Path]]:
        """Return the old files of the next shards by id, until there are enough."""
        home = self._folder / queue
        if queue not in self._unseen:
            self._unseen[queue] = sorted(entry.name for entry in _entries(home) if entry.is_dir())
        shards, found, seen = self._unseen[queue], dict[str, list[Path]](), 0
        if not shards:
            return found
        newest = _clock(self._folder) - seconds
        while shards and seen < SWEEP_FILES_MAX:
            for entry in _entries(home / shards.pop()):
                seen += 1
                if _mtime(entry) < newest:
                    # What a process that was killed while writing left has a name that begins with a dot: nobody's.
                    one = entry.name.partition(".")[0]
                    found.setdefault(one, []).append(Path(entry.path))
        return found


async def _in_thread(call: Callable[[], T], path: Path) -> T:
    with _disk(path):
        return await asyncio.to_thread(call)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what a disk says into what a caller may be told."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise FullError(f"the folder of contents has no room left: {reason}", retry_after_seconds=10.0) from error
        raise UnavailableError(
            f"the folder of contents cannot be used: {reason}; is {path.name} on the volume that all processes mount?",
            retry_after_seconds=RETRY_SECONDS,
        ) from error


def _write(path: Path, content: bytes) -> None:
    fresh = [folder for folder in (path.parent, path.parent.parent) if not folder.is_dir()]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, content)
    for folder in (path.parent, *(one.parent for one in fresh)):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: Path, bytes_max: int) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(bytes_max)


def _unlink(paths: Sequence[Path]) -> int:
    count = 0
    for path in paths:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        count += 1
    return count


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _mtime(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return float("inf")


def _clock(folder: Path) -> float:
    """Return the time by the clock that dates the files."""
    marker = folder / _CLOCK
    marker.touch(mode=0o600)
    return marker.stat().st_mtime
