"""`demur bench queue`: what the promises cost, in ratios to bare commands on the same server in the same run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check, Figure, check, check_most, percentile
from benchmarks.queue import measures, told
from benchmarks.queue.ground import FULL, QUICK, Ground, ground

T = TypeVar("T")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run found."""

    figures: list[Figure]
    item_bytes: float
    reap_seconds: float
    callbacks_ms: list[float]
    server: str


def run(*, as_json: bool, quick: bool) -> bool:
    """Measure and tell; returns whether everything is as promised."""
    console = screen.console(stderr=as_json)
    start, size = time.monotonic(), QUICK if quick else FULL
    with stack.tidily(), stack.place(None) as folder:
        found = asyncio.run(_measure(folder, quick=quick, console=console))
    facts: dict[str, object] = {
        "quick": quick,
        "rounds": size.rounds,
        "lapsed": size.lapsing,
        "outcomes_rate": size.outcomes_rate,
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine.describe(),
    }
    got = summary(found, facts)
    _tell(console, got, found)
    if as_json:
        screen.print_json(got)
    return bool(got["ok"])


def judge(found: Found) -> list[Check]:
    """Return every promise beside what was found."""
    return [
        *(check(figure) for figure in found.figures),
        check_most("memory of a waiting item beside its payload, bytes", found.item_bytes, measures.BESIDE_BYTES_MAX),
    ]


def summary(found: Found, facts: dict[str, object]) -> dict[str, object]:
    """Return the object that `--json` prints; `facts` go in as they are."""
    checks = judge(found)
    return {
        "figures": [msgspec.to_builtins(figure) for figure in found.figures],
        "item_bytes": round(found.item_bytes, 1),
        "reap_seconds": round(found.reap_seconds, 2),
        "callback_p50_ms": round(percentile(found.callbacks_ms, 0.50), 2),
        "callback_p99_ms": round(percentile(found.callbacks_ms, 0.99), 2),
        "callbacks": len(found.callbacks_ms),
        "server": found.server,
        **facts,
        "checks": [msgspec.to_builtins(each) for each in checks],
        "ok": all(each.ok for each in checks),
    }


async def _measure(folder: Path, *, quick: bool, console: Console) -> Found:
    def tell(line: str) -> None:
        console.print(Text(line, style="dim"))

    async with ground(folder, QUICK if quick else FULL, tell) as here:
        # Memory and the ratios first: a server that holds a million items answers a little later.
        item_bytes = await _told(here, "memory of waiting items", measures.remembered(here))
        figures = [
            await _told(here, "park", measures.parked(here)),
            await _told(here, "lease, submit, settle", measures.reviewed(here)),
            await _told(here, "lease behind what a reviewer may not have", measures.excluded(here)),
        ]
        callbacks_ms = await _told(here, "callbacks", told.told(here))
        reaping, reap_seconds = await _told(here, "lapsed leases", measures.reaped(here))
        depth = await _told(here, "a deep queue", measures.deep(here))
        return Found(
            figures=[*figures, depth, reaping],
            item_bytes=item_bytes,
            reap_seconds=reap_seconds,
            callbacks_ms=callbacks_ms,
            server=await here.bare.version(),
        )


async def _told(here: Ground, what: str, call: Awaitable[T]) -> T:
    here.tell(f"measuring: {what}")
    return await call


def _tell(console: Console, got: dict[str, object], found: Found) -> None:
    screen.tell_figures(console, found.figures, end=f" in {got['rounds']} rounds")
    lines = [
        f"reaping {got['lapsed']} lapsed leases: {got['reap_seconds']} s",
        f"{got['callbacks']} callbacks: p50 {got['callback_p50_ms']}, p99 {got['callback_p99_ms']} ms",
        f"{got['server']}; {got['machine']}; {got['seconds']} s in all",
    ]
    for line in lines:
        console.print(Text(f"  {line}"))
    console.print(screen.check_table(judge(found)))
