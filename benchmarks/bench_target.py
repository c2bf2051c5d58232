"""`demur bench serve --target`: a KServe v2 server, whoever's it is, in MLPerf's scenarios and two sweeps."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.serve import closed, gpus, requests, scenarios, serving, target
from benchmarks.serve.report import writing
from benchmarks.serve.results import SCENARIOS, Client, Result, Scenario, Scenarios, Server
from benchmarks.serve.runs import CONNECTIONS, Bench
from benchmarks.serve.scenarios import FULL, QUICK, Course, Size
from benchmarks.serve.sending import workers
from benchmarks.serve.target import Found, Wish
from fallback.errors import InvalidError

PROCESSES_MAX: Final = 64
# A process sends as much as a core of a server in Python answers; more of them than that take from the server.
_CORES_PER_PROCESS: Final = 4
_FEW: Final = 10_000
_OTHERS_SHARE_MAX: Final = 0.05
# Of the server's processor time: a process above it that takes more may well do some of its work.
_ABOVE_SHARE: Final = 0.05
_LIMITS: Final = {
    "bound": "with more it is over that",
    "failures": "with more, requests fail",
    "generator": "more cannot be sent in time from here",
    "capacity": "that is all a closed loop gets",
}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was asked for, beside the target."""

    chosen: tuple[Scenario, ...]
    bound_ms: float
    processes: int
    size: Size
    quick: bool
    as_json: bool


def expect_none(*options: object) -> None:
    """Raise InvalidError where an option of targets was given without one."""
    if any(option is not None for option in options):
        raise InvalidError("options of a target: expected --target HOST:PORT with them, got none")


def wish(
    *,
    to: str,
    models: Sequence[str],
    shapes: Sequence[str],
    metadata: Sequence[str],
    rows: int | None,
    timeout_seconds: float,
    ca: str | None,
    pid: int | None,
    metrics: str | None,
) -> Wish:
    """Return what is to be measured; raises InvalidError naming the option, what was expected and got."""
    if len(models) != 1:
        raise InvalidError(f"--model: expected one model of the target, got {', '.join(models) or 'none'}")
    return Wish(
        address=target.address(to),
        model=models[0],
        shapes=tuple(map(requests.given, shapes)),
        rows=rows,
        timeout_seconds=timeout_seconds,
        ca=ca,
        metadata=target.metadata(metadata),
        pid=pid,
        metrics=metrics,
    )


