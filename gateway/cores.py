"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = _QUOTA) -> int:
    """Return how many, at least 1: those it may be scheduled on, or as many as its control group has time for.

    `quota` is the group's file: microseconds of a period, or "max", and the period
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, min(there, math.ceil(int(granted) / int(period))))
    except (OSError, ValueError):
        return there
