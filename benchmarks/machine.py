"""What a figure was measured on: no figure without its machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_GIB = 1024**3


def cores() -> float:
    """Return how many processors this process may use: the affinity mask, or the control group's quota if smaller."""
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return usable
    return usable if quota == "max" else min(usable, int(quota) / int(period))


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe() -> str:
    """Return the machine in one line: cores, processor, memory, system, Python."""
    count = cores()
    number = f"{count:g} core{'' if count == 1 else 's'}"
    try:
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.0f} GiB"
    except (OSError, ValueError):
        memory = "memory unknown"
    return (
        f"{number} of {processor()}, {memory}, {platform.system()} {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}"
    )
