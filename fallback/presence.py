"""Where the processes of one machine say that they answer: `<data>/run/<process>.json` each."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, TypeVar

import msgspec

RUN: Final = "run"

T = TypeVar("T")


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
    return read_json(announcement(data, process), Running)


def announcement(data: Path, process: str) -> Path:
    """Return the file that `process` says in that it answers."""
    return data / RUN / f"{process}.json"


def withdraw(data: Path, process: str) -> None:
    """Take it back: `process` does not answer any more."""
    announcement(data, process).unlink(missing_ok=True)


def read_json(path: Path, type_: type[T]) -> T | None:
    """Read a file that is replaced in one step; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
