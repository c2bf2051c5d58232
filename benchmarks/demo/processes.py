"""The demo's processes as the orchestrator holds them: started, given orders, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from benchmarks.demo.journal import tail
from benchmarks.demo.worker import Order, Specification, write_specification
from fallback.errors import DemurError

END_SECONDS = 10.0
LOG_CHARS_MAX = 2_000


class ProcessDiedError(DemurError):
    """A process of the demo ended on its own before it was told to."""


def tail_of(path: Path) -> str:
    """Return the end of a log, at most LOG_CHARS_MAX characters."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARS_MAX:].strip()
    except FileNotFoundError:
        return ""


class Process:
    """One process of the demo."""

    def __init__(self, role: str, specification: Specification, *, env: Mapping[str, str]) -> None:
        self._finishing = False
        folder = specification.journal.parent
        folder.mkdir(parents=True, exist_ok=True)
        self.role = role
        self.name = specification.name
        self.journal = tail(specification.journal)
        self._log = folder / f"{specification.name}.log"
        path = folder / f"{specification.name}.json"
        write_specification(path, specification)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - this Python, one of our own modules
                [sys.executable, "-m", f"benchmarks.demo.{role}", str(path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(env),
            )

    @property
    def ended(self) -> bool:
        """Whether it has ended as it was told to; raises ProcessDiedError if it ended in any other way."""
        code = self._child.poll()
        if code or (code == 0 and not self._finishing):
            raise ProcessDiedError(
                f"the demo's {self.name} ended with code {code}; the end of its log:\n{tail_of(self._log)}"
            )
        return code == 0

    def order(self, order: Order) -> None:
        """Say what to do from now on; nothing if it has ended."""
        self._finishing = self._finishing or order.finish
        pipe: IO[bytes] | None = self._child.stdin
        assert pipe is not None, "started with a pipe"
        try:
            pipe.write(msgspec.json.encode(order) + b"\n")
            pipe.flush()
        except BrokenPipeError:
            return

    def end(self) -> None:
        """Close its orders, which ends it; kill it if it does not."""
        self._finishing = True
        pipe = self._child.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Crew:
    """All processes of one run; leaving the with block ends every one of them."""

    def __init__(self, *, env: Mapping[str, str] = os.environ) -> None:
        self._env = dict(env)
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self.processes):
            process.end()

    def start(self, role: str, specification: Specification) -> Process:
        """Start one more process."""
        process = Process(role, specification, env=self._env)
        self.processes.append(process)
        return process

    def of(self, role: str) -> list[Process]:
        """Return the processes of one role."""
        return [process for process in self.processes if process.role == role]
