"""`demur bench swap`: fifty hot swaps under open-loop load, with broken versions in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check
from benchmarks.serve import capacity, ground, swapping, windows
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.sending import Sending, Worker, shoot, workers
from benchmarks.serve.windows import Left, Swapped

LOAD_SHARE: Final = 0.6
SETTLED_SWAPS: Final = 5
_SECONDS_MAX: Final = 300.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: swaps and the time between two, how long a rate is tried, failed loads without load."""

    swaps: int
    gap_seconds: float
    trial_seconds: float
    failed_loads: int


FULL: Final = Size(swaps=50, gap_seconds=0.5, trial_seconds=3.0, failed_loads=20)
QUICK: Final = Size(swaps=6, gap_seconds=0.1, trial_seconds=0.3, failed_loads=2)


def run(*, name: Name, transport: str, as_json: bool, quick: bool) -> bool:
    """Measure and tell; returns whether everything is as promised."""
    console, start, size = screen.console(stderr=as_json), time.monotonic(), QUICK if quick else FULL

    def tell(line: str) -> None:
        console.print(Text(f"{name}: {line}", style="dim"))

    with stack.tidily(), stack.place(None) as folder, workers(1) as crew:
        # In a gateway of its own: where it was too much, the memory of what waited stays for a while.
        with ground.gateway(folder, transport=transport) as served:
            swapping.publish(served, name)
            there = capacity.find(crew, swapping.load(served, name, seconds_max=size.trial_seconds), tell=tell)
        with ground.gateway(folder, transport=transport) as served:
            found, left = _measure(served, name, size, crew[0], LOAD_SHARE * there.rate, tell)
    checks = windows.checks(found, left, swaps=size.swaps, wanted=size.swaps)
    got = {
        **msgspec.to_builtins(found),
        "model": name,
        "transport": transport,
        "rate": round(LOAD_SHARE * there.rate, 1),
        "capacity": round(there.rate, 1),
        "capacity_closed_loop": round(there.closed, 1),
        "swaps": size.swaps,
        "failed_loads_left": left._asdict(),
        "quick": quick,
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine.describe(),
        "checks": [msgspec.to_builtins(each) for each in checks],
        "ok": all(each.ok for each in checks),
    }
    _tell(console, found, checks, str(got["machine"]))
    if as_json:
        screen.print_json(got)
    return bool(got["ok"])


def _measure(
    served: Served, name: Name, size: Size, worker: Worker, rate: float, tell: Callable[[str], None]
) -> tuple[Swapped, Left]:
    versions = swapping.publish(served, name)
    given = msgspec.structs.replace(swapping.load(served, name, seconds_max=size.trial_seconds), rate=rate)
    shoot([worker], given)
    tell(f"{size.swaps} swaps at {rate:.0f} a second, open loop")
    load = Sending(msgspec.structs.replace(given, seconds_max=_SECONDS_MAX), worker)
    time.sleep(max(0.0, load.start + 1.0 - time.monotonic()))
    swaps = asyncio.run(
        swapping.swap(served, name, versions, start=load.start, swaps=size.swaps, gap_seconds=size.gap_seconds)
    )
    shots = load.end()
    tell(f"{len(shots.due)} requests were sent; {2 * size.failed_loads} loads of broken versions follow")
    left = asyncio.run(swapping.failed_loads(served, name, versions, count=size.failed_loads))
    return windows.judged(shots, swaps.windows, versions.good, swaps.rss, settled=SETTLED_SWAPS), left


def _tell(console: Console, found: Swapped, checks: list[Check], where: str) -> None:
    said = (
        f"a swap takes {found.window_ms:g} ms, at most {found.window_max_ms:g}; p99 {found.p99_outside_ms:g} outside, "
        f"{found.p99_inside_ms:g} in swaps, {found.p99_failed_loads_ms:g} in failed loads; p50 {found.p50_ms:g}"
    )
    console.print(Text(f"  {said}"))
    console.print(Text(f"  {where}"))
    console.print(screen.check_table(checks))