def order(
    *,
    chosen: Sequence[str],
    bound_ms: float,
    processes: int | None,
    callers: int | None,
    seconds: float | None,
    quick: bool,
    as_json: bool,
) -> Order:
    """Return how it is to be measured; raises InvalidError for a scenario that is none."""
    known = [name for name in SCENARIOS if not chosen or name in chosen]
    unknown = sorted(set(chosen) - set(SCENARIOS))
    if unknown:
        raise InvalidError(f"--scenario: expected some of {', '.join(SCENARIOS)}, got {unknown[0]!r}")
    size = QUICK if quick else FULL
    size = msgspec.structs.replace(size, callers=callers or size.callers, seconds=seconds or size.seconds)
    count = processes or max(1, int(machine.cores()) // _CORES_PER_PROCESS)
    return Order(chosen=tuple(known), bound_ms=bound_ms, processes=count, size=size, quick=quick, as_json=as_json)


def run(wished: Wish, ordered: Order, *, html: Path | None = None) -> bool:
    """Measure and tell; returns whether what was measured may be believed, and nothing failed. `html`: its report."""
    console, start = screen.console(stderr=ordered.as_json), time.monotonic()
    begun = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    with stack.tidily(), target.asked(wished) as found:
        _introduce(console, found)
        measured, course, c_client, beside = _measured(wished, ordered, found, console)
    checks = scenarios.checks(measured, given_up=course.given_up)
    result = Result(
        target=found.target,
        model=found.model,
        client=Client(
            processes=ordered.processes,
            connections=CONNECTIONS,
            timeout_seconds=wished.timeout_seconds,
            saturates=closed.version() if c_client else "",
        ),
        scenarios=measured,
        voided=tuple(course.voided),
        notes=tuple(notes(found, measured, c_client=c_client, beside=beside)),
        machine=machine.describe(),
        begun=begun,
        seconds=round(time.monotonic() - start, 1),
        quick=ordered.quick,
        checks=tuple(checks),
        ok=all(each.ok for each in checks),
    )
    _tell(console, result)
    writing.report(html, msgspec.to_builtins(result))
    if ordered.as_json:
        screen.print_json(result)
    return result.ok


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What worked beside client and server: cores that others took (null: not known), and who above the server did."""

    others: float | None = None
    above: str = ""


def _measured(wished: Wish, ordered: Order, found: Found, console: Console) -> tuple[Scenarios, Course, bool, Beside]:
    def tell(line: str) -> None:
        console.print(Text(line, style="dim"))

    here = serving.is_here(wished.address.rpartition(":")[0].strip("[]"))
    with workers(ordered.processes) as crew, gpus.watching(wanted=here) as watch:
        bench = Bench(found, wished, crew, watch)
        course = Course(bench, ordered.size, bound_ms=ordered.bound_ms, tell=tell)
        pids, clients = found.target.pids, [each.process.pid for each in crew]
        above = serving.above(pids[0]) if pids else ()
        before, served, over = serving.worked(pids, clients), serving.cpu_seconds(pids), _seconds(above)
        with console.status("measuring"):
            measured = course.go(ordered.chosen)
        after, served = serving.worked(pids, clients), serving.cpu_seconds(pids) - served
        spent = {pid: seconds - over[pid] for pid, seconds in _seconds(above).items()}
        beside = Beside(others=serving.others(before, after), above=busy_above(spent, served))
        return measured, course, bench.c_client, beside


def _seconds(pids: Sequence[int]) -> dict[int, float]:
    return {pid: serving.cpu_seconds([pid]) for pid in pids}


def busy_above(spent: Mapping[int, float], served: float) -> str:
    """Return what is to be known of the processes that started the server, nearest first, and their seconds of work.

    PyTriton's gRPC port is that of a Triton, whose parent computes.
    """
    for pid, seconds in reversed(list(spent.items())):
        if seconds > _ABOVE_SHARE * served:
            who = f"process {pid} ({serving.command(pid)}), which started the server,"
            return f"{who} worked {seconds:.1f} s beside the server's {served:.1f}: --pid {pid} counts both"
    return ""


def notes(found: Found, measured: Scenarios, *, c_client: bool, beside: Beside) -> list[str]:
    """Return what a reader has to know beside the figures."""
    said = list(found.notes)
    if measured.offline is not None and not c_client:
        why = "is not installed" if found.steady else "cannot count answers of differing lengths"
        said.append(f"offline is measured with Python processes, since h2load {why}: it may be their limit")
    if found.target.pids:
        said.append("client and server share this machine's cores")
    if beside.above:
        said.append(beside.above)
    others = beside.others
    if others is not None and others > _OTHERS_SHARE_MAX * machine.cores():
        said.append(f"other processes took {others:g} of {machine.cores():g} cores meanwhile: doubt the latencies")
    few = [run.requests for run in measured.server.verified if run.requests < _FEW] if measured.server else []
    if few:
        said.append(f"a verification run has {min(few)} requests: percentiles beyond their number are the slowest")
    return said


def _introduce(console: Console, found: Found) -> None:
    where, model = found.target, found.model
    process = f", process {where.pids[0]} ({where.command})" if where.pids else ""
    console.print(Text(f"{where.name or 'a server'} {where.version} at {where.address}{process}"))
    sent = ", ".join(f"{each.name} {each.datatype} {list(each.sent or ())}" for each in model.inputs)
    rows = f"{model.rows} row{'' if model.rows == 1 else 's'}"
    console.print(Text(f"{model.name}: {sent}; {rows}, {model.request_bytes} bytes a request"))


def server_line(server: Server) -> str:
    """Return what the server scenario found, in a line; where that is nothing, also what may help."""
    within = f"with p99 within {server.bound_ms:g} ms"
    if server.rate:
        return f"server: {server.rate:g} a second {within}; {_LIMITS[server.limited_by]}"
    least = min((run.rate or 0.0 for run in server.searched), default=0.0)
    return f"server: no rate was verified {within}, down to {least:g} a second; a stall weighs less in longer --seconds"


def _tell(console: Console, result: Result) -> None:
    found = result.scenarios
    lines = []
    if found.single_stream is not None:
        lines.append(f"single-stream: p90 {found.single_stream.p90_ms:g} ms")
    if found.offline is not None:
        samples, runs = found.offline.samples, found.offline.runs
        client = "h2load" if runs[0].client == "h2load" else "Python processes"
        between = f", {samples.low:g} to {samples.high:g}" if len(runs) > 1 else ""
        lines.append(f"offline: {samples.median:g} samples a second{between} ({client})")
    if found.server is not None:
        lines.append(server_line(found.server))
    lines += [*result.notes, result.machine]
    for line in lines:
        console.print(Text(f"  {line}"))
    console.print(screen.check_table(result.checks))
