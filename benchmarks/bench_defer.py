"""`demur bench defer`: what parking and audits take from answered traffic, and how much longer who is parked waits.

The object of `--json` has, for each model, `cpu_us` and `valkey_us` (processor time a call of the gateway and of the
queue's server, plain and deferring; until everything is parked), `row_us` (what a row that goes to people takes of
the gateway besides), `parked` (rows parked or audited), `closed_p50_ms` and `closed_p99_ms` of the callers,
`behind_seconds` (how long after the last answer the last row was parked), and at a low rate `answered_p50_ms`,
`parked_p50_ms`, `parked_p99_ms`, `bare_p50_ms`. Beside them stand `figures`, `share` (parked, and audited),
`callers`, `quick`, `seconds`, `machine`, `checks` and `ok`.
"""

from __future__ import annotations

import time

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.figures import Check, Figure
from benchmarks.serve import closed, deferred
from benchmarks.serve.deferred import FULL, QUICK, Measured
from benchmarks.serve.models import Name


def run(*, names: tuple[Name, ...], as_json: bool, quick: bool) -> bool:
    """Measure and tell; returns whether everything is as promised."""
    closed.expect()
    console, start, size = screen.console(stderr=as_json), time.monotonic(), QUICK if quick else FULL

    def tell(line: str) -> None:
        console.print(Text(line, style="dim"))

    with stack.tidily(), stack.place(None) as folder:
        found = [deferred.measure(folder, name, size, tell) for name in names]
    got = summary(found, quick=quick, seconds=time.monotonic() - start)
    _tell(console, found, str(got["machine"]))
    if as_json:
        screen.print_json(got)
    return bool(got["ok"])


def summary(found: list[Measured], *, quick: bool, seconds: float) -> dict[str, object]:
    """Return the object that `--json` prints."""
    figures: list[Figure] = [figure for each in found for figure in deferred.figures(each)]
    checks: list[Check] = [one for each in found for one in deferred.checks(each)]
    return {
        **{each.name: deferred.told(each) for each in found},
        "figures": [msgspec.to_builtins(each) for each in figures],
        "share": deferred.SHARE,
        "callers": closed.CONNECTIONS * closed.STREAMS,
        "quick": quick,
        "seconds": round(seconds, 1),
        "machine": machine.describe(),
        "checks": [msgspec.to_builtins(each) for each in checks],
        "ok": all(each.ok for each in checks),
    }


def _tell(console: Console, found: list[Measured], where: str) -> None:
    checks: list[Check] = []
    for each in found:
        checks += deferred.checks(each)
        screen.tell_figures(console, deferred.figures(each))
        console.print(Text(f"  {each.name}: a row for people takes {deferred.told(each)['row_us']} microseconds"))
    console.print(Text(f"  {where}"))
    console.print(screen.check_table(checks))
