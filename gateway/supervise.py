"""Keeps one child process running: starts it on a leash, waits until it answers, keeps its output, starts it again.

The child is in a process group of its own, so that Ctrl-C in the terminal reaches only the supervisor, which then ends
its children in order. Everything a child prints goes to `<logs>/<name>.log`, which is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fallback.errors import UnavailableError
from gateway import leash

LOG_BYTES_MAX: Final = 8 * 1024 * 1024
TAIL_LINES: Final = 20
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 10.0
_DOUBLINGS_MAX: Final = 30
# A child that ran this long is taken to be well again.
STEADY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
_LAST_WORDS_SECONDS: Final = 2.0
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. `ready(pid)` says, without waiting, whether it answers now."""

    name: str
    argv: Sequence[str]
    ready: Callable[[int], bool]
    start_seconds_max: float = 60.0
    stop_seconds_max: float = 15.0


class Log:
    """A file that is put aside as `<name>.1` when it is full, and its last lines."""

    def __init__(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._bytes_max = bytes_max
        self._file = path.open("ab")
        self._size = self._file.tell()
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Append what a child printed."""
        if self._size + len(chunk) > self._bytes_max:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("ab")
            self._size = 0
        self._file.write(chunk)
        self._file.flush()
        self._size += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_READ_BYTES:]
        self._lines.extend(line.decode(errors="replace") for line in lines)

    def tail(self) -> str:
        """Return the last lines."""
        return "\n".join([*self._lines, self._rest.decode(errors="replace")]).strip()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def restart_seconds(failures: int) -> float:
    """How long to wait before the start that follows `failures` ends in a row, seconds."""
    doublings = min(max(0, failures - 1), _DOUBLINGS_MAX)
    return min(RESTART_SECONDS_MAX, RESTART_SECONDS_MIN * (1 << doublings))


class Child:
    """One command, kept running between `start` and `stop`."""

    def __init__(
        self, command: Command, *, logs: Path, environment: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        self.command = command
        self._environment = environment
        self._tell = tell
        self._log = Log(logs / f"{command.name}.log")
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._stopping = False
        self._started = 0.0

    @property
    def pid(self) -> int:
        """The process id, 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start and wait until it answers; raises UnavailableError with the end of its log."""
        await self._spawn()
        await self._until_ready()

    async def keep(self, *, again: Callable[[], None]) -> None:
        """Start it again whenever it ends, until `stop`; `again` is called each time it answers once more."""
        failures = 0
        while not self._stopping:
            code = await self._ended()
            if self._stopping:
                return
            failures = 1 if time.monotonic() - self._started >= STEADY_SECONDS else failures + 1
            self._tell(f"{self.command.name} ended ({_how(code)}); starting it again")
            await asyncio.sleep(restart_seconds(failures))
            if self._stopping:
                return
            await self._spawn()
            try:
                await self._until_ready()
            except UnavailableError as error:
                self._tell(error.message)
                await self._kill()
                continue
            self._tell(f"{self.command.name} answers again")
            again()

    async def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL once its time is over."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._ended(), self.command.stop_seconds_max)
            except TimeoutError:
                self._tell(f"{self.command.name} did not end within {self.command.stop_seconds_max:g} s; killed")
                await self._kill()
        self._log.close()

    def kill(self) -> None:
        """End it at once, without waiting."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def tail(self) -> str:
        """Return the last lines it printed."""
        return self._log.tail()

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *leashed(self.command.argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment),
            start_new_session=True,
        )
        self._started = time.monotonic()
        self._pump = asyncio.create_task(self._copy(self._process))

    async def _copy(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while chunk := await process.stdout.read(_READ_BYTES):
            self._log.write(chunk)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + self.command.start_seconds_max
        while not (self.pid and self.command.ready(self.pid)):
            if not self.pid:
                code = await self._ended()
                raise UnavailableError(self._told(f"could not start ({_how(code)})"))
            if time.monotonic() > deadline:
                raise UnavailableError(self._told(f"does not answer after {self.command.start_seconds_max:g} s"))
            await asyncio.sleep(_LOOK_SECONDS)

    def _told(self, what: str) -> str:
        tail = self._log.tail()
        lines = f"; the end of {self._log.path}:\n{tail}" if tail else f"; {self._log.path} is empty"
        return f"{self.command.name} {what}{lines}"

    async def _ended(self) -> int:
        assert self._process is not None
        assert self._pump is not None
        code = await self._process.wait()
        # A child of its own may outlive it and hold its output open.
        await asyncio.wait({self._pump}, timeout=_LAST_WORDS_SECONDS)
        return code

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._ended()


def leashed(argv: Sequence[str]) -> list[str]:
    """Return the command line that runs `argv` as a child that ends with this process."""
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "--", *argv]


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
