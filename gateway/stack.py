"""Where a running stack is found: `<data>/stack.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from fallback.errors import UnavailableError
from fallback.presence import read_json, write_atomic

STACK: Final = "stack.json"
SUPERVISOR: Final = "up"


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


def write(data: Path, stack: Stack) -> None:
    """Write stack.json."""
    write_atomic(data / STACK, msgspec.json.format(msgspec.json.encode(stack), indent=2) + b"\n")


def read(data: Path) -> Stack | None:
    """Read stack.json; None where no stack runs: there is no file, or its supervisor was killed."""
    found = read_json(data / STACK, Stack)
    return found if found is not None and _lives(found.pids.get(SUPERVISOR, 0)) else None


def find(data: Path) -> Stack:
    """Read stack.json; raises UnavailableError that says how to start one."""
    found = read(data)
    if found is None:
        raise UnavailableError(
            f"no stack runs on {data.resolve()}: start one with `demur up`, or give --gateway HOST:PORT"
        )
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
