"""Swaps of a gateway's model while load goes on, with broken versions in between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.serve import ground, measures, models
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.sender import Load
from benchmarks.serve.windows import Left, Window
from fallback.errors import DemurError, UnavailableError
from gateway import manifest
from gateway.manifest import ARTEFACT, MANIFEST, Golden
from gateway.model_client import ModelClient
from gateway.server import MODELS_FOLDER

MARKS: Final = (1.0, 2.0)
# After so many swaps one failed load; the kinds take turns.
BROKEN_EVERY: Final = 5
_FREED_SECONDS_MAX: Final = 10.0
_LOOK_SECONDS: Final = 0.01
_SETTLE_SECONDS: Final = 0.5
_FLOAT_BYTES: Final = 4


class Versions(NamedTuple):
    """What was published: two that work, by number, with their marks; two that do not load, by what is wrong."""

    good: dict[int, float]
    broken: dict[str, int]


class Swaps(NamedTuple):
    """What was done: when versions were loaded, and the bytes resident after each swap."""

    windows: list[Window]
    rss: list[int]


def publish(served: Served, name: Name) -> Versions:
    """Publish two versions that say which they are, the first live, and two that are then spoilt on the disk."""
    return asyncio.run(_publish(served, name))


async def _publish(served: Served, name: Name) -> Versions:
    numbers = [int(await ground.publish(served.address, name, mark=mark, promote=mark == MARKS[0])) for mark in MARKS]
    broken = {
        what: int(await ground.publish(served.address, name, mark=0.0, promote=False)) for what in ("changed", "cut")
    }
    home = served.folder / MODELS_FOLDER / name
    _overwrite(home / str(broken["changed"]) / ARTEFACT, lambda content: b"\0" + content[1:])
    # One whose file is as its manifest says, and yet does not load.
    cut = home / str(broken["cut"])
    _overwrite(cut / ARTEFACT, lambda content: content[: len(content) // 2])
    digest = hashlib.sha256((cut / ARTEFACT).read_bytes()).hexdigest()
    _overwrite(cut / MANIFEST, lambda content: _with_digest(content, digest))
    return Versions(dict(zip(numbers, MARKS, strict=True)), broken)


def _overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    content = change(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(content)


def _with_digest(content: bytes, digest: str) -> bytes:
    found = manifest.parse(content.decode())
    return manifest.render(msgspec.structs.replace(found, files={ARTEFACT: digest})).encode()


def load(served: Served, name: Name, *, seconds_max: float) -> Load:
    """Return the requests of a run: one row each, so stamped that its reply tells in which batch it ran."""
    payload = measures.asked(name)
    # The row stands last in it.
    at = len(payload) - _FLOAT_BYTES * models.rows(name, 1).size
    return Load(address=served.address, payload=payload, seconds_max=seconds_max, stamp_at=at)


class Log:
    """What a gateway says, from here on: when it freed a version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size
        self._freed: dict[str, float] = {}

    async def freed(self, version: int) -> float:
        """Return when `version` was last freed, by time.monotonic(); raises UnavailableError where it is not."""
        deadline = time.monotonic() + _FREED_SECONDS_MAX
        while time.monotonic() < deadline:
            self._look()
            if (found := self._freed.pop(str(version), None)) is not None:
                return found
            await asyncio.sleep(_LOOK_SECONDS)
        raise UnavailableError(f"version {version} is not freed {_FREED_SECONDS_MAX:.0f} s after it was replaced")

    def _look(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read)
            came = file.read()
        whole = came[: came.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                said = msgspec.json.decode(line)
                if said.get("event") == "freed":
                    wall = datetime.fromisoformat(said["timestamp"]).timestamp()
                    self._freed[said["version"]] = wall - time.time() + time.monotonic()


async def swap(
    served: Served, name: Name, versions: Versions, *, start: float, swaps: int, gap_seconds: float
) -> Swaps:
    """Swap to and fro `swaps` times, `gap_seconds` apart, with a failed load after every few; windows from `start`."""
    log, found = Log(served.log), Swaps([], [])
    live, other = versions.good
    kinds = _breaking(served, name, versions)
    async with ModelClient(served.address) as client:
        for number in range(swaps):
            await asyncio.sleep(gap_seconds)
            begin = time.monotonic()
            await client.promote(name, str(other))
            end = await log.freed(live)
            found.windows.append(Window(begin - start, end - start, other))
            found.rss.append(rss_bytes(served.pid))
            live, other = other, live
            if number % BROKEN_EVERY == BROKEN_EVERY - 1:
                await asyncio.sleep(gap_seconds)
                begin = time.monotonic()
                await _fails(kinds[number // BROKEN_EVERY % len(kinds)](client))
                found.windows.append(Window(begin - start, time.monotonic() - start, None))
    return found


def _breaking(served: Served, name: Name, versions: Versions) -> list[Callable[[ModelClient], Awaitable[object]]]:
    """Return the ways of loading what does not load; the last one is refused when it is published."""
    row = models.rows(name, 1)[0].tolist()
    # No input has two labels.
    golden = [Golden(inputs={"x": row}, label=str(label)) for label in range(2)]
    return [
        lambda client: client.promote(name, str(versions.broken["changed"])),
        lambda client: client.promote(name, str(versions.broken["cut"])),
        lambda _: ground.publish(served.address, name, mark=0.0, golden=golden),
    ]


async def _fails(loading: Awaitable[object]) -> None:
    try:
        await loading
    except DemurError:
        return
    raise UnavailableError("a version that is broken was loaded; the benchmark's own mistake")


async def failed_loads(served: Served, name: Name, versions: Versions, *, count: int) -> Left:
    """Load what does not load `count` times after as many to settle; returns what that left behind."""
    kinds = _breaking(served, name, versions)[:2]
    async with ModelClient(served.address) as client:

        async def round_() -> tuple[int, int, int]:
            for number in range(count):
                await _fails(kinds[number % len(kinds)](client))
            await asyncio.sleep(_SETTLE_SECONDS)
            return rss_bytes(served.pid), *_held(served.pid)

        before, after = await round_(), await round_()
    return Left(after[0] / before[0] - 1, max(0, after[1] - before[1]), max(0, after[2] - before[2]))


def rss_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _held(pid: int) -> tuple[int, int]:
    """Return how many threads and open files a process has."""
    task, files = (sum(1 for _ in Path(f"/proc/{pid}/{kind}").iterdir()) for kind in ("task", "fd"))
    return task, files
