"""What the GPUs of this machine did while a load ran, as nvidia-smi tells it; nothing where there is none."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, Final, NamedTuple

from benchmarks.serve.results import Gpu

_FIELDS: Final = ("index", "name", "utilization.gpu", "memory.used", "power.draw")
_PERIOD_MS: Final = 200


class Sample(NamedTuple):
    """One GPU at one moment (time.monotonic()): percent, MiB, watts or None where the card does not say."""

    at: float
    card: int
    name: str
    utilisation: float
    memory_mib: float
    power_w: float | None


def sample(line: str, at: float) -> Sample | None:
    """Read a line of nvidia-smi; None for one that tells nothing of use."""
    words = [word.strip() for word in line.split(",")]
    try:
        index, name, utilisation, memory, power = words
        watts = None if "N/A" in power else float(power)
        return Sample(at, int(index), name, float(utilisation), float(memory), watts)
    except ValueError:
        return None


def summed(samples: Sequence[Sample]) -> tuple[Gpu, ...]:
    """Return the figures of each GPU, by index."""
    found = []
    for index in sorted({each.card for each in samples}):
        own = [each for each in samples if each.card == index]
        watts = [each.power_w for each in own if each.power_w is not None]
        found.append(
            Gpu(
                index=index,
                name=own[0].name,
                samples=len(own),
                utilisation_mean=round(fmean(each.utilisation for each in own), 1),
                utilisation_max=max(each.utilisation for each in own),
                memory_mib_max=max(each.memory_mib for each in own),
                power_w_mean=round(fmean(watts), 1) if watts else None,
            )
        )
    return tuple(found)


class Watch:
    """Keeps what is sampled while it lasts."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []

    def between(self, begin: float, end: float) -> tuple[Gpu, ...]:
        """Return the figures of the time between two moments."""
        return summed([each for each in self._samples if begin <= each.at <= end])

    def keep(self, lines: Any) -> None:
        """Keep every line until there are no more."""
        for line in lines:
            found = sample(line, time.monotonic())
            if found is not None:
                self._samples.append(found)


@contextlib.contextmanager
def watching(*, wanted: bool) -> Iterator[Watch]:
    """Sample until the block ends; without nvidia-smi, or if it is not wanted, there is nothing to see."""
    watch, program = Watch(), shutil.which("nvidia-smi")
    if program is None or not wanted:
        yield watch
        return
    argv = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits", f"--loop-ms={_PERIOD_MS}"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - a fixed program
    reader = threading.Thread(target=watch.keep, args=(child.stdout,), daemon=True)
    reader.start()
    try:
        yield watch
    finally:
        child.kill()
        child.wait()
        reader.join()
        if child.stdout is not None:
            child.stdout.close()
