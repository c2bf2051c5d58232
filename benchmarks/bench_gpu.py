"""`demur bench gpu`: every check and benchmark that needs an NVIDIA GPU, in one run of a few minutes, one object.

The object of `--json` has `gpu` (null where there is none: `cards`, `libraries`), `device`, and for each model
`compared` (with the CPU), `served` (what `demur bench serve --target` finds) and `swaps`; `alone` (ONNX Runtime by
itself, batch by batch, on each provider, FP32 and FP16), `errors` (parts that broke, in their own words), `versions`,
`seconds`, `machine`, `checks` and `ok`. A part that breaks is a check that is not ok; the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check
from benchmarks.gpu import alike, alone, cards, refusals, served, swaps
from benchmarks.serve.models import SHAPES, Name
from gateway.model import TENSORRT, Device, count_gpus

# What automake and others take for "skipped": nothing was found wrong, and nothing was looked at.
NO_GPU_CODE: Final = 77
SECONDS_MAX: Final = 600.0
_NO_GPU: Final = (
    "no NVIDIA GPU, or no driver for it, was found: nothing of this can be shown here; --cpu tries the same code out"
)


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: models, rows to compare, batches of ONNX Runtime alone and seconds for each, what is swapped.

    `behind`: models measured behind a gateway, with options of `demur bench serve --target`.
    """

    names: tuple[Name, ...]
    rows: int
    batches: tuple[int, ...]
    batch_seconds: float
    swapped: tuple[Name, ...]
    swapping: swaps.Size
    behind: tuple[Name, ...]
    serving: tuple[str, ...]


FULL: Final = Size(
    names=tuple(SHAPES),
    rows=512,
    batches=(1, 3, 8, 32, 64, 256),
    batch_seconds=0.4,
    swapped=("tiny", "conv"),
    swapping=swaps.FULL,
    behind=tuple(SHAPES),
    serving=served.FULL,
)
TRIAL: Final = Size(
    names=("tiny", "conv"),
    rows=32,
    batches=(1, 3, 8),
    batch_seconds=0.05,
    swapped=("tiny",),
    swapping=swaps.TRIAL,
    behind=("tiny",),
    serving=served.TRIAL,
)


class Bench:
    """One run: what it found so far, part by part."""

    def __init__(self, folder: Path, device: Device, console: Console) -> None:
        self.folder = folder
        self.device = device
        self.console = console
        self.size = TRIAL if device == "cpu" else FULL
        self.found: dict[str, Any] = {"compared": {}, "alone": [], "swaps": {}, "served": {}, "errors": {}}
        self.checks: list[Check] = []

    def run(self) -> None:
        """Do every part, whatever becomes of the others."""
        self._part("refusals", lambda: refusals.checks(self.folder, self.device))
        for name in self.size.names:
            self._part(f"{name}: the CPU's answers", partial(self._compare, name))
        for name in self.size.names:
            self._part(f"{name}: ONNX Runtime alone", partial(self._alone, name))
        for name in self.size.swapped:
            self._part(f"{name}: hot swaps", partial(self._swap, name))
        for name in self.size.behind:
            self._part(f"{name}: behind a gateway", partial(self._serve, name))

    def _part(self, what: str, work: Callable[[], list[Check]]) -> None:
        self.console.print(Text(what, style="dim"))
        try:
            self.checks += work()
        except Exception as error:  # noqa: BLE001 - a machine with a GPU is rare: one part that breaks leaves the others
            self.found["errors"][what] = f"{type(error).__name__}: {error}"
            self.console.print(Text("".join(traceback.format_exception(error)), style="red"))
            self.checks.append(Check(name=f"{what}: ran to its end", value=0, goal="= 1", ok=False))

    def _compare(self, name: Name) -> list[Check]:
        found = alike.compare(self.folder, name, self.device, count=self.size.rows)
        self.found["compared"][name] = found
        return alike.judge(name, found, self.device)

    def _alone(self, name: Name) -> list[Check]:
        for provider in alone.providers(self.device):
            # TensorRT has its own ways to smaller numbers; what it makes of an FP16 graph is not its best.
            for half in (False, True) if provider != TENSORRT else (False,):
                found = alone.sweep(
                    self.folder,
                    name,
                    provider,
                    self.device,
                    half=half,
                    sizes=self.size.batches,
                    seconds=self.size.batch_seconds,
                )
                self.found["alone"].append(found)
                best = max(found.batches, key=lambda each: each.rows_per_second)
                said = (
                    f"  {provider}, {found.datatype}: {best.rows_per_second:g} rows a second in batches of {best.rows}"
                )
                self.console.print(Text(said, style="dim"))
        return []

    def _swap(self, name: Name) -> list[Check]:
        found = swaps.measure(self.folder, name, self.device, self.size.swapping)
        self.found["swaps"][name] = found
        return swaps.judge(name, found)

    def _serve(self, name: Name) -> list[Check]:
        found, checks = served.measure(self.folder, name, self.device, self.size.serving)
        self.found["served"][name] = found
        return checks


def run(*, as_json: bool, cpu: bool) -> int:
    """Measure and tell; returns 0, 1 where a check is not ok, or NO_GPU_CODE. `cpu`: try the same out on the CPU."""
    console, start = screen.console(stderr=as_json), time.monotonic()
    gpus = 0 if cpu else count_gpus()
    found: dict[str, Any] = {"gpu": None, "device": "cpu" if cpu else "cuda"}
    checks = [] if cpu else [Check(name="a GPU is there", value=gpus, goal=">= 1", ok=gpus > 0)]
    if gpus:
        found["gpu"] = {"count": gpus, "cards": cards.cards()}
    if cpu or gpus:
        with stack.tidily(), stack.place(None) as folder:
            bench = Bench(folder, "cpu" if cpu else "cuda", console)
            bench.run()
        checks += bench.checks
        found |= bench.found
    seconds = time.monotonic() - start
    if gpus:
        checks.append(
            Check(
                name="seconds of the whole run",
                value=round(seconds, 1),
                goal=f"<= {SECONDS_MAX:g}",
                ok=seconds <= SECONDS_MAX,
            )
        )
    found |= {
        "versions": {"demur": metadata.version("demur"), "grpcio": metadata.version("grpcio"), **cards.libraries()},
        "seconds": round(seconds, 1),
        "machine": machine.describe(),
        "checks": checks,
        "ok": all(check.ok for check in checks),
    }
    console.print(Text(f"  {found['machine']}"))
    console.print(screen.check_table(checks))
    if not (cpu or gpus):
        console.print(Text(_NO_GPU, style="bold red"))
    if as_json:
        screen.print_json(found)
    if not (cpu or gpus):
        return NO_GPU_CODE
    return 0 if found["ok"] else 1
