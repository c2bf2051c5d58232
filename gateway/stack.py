"""Where a running stack's processes are found: `<data>/run/<process>.json` each, `<data>/stack.json` all together."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fallback.errors import UnavailableError

STACK: Final = "stack.json"
RUN: Final = "run"
SUPERVISOR: Final = "up"

T = TypeVar("T")


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses (host:port, `page` a URL), the data folder and the process ids of one running stack.

    `webhook_networks`: networks that callbacks may reach although they are not public.
    """

    gateway: str
    review: str
    page: str
    metrics: str
    data: str
    redis: str
    webhook_networks: tuple[str, ...] = ()
    pids: dict[str, int] = {}


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What one process says of itself once it answers: addresses by what is served there, and facts worth a line."""

    pid: int
    addresses: dict[str, str] = {}
    facts: dict[str, str] = {}


def write_atomic(path: Path, body: bytes) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def announce(data: Path, process: str, running: Running) -> None:
    """Say that `process` answers now."""
    write_atomic(announcement(data, process), msgspec.json.encode(running))


def announced(data: Path, process: str) -> Running | None:
    """Read what `process` said, or None."""
    return _read(announcement(data, process), Running)


def announcement(data: Path, process: str) -> Path:
    """Return the file that `process` says in that it answers."""
    return data / RUN / f"{process}.json"


def write(data: Path, stack: Stack) -> None:
    """Write stack.json."""
    write_atomic(data / STACK, msgspec.json.format(msgspec.json.encode(stack), indent=2) + b"\n")


def read(data: Path) -> Stack | None:
    """Read stack.json; None where no stack runs: there is no file, or its supervisor was killed."""
    found = _read(data / STACK, Stack)
    return found if found is not None and _lives(found.pids.get(SUPERVISOR, 0)) else None


def find(data: Path) -> Stack:
    """Read stack.json; raises UnavailableError that says how to start one."""
    found = read(data)
    if found is None:
        raise UnavailableError(f"no stack runs on {data.resolve()}: start one with `demur up`, or name an address")
    return found


def forget(data: Path) -> None:
    """Remove stack.json: nothing runs any more."""
    (data / STACK).unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: Path, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
