"""Load from a process of its own that goes on until it is ended; what became of each request, as columns."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.sender import Load
from fallback.errors import UnavailableError

# Enough for the process to have started and connected.
START_SECONDS: Final = 1.5
_END_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """What became of each request, in the order in which they were due; see `sender.Sent`."""

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


class Sending:
    """A load under way."""

    def __init__(self, given: Load, folder: Path) -> None:
        self.start = time.monotonic() + START_SECONDS
        self._result = folder / "result.npz"
        path = folder / "given"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(given, start=self.start)))
        argv = [sys.executable, "-m", "benchmarks.serve.sender", str(path), str(self._result)]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(argv, stdin=subprocess.PIPE)  # noqa: S603 - this Python, our own module

    def end(self) -> Shots:
        """Have it send no more; returns what became of all. Raises UnavailableError where it failed."""
        self._close()
        return self.wait(_END_SECONDS)

    def wait(self, seconds: float) -> Shots:
        """Wait for its end; raises UnavailableError where it failed, or takes longer."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"the load did not end within {seconds:.0f} s") from error
        if code:
            raise UnavailableError(f"the load ended with code {code}; what it said stands above")
        with np.load(self._result) as found:
            return Shots(**{name: found[name] for name in Shots.__slots__})

    def _close(self) -> None:
        stdin: Any = self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            stdin.close()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def sending(given: Load) -> Iterator[Sending]:
    """Send from `Sending.start` on (time.monotonic()), a moment from now; the process ends with the block."""
    with tempfile.TemporaryDirectory(prefix="demur-") as folder:
        load = Sending(given, Path(folder))
        try:
            yield load
        finally:
            load.kill()
