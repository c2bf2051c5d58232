"""`demur bench overload`: twice as many requests as can be answered, and what becomes of each."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check
from benchmarks.serve import closed, ground, measures, models, overloads
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.overloads import Course, Overload
from benchmarks.serve.sender import METHOD, Load
from benchmarks.serve.sending import START_SECONDS, sending
from benchmarks.serve.swapping import rss_bytes

MODELS: Final[tuple[Name, ...]] = ("conv", "tiny")
CALM_SHARE: Final = 0.2
STORM_SHARE: Final = 1.8
# What may wait for conv is worth about a tenth of a second; tiny is quicker than refusals, and shed by streams.
QUEUE_ROWS: Final = 64
CONNECTION_CALLS: Final = 32
_CONNECTIONS: Final = 4
_SECONDS_MAX: Final = 120.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: seconds before the storm, of it and after it; calls to find the capacity."""

    calm_seconds: float
    storm_seconds: float
    capacity_calls: dict[Name, int]


FULL: Final = Size(calm_seconds=6.0, storm_seconds=10.0, capacity_calls={"tiny": 60_000, "mid": 40_000, "conv": 3_000})
QUICK: Final = Size(calm_seconds=1.5, storm_seconds=2.0, capacity_calls={"tiny": 3_000, "mid": 2_000, "conv": 200})


def run(*, names: tuple[Name, ...], as_json: bool, quick: bool) -> bool:
    """Measure and tell; returns whether everything is as promised."""
    closed.expect()
    console, start, size = screen.console(stderr=as_json), time.monotonic(), QUICK if quick else FULL
    found: dict[str, Overload] = {}
    checks: list[Check] = []
    with stack.tidily(), stack.place(None) as folder:
        for name in names:
            found[name] = _measure(folder, name, size, console)
            checks += overloads.checks(name, found[name])
    got = {
        **{name: msgspec.to_builtins(each) for name, each in found.items()},
        "queue_rows_max": QUEUE_ROWS,
        "connection_calls_max": CONNECTION_CALLS,
        "connections": 2 * _CONNECTIONS,
        "quick": quick,
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine.describe(),
        "checks": [msgspec.to_builtins(each) for each in checks],
        "ok": all(each.ok for each in checks),
    }
    for model, each in found.items():
        console.print(Text(f"  {model}: {_said(each)}"))
    console.print(Text(f"  {got['machine']}"))
    console.print(screen.check_table(checks))
    if as_json:
        screen.print_json(got)
    return bool(got["ok"])


def _measure(folder: Path, name: Name, size: Size, console: Console) -> Overload:
    limit = f"queue_rows_max = {QUEUE_ROWS}" if name == "conv" else f"connection_calls_max = {CONNECTION_CALLS}"
    with ground.gateway(folder, transport="cq", settings=[limit]) as served:
        ground.published(served.address, name)
        payload, calls = measures.asked(name), size.capacity_calls[name]
        closed.saturate(served.address, METHOD, payload, calls=calls // 5)
        capacity = closed.saturate(served.address, METHOD, payload, calls=calls).rate
        said = f"{name}: capacity {capacity:.0f} calls a second; {size.storm_seconds:g} s of twice as many follow"
        console.print(Text(said, style="dim"))
        course = _course(served, payload, capacity, size)
    rows = QUEUE_ROWS if name == "conv" else 2 * _CONNECTIONS * CONNECTION_CALLS
    # A batch on each core besides.
    rows += int(machine.cores()) * models.SHAPES[name].rows_max
    return overloads.judged(course, capacity=capacity, rows_wait_max=rows)


def _course(served: Served, payload: bytes, capacity: float, size: Size) -> Course:
    def load(share: float, seed: int) -> Load:
        return Load(
            address=served.address,
            payload=payload,
            start=0.0,
            rate=share * capacity,
            seconds_max=_SECONDS_MAX,
            seed=seed,
            connections=_CONNECTIONS,
        )

    with sending(load(CALM_SHARE, 1)) as calm:
        _until(calm.start + size.calm_seconds - START_SECONDS)
        first = rss_bytes(served.pid)
        with sending(load(STORM_SHARE, 2)) as storm:
            begin = storm.start - calm.start
            _until(storm.start + overloads.SETTLE_SECONDS)
            second = rss_bytes(served.pid)
            _until(storm.start + size.storm_seconds)
            third, end = rss_bytes(served.pid), time.monotonic() - calm.start
            storms = storm.end()
        _until(calm.start + end + size.calm_seconds)
        calms = calm.end()
    storms = dataclasses.replace(storms, due=storms.due + begin)
    return Course(calms, storms, begin, end, (first, second, third))


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _said(found: Overload) -> str:
    return (
        f"{found.offered:g} a second came, {found.goodput:g} were answered, {found.goodput_share:.0%} of the peak; "
        f"p50 {found.accepted_p50_ms:g} ms, p99 {found.accepted_p99_ms:g} of {found.allowed_p99_ms:g}; "
        f"{found.refused} refused, p99 {found.refused_p99_ms:g} ms; {found.shed} shed; "
        f"p99 {found.p99_before_ms:g} ms before, {found.p99_after_ms:g} after"
    )
