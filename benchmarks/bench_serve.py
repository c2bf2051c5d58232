"""`demur bench serve`: the gateway on each transport against its limits on this machine, in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check, Figure
from benchmarks.serve import closed, measures, paced
from benchmarks.serve.measures import FULL, QUICK, Measured
from benchmarks.serve.models import SHAPES, Name
from benchmarks.serve.report import writing
from fallback.errors import InvalidError


def named(wanted: Sequence[str] | None) -> tuple[Name, ...]:
    """Return the models to measure; raises InvalidError for one that is none of them."""
    for name in wanted or ():
        if name not in SHAPES:
            raise InvalidError(f"--model: expected some of {', '.join(SHAPES)}, got {name!r}")
    return tuple(name for name in SHAPES if not wanted or name in wanted)


def run(*, names: tuple[Name, ...], as_json: bool, quick: bool, html: Path | None = None) -> bool:
    """Measure and tell; returns whether everything is as promised. `html`: where its report goes."""
    # Before anything is started that would be measured in vain.
    closed.expect()
    console, start, size = screen.console(stderr=as_json), time.monotonic(), QUICK if quick else FULL

    def tell(line: str) -> None:
        console.print(Text(line, style="dim"))

    found: list[Measured] = []
    open_loops: dict[str, object] = {}
    checks: list[Check] = []
    with stack.tidily(), stack.place(None) as folder:
        for name in names:
            tell(f"{name}: echoes, gateways on both transports, ONNX Runtime alone")
            found.append(measures.throughput(folder, name, size, tell))
        figures = [each for model in found for each in measures.figures(model)]
        checks += measures.checks(figures)
        if "tiny" in names:
            tell("open loops: one caller at half load, then 1,000 a second")
            lone, at_1000 = paced.lone(folder, size), paced.poisson(folder, size)
            checks += paced.judge(lone, at_1000)
            open_loops = paced.facts(lone, at_1000)
    failed = sum(map(measures.failed, found))
    checks.append(Check(name="failed calls of the closed loops", value=failed, goal="= 0", ok=failed == 0))
    got = summary(found, figures, checks, open_loops, quick=quick, seconds=time.monotonic() - start)
    _tell(console, figures, found, checks, str(got["machine"]))
    writing.report(html, msgspec.to_builtins(got))
    if as_json:
        screen.print_json(got)
    return bool(got["ok"])


def summary(
    found: list[Measured],
    figures: list[Figure],
    checks: list[Check],
    open_loops: dict[str, object],
    *,
    quick: bool,
    seconds: float,
) -> dict[str, object]:
    """Return the object that `--json` prints."""
    return {
        "figures": [msgspec.to_builtins(each) for each in figures],
        "rates": {each.name: msgspec.to_builtins(measures.rates(each)) for each in found},
        "cpu_us": {each.name: msgspec.to_builtins(measures.cpu(each)) for each in found},
        "closed_ms": {each.name: measures.latencies(each) for each in found},
        "alone": {each.name: each.alone[0][0] for each in found},
        "open": msgspec.to_builtins(open_loops),
        "callers": 32,
        "quick": quick,
        "seconds": round(seconds, 1),
        "grpcio": metadata.version("grpcio"),
        "machine": machine.describe(),
        "checks": [msgspec.to_builtins(each) for each in checks],
        "ok": all(each.ok for each in checks),
    }


def _tell(console: Console, figures: list[Figure], found: list[Measured], checks: list[Check], where: str) -> None:
    screen.tell_figures(console, figures)
    for model in found:
        used = ", ".join(f"{side} {spread.median:g}" for side, spread in measures.cpu(model).items())
        console.print(Text(f"  {model.name}: the server's processor time a call, microseconds: {used}"))
    console.print(Text(f"  {where}"))
    console.print(screen.check_table(checks))
