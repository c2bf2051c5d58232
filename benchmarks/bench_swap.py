"""`demur bench swap`: fifty hot swaps under open-loop load, with broken versions in between."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, stack
from benchmarks.demo import report
from benchmarks.demo.counts import Check
from benchmarks.serve import closed, ground, measures, models, swapping, windows
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.sender import METHOD, Load
from benchmarks.serve.sending import sending
from benchmarks.serve.windows import Left, Swapped

LOAD_SHARE: Final = 0.6
SETTLED_SWAPS: Final = 5
_FLOAT_BYTES: Final = 4
_SECONDS_MAX: Final = 300.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: swaps and the time between two, calls to find the capacity, failed loads without load."""

    swaps: int
    gap_seconds: float
    capacity_calls: dict[Name, int]
    failed_loads: int


FULL: Final = Size(
    swaps=50, gap_seconds=0.5, capacity_calls={"tiny": 60_000, "mid": 40_000, "conv": 2_500}, failed_loads=20
)
QUICK: Final = Size(swaps=6, gap_seconds=0.1, capacity_calls={"tiny": 3_000, "mid": 2_000, "conv": 200}, failed_loads=2)


def run(*, name: Name, transport: str, as_json: bool, quick: bool) -> bool:
    """Measure and tell; returns whether everything is as promised."""
    closed.expect()
    console, start, size = report.console(stderr=as_json), time.monotonic(), QUICK if quick else FULL
    with stack.tidily(), stack.place(None) as folder, ground.gateway(folder, transport=transport) as served:
        found, left, rate = _measure(served, name, size, console)
    checks = windows.checks(found, left, swaps=size.swaps, wanted=size.swaps)
    got = {
        **msgspec.to_builtins(found),
        "model": name,
        "transport": transport,
        "rate": round(rate, 1),
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
        print(msgspec.json.encode(got).decode(), flush=True)  # noqa: T201 - the command's output
    return bool(got["ok"])


def _measure(served: Served, name: Name, size: Size, console: Console) -> tuple[Swapped, Left, float]:
    def tell(line: str) -> None:
        console.print(Text(line, style="dim"))

    versions, payload = swapping.publish(served, name), measures.asked(name)
    calls = size.capacity_calls[name]
    closed.saturate(served.address, METHOD, payload, calls=calls // 5)
    capacity = closed.saturate(served.address, METHOD, payload, calls=calls).rate
    rate = LOAD_SHARE * capacity
    tell(f"{name}: capacity {capacity:.0f} calls a second; {size.swaps} swaps at {rate:.0f} a second, open loop")
    row_bytes = _FLOAT_BYTES * models.rows(name, 1).size
    given = Load(
        address=served.address,
        payload=payload,
        start=0.0,
        rate=rate,
        seconds_max=_SECONDS_MAX,
        stamp_at=len(payload) - row_bytes,
    )
    with sending(given) as load:
        time.sleep(max(0.0, load.start + 1.0 - time.monotonic()))
        swaps = asyncio.run(
            swapping.swap(served, name, versions, start=load.start, swaps=size.swaps, gap_seconds=size.gap_seconds)
        )
        shots = load.end()
    tell(f"{len(shots.due)} requests were sent; {2 * size.failed_loads} loads of broken versions follow")
    left = asyncio.run(swapping.failed_loads(served, name, versions, count=size.failed_loads))
    return windows.judged(shots, swaps.windows, versions.good, swaps.rss, settled=SETTLED_SWAPS), left, rate


def _tell(console: Console, found: Swapped, checks: list[Check], where: str) -> None:
    said = (
        f"a swap takes {found.window_ms:g} ms, at most {found.window_max_ms:g}; p99 {found.p99_outside_ms:g} outside, "
        f"{found.p99_inside_ms:g} in swaps, {found.p99_failed_loads_ms:g} in failed loads; p50 {found.p50_ms:g}"
    )
    console.print(Text(f"  {said}"))
    console.print(Text(f"  {where}"))
    console.print(report.check_table(checks))
