"""The GPUs of this machine and the libraries beside them: what the figures of a run were measured on."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from typing import Final

import msgspec

_FIELDS: Final = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.used", "power.limit")
_LIBRARIES: Final = ("onnxruntime", "nvidia-", "tensorrt")
_SECONDS_MAX: Final = 20.0


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as nvidia-smi tells of it; None for what the card does not say."""

    index: int
    name: str
    driver: str
    compute_capability: str
    memory_mib: float
    memory_used_mib: float
    power_limit_w: float | None


def cards() -> tuple[Card, ...]:
    """Return the GPUs that nvidia-smi lists; none where it is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    argv = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(  # noqa: S603 - a fixed program
            argv, capture_output=True, text=True, check=False, timeout=_SECONDS_MAX
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(card for card in map(read, ran.stdout.splitlines()) if card is not None)


def read(line: str) -> Card | None:
    """Read one line of nvidia-smi; None for one that lists no GPU."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_FIELDS) or not words[0].isdecimal():
        return None
    index, name, driver, capability, total, used, power = words
    return Card(
        index=int(index),
        name=name,
        driver=driver,
        compute_capability=capability,
        memory_mib=_number(total) or 0.0,
        memory_used_mib=_number(used) or 0.0,
        power_limit_w=_number(power),
    )


def used_mib() -> float | None:
    """Return the memory in use on all GPUs together, by whatever process; None where nothing tells."""
    found = cards()
    return sum(card.memory_used_mib for card in found) if found else None


def libraries() -> dict[str, str]:
    """Return the installed packages that models run with on a GPU, with their versions."""
    found = ((dist.name.lower(), dist.version) for dist in metadata.distributions())
    return dict(sorted((name, version) for name, version in found if name.startswith(_LIBRARIES)))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
