"""What `demur bench serve` without a target found, as sections of a report: ratios within one run, with spreads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from benchmarks.figures import Check, Figure, Spread
from benchmarks.serve.report import plots
from benchmarks.serve.report.page import Card, Page, Row, Section, Table, number
from benchmarks.serve.report.plots import Line, Ratio

_SIDES: Final = {"echo cq": "echo on cq", "cq": "gateway on cq", "echo aio": "echo on aio", "aio": "gateway on aio"}
_CLOSED: Final = ((50.0, "p50_ms"), (99.0, "p99_ms"), (99.9, "p999_ms"))
_OPEN: Final = ((50.0, "p50_ms"), (90.0, "p90_ms"), (99.0, "p99_ms"), (99.9, "p999_ms"))


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """The object that the command prints; see `bench_serve.summary`."""

    figures: tuple[Figure, ...]
    cpu_us: dict[str, dict[str, Spread]]
    closed_ms: dict[str, dict[str, dict[str, float]]]
    # Calls a second, by model and side. Runs of before it was told have none.
    rates: dict[str, dict[str, Spread]] = {}
    alone: dict[str, str]
    # By what was sent: percentiles with their spread, and the rounds.
    open: dict[str, Any]
    callers: int
    quick: bool
    seconds: float
    grpcio: str
    machine: str
    checks: tuple[Check, ...]
    ok: bool


def page(found: Promised, *, facts: Sequence[tuple[str, str]]) -> Page:
    """Return the page of a run; `facts` are what its object does not say: command, versions."""
    run = f"{'a quick' if found.quick else 'one'} run of {found.seconds:g} s"
    return Page(
        title="The gateway on each transport",
        lead=f"Against raw echoes and ONNX Runtime alone, in {run}",
        ok=found.ok,
        cards=cards(found),
        sections=sections(found),
        notes=(),
        facts=[("machine", found.machine), ("grpcio", found.grpcio), *facts],
        checks=found.checks,
    )


def cards(found: Promised) -> list[Card]:
    """Return what each model reaches on `cq`, with the processor time beside it."""
    made = []
    for model, sides in found.rates.items():
        if "cq" in sides:
            rate, cpu = sides["cq"], found.cpu_us[model]["cq"].median
            what = f"calls a second, {model} on cq"
            made.append(Card(number(rate.median), what, f"server: {number(cpu)} µs of processor a call"))
    return made


def sections(found: Promised) -> list[Section]:
    """Return all there is to show."""
    return [_ratios(found), *_rates(found), *_closed(found), *_open(found.open)]


def _ratios(found: Promised) -> Section:
    title = "Each promise as a part of its goal: medians, and the least and most of the rounds"
    drawn = plots.ratios("ratios", title, [_part(figure) for figure in found.figures])
    rows = [
        Row(
            (
                figure.name,
                figure.unit,
                *(_spread(side) for side in (figure.ours, figure.other, figure.ratio)),
                f"{'>=' if figure.at_least else '<='} {figure.limit:g}",
            )
        )
        for figure in found.figures
    ]
    lead = f"Both sides of a ratio run in turns, in rounds; {found.callers} callers, closed loop."
    head = ("what", "unit", "ours", "the other", "ratio", "goal")
    return Section("Ratios", lead, [drawn] if found.figures else [], [Table("Medians, and least to most.", head, rows)])


def _part(figure: Figure) -> Ratio:
    """Return a figure as a part of its goal: what should be small is turned over."""
    ratio, goal = figure.ratio, figure.limit
    parts = [value / goal if figure.at_least else goal / value for value in (ratio.median, ratio.low, ratio.high)]
    sign = "≥" if figure.at_least else "≤"
    name = figure.name if len(figure.name) <= _NAME_MAX else f"{figure.name[: _NAME_MAX - 3]}..."
    return Ratio(name, parts[0], min(parts[1:]), max(parts[1:]), f"{number(ratio.median, 3)} (goal {sign} {goal:g})")


_NAME_MAX: Final = 48
_FAR: Final = 3.0


def _rates(found: Promised) -> list[Section]:
    bars, rows = [], []
    for model, sides in found.rates.items():
        for side, rate in sides.items():
            cpu = found.cpu_us.get(model, {}).get(side)
            label = f"{model}: {_SIDES.get(side, side)}"
            used = "" if cpu is None else f", {number(cpu.median, 3)} µs"
            bars.append((label, rate.median, f"{number(rate.median)}{used}"))
            rows.append(Row((label, _spread(rate), "-" if cpu is None else _spread(cpu))))
    if not rows:
        return []
    # One scale would hide a heavy model beside an echo: one picture for each model.
    drawn = []
    for model in found.rates:
        own = [(label.partition(": ")[2], size, said) for label, size, said in bars if label.startswith(f"{model}: ")]
        # Nor is a limit drawn that is far beyond all else; it stands in the table.
        most = max((size for label, size, _ in own if label in _SIDES.values()), default=0.0)
        own = [each for each in own if each[1] <= _FAR * most]
        title = f"{model}: calls a second, closed loop, and the server's processor time a call"
        drawn.append(plots.bars(f"throughput-{model}", title, own, across="calls a second"))
    lead = " ".join(f"ONNX Runtime alone, {model}: {how}." for model, how in found.alone.items())
    head = ("side", "calls a second", "CPU µs a call")
    return [Section("Throughput", lead, drawn, [Table("Medians, and least to most.", head, rows)])]


def _closed(found: Promised) -> list[Section]:
    drawn, rows = [], []
    for model, sides in found.closed_ms.items():
        lines = [Line(_SIDES.get(side, side), [(at, took[key]) for at, key in _CLOSED]) for side, took in sides.items()]
        title = f"{model}: latency by percentile, {found.callers} callers, closed loop"
        drawn.append(plots.percentiles(f"closed-{model}", title, lines))
        for side, took in sides.items():
            cpu = found.cpu_us.get(model, {}).get(side)
            figures = [*(took[key] for _, key in _CLOSED), None if cpu is None else cpu.median]
            rows.append(Row((f"{model}: {_SIDES.get(side, side)}", *map(number, figures))))
    lead = "From when a call was sent: it says what callers feel at the most that there is, and promises nothing."
    table = Table("Milliseconds, medians of the rounds.", ("side", "p50", "p99", "p99.9", "CPU µs"), rows)
    return [Section("Latency at full load", lead, drawn, [table])] if rows else []


def _open(found: Mapping[str, Any]) -> list[Section]:
    loops = {name: loop for name, loop in found.items() if isinstance(loop, dict) and "rounds" in loop}
    lines, rows = [], []
    for name, loop in loops.items():
        lines.append(Line(name, [(at, loop[key]["median"]) for at, key in _OPEN]))
        for number_, each in enumerate(loop["rounds"], 1):
            figures = (
                each["requests"],
                *(each[key] for _, key in _OPEN),
                each["max_ms"],
                each["lag_p99_ms"],
                each["failed"],
                each.get("cpu_us"),
            )
            void = "the generator lagged" if each["void"] else ""
            rows.append(Row((f"{name}, round {number_}", *map(number, figures)), void))
    if not rows:
        return []
    head = ("load", "requests", *(f"p{at:g} ms" for at, _ in _OPEN), "most ms", "lag p99 ms", "failed", "CPU µs")
    lead = "From when each request was due, sent late or not. tiny on cq, and its echo. " + ". ".join(_other(found))
    drawn = plots.percentiles("open", "Latency by percentile, open loop, medians of the rounds that count", lines)
    return [Section("Latency, open loop", lead.strip(), [drawn], [Table("", head, rows)])]


def _other(found: Mapping[str, Any]) -> list[str]:
    """Return what stands beside the loops, in words."""
    said = []
    for name, value in found.items():
        if isinstance(value, (int, float)):
            said.append(f"{name}: {number(value)}")
        elif isinstance(value, dict) and "median" in value:
            said.append(f"{name}: {number(value['median'])}")
    return said


def _spread(found: Spread) -> str:
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)} to {number(found.high)})"
