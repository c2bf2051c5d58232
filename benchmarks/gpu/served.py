"""Each model behind a gateway on the GPU, measured as any KServe server is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.figures import Check
from benchmarks.serve import own
from benchmarks.serve.models import Name
from benchmarks.serve.results import Result
from gateway.model import CPU, Device

# Options of `demur bench serve --target`.
FULL: Final = ("--callers", "256", "--seconds", "1", "--bound", "10")
TRIAL: Final = ("--quick", "--scenario", "single-stream", "--seconds", "0.3", "--processes", "1")


def measure(folder: Path, name: Name, device: Device, options: Sequence[str]) -> tuple[dict[str, Any], list[Check]]:
    """Measure one model; returns the object that was printed, and what has to hold whatever the figures are."""
    found, provider = own.measured(folder, name, options, settings=(f'device = "{device}"',))
    return found, judge(name, msgspec.convert(found, Result), provider, device)


def judge(name: Name, found: Result, provider: str, device: Device) -> list[Check]:
    """Return whether the gateway's model ran where it was to, and answered."""
    there = bool(provider) and (provider == CPU) == (device == "cpu")
    failed = [check for check in found.checks if check.name == "failed requests"]
    where = "the CPU" if device == "cpu" else "a GPU's provider"
    return [
        Check(name=f"{name}, served: the gateway runs it on {where}", value=float(there), goal="= 1", ok=there),
        *(msgspec.structs.replace(check, name=f"{name}, served: {check.name}") for check in failed),
    ]
