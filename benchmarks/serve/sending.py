"""Load from processes of its own; what became of each request, as columns."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.sender import Load
from fallback.errors import UnavailableError

# Enough for a process to have started and connected, and for one that has started to have connected.
START_SECONDS: Final = 1.5
READY_SECONDS: Final = 0.25
_END_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """What became of each request; see `sender.Sent`. Of one process they stand in the order in which they were due."""

    due: NDArray[np.float64]
    lag_ms: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    code: NDArray[np.int16]
    retry: NDArray[np.bool_]
    version: NDArray[np.int32]
    run: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Shots:
        """Return the chosen ones."""
        return Shots(**{name: getattr(self, name)[chosen] for name in Shots.__slots__})


class Worker:
    """One process that sends loads, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        argv = [sys.executable, "-m", "benchmarks.serve.sender"]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - this Python, our own module
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stdin: Any = self.process.stdin
        self._stdout: Any = self.process.stdout
        self._count = 0
        self._result = ""

    def begin(self, given: Load) -> None:
        """Have it send a load; raises UnavailableError where the process has ended."""
        self._count += 1
        self._result = str(self._folder / f"result-{self.process.pid}-{self._count}.npz")
        self._say(msgspec.json.encode(msgspec.structs.replace(given, result=self._result)) + b"\n")

    def stop(self) -> None:
        """Have it send no more of the load under way."""
        self._say(b"\n")

    def end(self, seconds: float) -> Shots:
        """Wait for the load's end; raises UnavailableError where it failed, or takes longer than that."""
        late = threading.Timer(seconds, self.process.kill)
        late.start()
        try:
            said = self._stdout.readline().decode()
        finally:
            late.cancel()
        if not said:
            raise UnavailableError(f"the load ended with {self.process.wait()} within {seconds:.0f} s; see above")
        if said.strip():
            raise UnavailableError(said.strip())
        with np.load(self._result) as found:
            shots = Shots(**{name: found[name] for name in Shots.__slots__})
        Path(self._result).unlink()
        return shots

    def _say(self, content: bytes) -> None:
        try:
            self._stdin.write(content)
            self._stdin.flush()
        except BrokenPipeError as error:
            raise UnavailableError(f"the load has ended with {self.process.wait()}; see above") from error

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stdout.close()


class Sending:
    """A load under way from one process, from `start` (time.monotonic()) on."""

    def __init__(self, given: Load, worker: Worker) -> None:
        self._worker = worker
        self.start = time.monotonic() + START_SECONDS
        worker.begin(msgspec.structs.replace(given, start=self.start))

    def end(self) -> Shots:
        """Have it send no more; returns what became of all. Raises UnavailableError where it failed."""
        self._worker.stop()
        return self._worker.end(_END_SECONDS)


@contextlib.contextmanager
def sending(given: Load) -> Iterator[Sending]:
    """Send from `Sending.start` on, a moment from now; the process ends with the block."""
    with workers(1) as (worker,):
        yield Sending(given, worker)


@contextlib.contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    """Yield so many processes, which end with the block."""
    with tempfile.TemporaryDirectory(prefix="demur-") as folder, contextlib.ExitStack() as held:
        made: list[Worker] = []
        for _ in range(count):
            made.append(Worker(Path(folder)))
            held.callback(made[-1].kill)
        yield made


def shoot(crew: Sequence[Worker], given: Load, *, wait_seconds: float = READY_SECONDS) -> Shots:
    """Send one load from several processes, each its share; returns what became of all of it, process by process.

    Raises UnavailableError where one fails.
    """
    start = time.monotonic() + wait_seconds
    parts = shares(msgspec.structs.replace(given, start=start), len(crew))
    for worker, part in zip(crew, parts, strict=False):
        worker.begin(part)
    seconds = wait_seconds + given.seconds_max + given.late_seconds + _END_SECONDS
    found = [worker.end(seconds) for worker, _ in zip(crew, parts, strict=False)]
    return Shots(**{name: np.concatenate([getattr(each, name) for each in found]) for name in Shots.__slots__})


def shares(given: Load, count: int) -> list[Load]:
    """Return what each of at most `count` processes sends of a load: no process without a caller, none a whole rate."""
    if given.callers:
        count = min(count, given.callers)
        parts = [given.callers // count + (number < given.callers % count) for number in range(count)]
    else:
        parts = [0] * count
    return [
        msgspec.structs.replace(
            given,
            rate=given.rate / count,
            callers=part,
            connections=min(given.connections, part or given.connections),
            seed=given.seed * count + number,
        )
        for number, part in enumerate(parts)
    ]
