"""The target's processes, where it is on this machine: who listens, with whose help, and for how long they worked."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.machine import cores
from fallback.errors import InvalidError

_PROC: Final = Path("/proc")
_TABLES: Final = ("net/tcp", "net/tcp6")
_LISTEN: Final = "0A"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Programs that listen for a server that is elsewhere, in a container, a pod or behind a tunnel.
_FORWARDERS: Final = frozenset(
    {"docker-proxy", "rootlessport", "pasta", "slirp4netns", "gvproxy", "kubectl", "ssh", "sshd", "socat"}
)


def is_here(host: str) -> bool:
    """Return whether `host` is an address of this machine: one that can be bound."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False


def listening(port: int) -> tuple[int, ...]:
    """Return the processes that listen on `port`; empty where they are somebody else's, or there is no /proc."""
    inodes = {inode for inode, its in _sockets() if its == port}
    return tuple(pid for pid in _pids() if not inodes.isdisjoint(_own(pid)))


def ports(pids: Iterable[int]) -> tuple[int, ...]:
    """Return every port on which one of them listens."""
    own = {inode for pid in pids for inode in _own(pid)}
    return tuple(sorted({port for inode, port in _sockets() if inode in own}))


def family(pids: Iterable[int]) -> tuple[int, ...]:
    """Return the processes and their descendants, each once, parents first."""
    found: dict[int, None] = {}
    left = list(pids)
    while left:
        pid = left.pop(0)
        if pid not in found:
            found[pid] = None
            left += _children(pid)
    return tuple(found)


def forwards(pid: int) -> bool:
    """Return whether the process is known to listen for a server that is another process."""
    return (command(pid).split(" ") or [""])[0].rpartition("/")[2] in _FORWARDERS


def above(pid: int) -> tuple[int, ...]:
    """Return the processes that started it, the nearest first: without the first of all, and none that started us."""
    ours = {os.getpid(), *_ancestors(os.getpid())}
    return tuple(each for each in _ancestors(pid) if each not in ours)


def expect(pid: int) -> None:
    """Raise InvalidError where there is no such process."""
    if not (_PROC / str(pid) / "stat").exists():
        raise InvalidError(f"--pid: expected a process of this machine, got {pid}")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that they have used, their own and the system's for them; ended ones count 0."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


class Worked(NamedTuple):
    """Processor time until a moment, seconds: all of the machine's, and that of server and clients together."""

    at: float
    machine: float
    ours: float


def worked(server: Iterable[int], clients: Iterable[int]) -> Worked | None:
    """Return how long the machine worked until now; None without /proc, or where it has more cores than are ours."""
    try:
        ticks = (_PROC / "stat").read_text(encoding="ascii").split()[1:9]
    except OSError:
        return None
    if cores() < (os.cpu_count() or 1):
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, ticks)
    own = sum(os.times()[:4])
    busy = (user + nice + system + interrupts + soft + stolen) / _TICKS
    return Worked(time.monotonic(), busy, own + cpu_seconds({*server, *clients}))


def others(before: Worked | None, after: Worked | None) -> float | None:
    """Return how many cores somebody else took on average, those of a hypervisor too; None where it cannot be told."""
    if before is None or after is None or after.at <= before.at:
        return None
    spent = after.machine - before.machine - (after.ours - before.ours)
    return round(max(0.0, spent / (after.at - before.at)), 2)


def command(pid: int) -> str:
    """Return the program that a process runs, without its folder; of an interpreter also what that runs."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return " ".join(Path(word).name if word.startswith("/") else word for word in words[:3] if word)


def _pids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for folder in _PROC.iterdir():
            if folder.name.isdecimal():
                yield int(folder.name)


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while True:
        try:
            pid = int((_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            return found
        if pid <= 1:
            return found
        found.append(pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _own(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for file in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                to = str(file.readlink())
                if to.startswith("socket:["):
                    found.add(to.removeprefix("socket:[").removesuffix("]"))
    return found


def _sockets() -> Iterator[tuple[str, int]]:
    """Yield inode and port of each socket that listens."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in (_PROC / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    yield fields[9], int(fields[1].rpartition(":")[2], 16)
