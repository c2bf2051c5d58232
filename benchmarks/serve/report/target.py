"""What `demur bench serve --target` found, as sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks.serve.report import plots
from benchmarks.serve.report.page import Card, Page, Row, Section, Table, number
from benchmarks.serve.report.plots import Line, Mark, Plot
from benchmarks.serve.results import Result, Run, Sweep

_LOADED: Final = ("p50", "p90", "p99", "p99.9", "p99.99", "max")
_CURVES_MAX: Final = 3


def page(found: Result, *, facts: Sequence[tuple[str, str]]) -> Page:
    """Return the page of a run; `facts` are what its object does not say: command, versions."""
    model, server = found.model, found.target
    where = f"{server.name or 'a server'} {server.version}".strip()
    rows = f"{model.rows} row{'' if model.rows == 1 else 's'} a request"
    return Page(
        title=f"{model.name} on {where}",
        lead=f"{server.address}, {rows}, {found.begun}, {found.seconds:g} s{', a quick run' if found.quick else ''}",
        ok=found.ok,
        cards=cards(found),
        sections=sections(found),
        notes=found.notes,
        facts=[*_facts(found), *facts],
        checks=found.checks,
    )


def cards(found: Result) -> list[Card]:
    """Return each scenario's figure, with the processor time beside it."""
    chosen, made = found.scenarios, []
    if chosen.server is not None:
        server = chosen.server
        what = f"requests a second, Poisson, with p99 within {server.bound_ms:g} ms"
        beside = f"verified {len(server.verified)} times; {cpu(server.verified)}"
        made.append(
            Card(
                number(server.rate) if server.rate else "none",
                what,
                beside if server.verified else "none could be verified",
            )
        )
    if chosen.offline is not None:
        spread = chosen.offline.samples
        between = f", {number(spread.low)} to {number(spread.high)}" if len(chosen.offline.runs) > 1 else ""
        what = f"samples a second offline{between}"
        made.append(Card(number(spread.median), what, cpu(chosen.offline.runs)))
    if chosen.single_stream is not None:
        single = chosen.single_stream
        made.append(Card(f"{number(single.p90_ms)} ms", "p90 of a single stream", cpu([single.run])))
    return made


def cpu(runs: Sequence[Run]) -> str:
    """Return the server's processor time a request, in words."""
    known = [run.cpu_us for run in runs if run.cpu_us is not None]
    return f"server: {number(median(known))} µs of processor a request" if known else "server's processor time: unknown"


def sections(found: Result, *, prefix: str = "") -> list[Section]:
    """Return all there is to show, each plot named from `prefix`."""
    chosen = found.scenarios
    bound = None if chosen.server is None else Mark(f"bound {chosen.server.bound_ms:g} ms", chosen.server.bound_ms)
    made = [_percentiles(found, prefix, bound)]
    if chosen.callers is not None and chosen.callers.points:
        made.append(_callers(chosen.callers, prefix))
    if chosen.rates is not None or chosen.server is not None:
        made.append(_rates(found, prefix, bound))
    made += [*_split(found, prefix), *_gpus(found, prefix), *_runs(found)]
    return made


def _counted(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not run.void and run.latency.count]


def _percentiles(found: Result, prefix: str, bound: Mark | None) -> Section:
    """Latency by percentile: one caller, some rates of the open loop, the rate that was verified."""
    chosen, runs = found.scenarios, list[tuple[str, Run]]()
    if chosen.single_stream is not None:
        runs.append(("one caller, back to back", chosen.single_stream.run))
    points = _counted(chosen.rates.points) if chosen.rates is not None else []
    runs += [(f"{number(run.rate)} a second", run) for run in spaced(points, _CURVES_MAX)]
    if chosen.server is not None and chosen.server.verified:
        verified = sorted(chosen.server.verified, key=lambda run: run.latency.p99_ms)
        run = verified[len(verified) // 2]
        runs.append((f"{number(run.rate)} a second, verified", run))
    title = "Latency by percentile; open loops count from when each request was due"
    lines = [Line(label, run.latency.curve) for label, run in runs if run.latency.curve]
    drawn = [plots.percentiles(f"{prefix}percentiles", title, lines, bound=bound)] if lines else []
    table = Table(
        "",
        ("load", *_LOADED, "CPU µs"),
        [Row((label, *_latency(run), number(run.cpu_us)), run.void) for label, run in runs],
    )
    return Section(
        "Latency by percentile", "Milliseconds; the server's processor time a request beside.", drawn, [table]
    )


def spaced(points: Sequence[Run], most: int) -> list[Run]:
    """Return at most so many of them, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _callers(sweep: Sweep, prefix: str) -> Section:
    runs = _counted(sweep.points)
    lines = [
        Line(name, [(run.answered, getattr(run.latency, key)) for run in runs])
        for name, key in (("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"))
    ]
    drawn = plots.curves(
        f"{prefix}callers",
        "Throughput against latency, closed loop; beside each point how many callers there were",
        lines,
        across="requests answered a second",
        up="latency, ms",
        labels=[str(run.callers) for run in runs],
    )
    head = ("callers", "answered/s", "samples/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "failed", "CPU µs")
    rows = [
        Row(
            (
                str(run.callers),
                number(run.answered),
                number(run.samples),
                *(number(ms) for ms in _four(run)),
                str(run.failed),
                number(run.cpu_us),
            ),
            run.void,
        )
        for run in sweep.points
    ]
    lead = "So many callers, each of which asks again as soon as it has its answer."
    return Section("Throughput against latency", lead, [drawn], [Table("", head, rows)])


def _rates(found: Result, prefix: str, bound: Mark | None) -> Section:
    """Latency against rate: what was swept and what was searched, what is void among it, and the rate that held."""
    chosen = found.scenarios
    swept = list(chosen.rates.points) if chosen.rates is not None else []
    searched = [*chosen.server.searched, *chosen.server.verified] if chosen.server is not None else []
    void = [each.run for each in found.voided]
    runs = sorted(_counted(swept or searched), key=lambda run: run.rate or 0)
    tried = [(run.rate or 0, run.latency.p99_ms) for run in (_counted(searched) if swept else ())]
    crosses = [
        (run.rate or 0, run.latency.p99_ms) for run in [*void, *swept, *searched] if run.void and run.latency.count
    ]
    lines = [
        Line(name, [(run.rate or 0, getattr(run.latency, key)) for run in runs])
        for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
    ]
    kept = chosen.server.rate if chosen.server is not None else 0
    drawn = plots.curves(
        f"{prefix}rates",
        "Latency against rate, open loop, Poisson",
        lines,
        across="requests due a second",
        up="latency, ms",
        bound=bound,
        at=Mark(f"verified: {number(kept)} a second", kept) if kept else None,
        dots=Line("p99, tried for the server scenario", tried),
        crosses=crosses,
    )
    head = ("due/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "lag p99 ms", "failed", "CPU µs", "of")
    named = [(run, "sweep") for run in swept] + [(run, "server") for run in searched]
    named += [(each.run, each.scenario) for each in found.voided if each.run not in searched]
    rows = [
        Row(
            (
                number(run.rate),
                number(run.answered),
                *(number(ms) for ms in _four(run)),
                number(run.lag_p99_ms),
                str(run.failed),
                number(run.cpu_us),
                what,
            ),
            run.void,
        )
        for run, what in sorted(named, key=lambda each: each[0].rate or 0)
    ]
    lead = "Requests come as from many independent clients, and latency counts from when each was due."
    if chosen.server is not None:
        lead += f" The server scenario: {_LIMITS[chosen.server.limited_by]}."
    return Section("Latency against rate", lead, [drawn], [Table("", head, rows)])


_LIMITS: Final = {
    "bound": "at a higher rate p99 is over the bound",
    "failures": "at a higher rate requests fail",
    "generator": "a higher rate could not be sent in time from here",
    "capacity": "there is no more, a closed loop gets as much",
}


def _split(found: Result, prefix: str) -> list[Section]:
    """Where the time went, for each point of the sweeps that somebody knows it of."""
    drawn, rows, source = list[Plot](), list[Row](), ""
    for what, sweep in (("callers", found.scenarios.callers), ("rates", found.scenarios.rates)):
        runs = [run for run in (_counted(sweep.points) if sweep is not None else ()) if run.split is not None]
        if not runs:
            continue
        labels = [number(run.callers or run.rate) for run in runs]
        shares = [
            Line(part, [(place, getattr(run.split, f"{part}_ms")) for place, run in enumerate(runs)])
            for part in ("queue", "compute", "transport")
        ]
        across = "callers, closed loop" if what == "callers" else "requests due a second, open loop"
        title = f"Mean latency by what it was spent on, over {across}"
        drawn.append(
            plots.stacked(f"{prefix}split-{what}", title, labels, shares, across=across, up="mean latency, ms")
        )
        for run, label in zip(runs, labels, strict=True):
            assert run.split is not None, "only such are here"
            split, source = run.split, run.split.source
            figures = (split.queue_ms, split.compute_ms, split.transport_ms, run.latency.mean_ms, run.cpu_us)
            unit = "a second" if what == "rates" else "caller" if run.callers == 1 else "callers"
            rows.append(Row((f"{label} {unit}", *map(number, figures))))
    if not rows:
        return []
    lead = (
        f"Queue and compute as the server counts them ({source}); transport is all else: network, parsing, the client."
    )
    head = ("load", "queue ms", "compute ms", "transport ms", "mean ms", "CPU µs")
    return [Section("Where the time goes", lead, drawn, [Table("", head, rows)])]


def _gpus(found: Result, prefix: str) -> list[Section]:
    runs = [run for sweep in (found.scenarios.callers, found.scenarios.rates) if sweep for run in sweep.points]
    runs = [run for run in _counted(runs) if run.gpus]
    if not runs:
        return []
    indices = sorted({gpu.index for run in runs for gpu in run.gpus})
    ordered = sorted(runs, key=lambda run: run.answered)
    lines = [
        Line(
            f"GPU {index}",
            [(run.answered, gpu.utilisation_mean) for run in ordered for gpu in run.gpus if gpu.index == index],
        )
        for index in indices
    ]
    title = "Share of the time in which the GPU did something, over requests answered a second"
    drawn = plots.curves(f"{prefix}gpus", title, lines, across="requests answered a second", up="utilisation, percent")
    rows = [
        Row(
            (
                number(run.answered),
                f"{gpu.index}: {gpu.name}",
                number(gpu.utilisation_mean),
                number(gpu.utilisation_max),
                number(gpu.memory_mib_max, 7),
                number(gpu.power_w_mean),
                number(run.cpu_us),
            )
        )
        for run in ordered
        for gpu in run.gpus
    ]
    head = ("answered/s", "GPU", "busy %", "most %", "memory MiB", "W", "CPU µs")
    return [Section("GPU", "As nvidia-smi samples it, some five times a second.", [drawn], [Table("", head, rows)])]


def _runs(found: Result) -> list[Section]:
    """Return what no plot shows: offline's runs."""
    offline = found.scenarios.offline
    if offline is None:
        return []
    rows = [
        Row((run.client, number(run.samples), *_latency(run), str(run.failed), number(run.cpu_us)), run.void)
        for run in offline.runs
    ]
    lead = f"{offline.callers} callers, back to back, so that the server is never idle."
    head = ("client", "samples/s", *_LOADED, "failed", "CPU µs")
    return [Section("Offline", lead, [], [Table("", head, rows)])]


def _latency(run: Run) -> list[str]:
    took = run.latency
    return [*(number(ms) for ms in (*_four(run), took.p9999_ms, took.max_ms))]


def _four(run: Run) -> tuple[float, float, float, float]:
    took = run.latency
    return took.p50_ms, took.p90_ms, took.p99_ms, took.p999_ms


def _facts(found: Result) -> list[tuple[str, str]]:
    server, client = found.target, found.client
    tensors = ", ".join(
        f"{each.name} {each.datatype} {list(each.sent or each.declared)}" for each in found.model.inputs
    )
    processes = f"{client.processes} process{'' if client.processes == 1 else 'es'}"
    version = f"version {found.model.version}" if found.model.version else ""
    facts = [
        ("machine", found.machine),
        ("server", ", ".join(filter(None, (f"{server.name} {server.version}".strip(), server.command)))),
        ("model", ", ".join(filter(None, (found.model.name, version, found.model.platform)))),
        ("request", f"{tensors}; {found.model.request_bytes} bytes, reply {found.model.reply_bytes} bytes"),
        (
            "client",
            f"{processes}, {client.connections} connections each; {client.saturates or 'no h2load'}",
        ),
        ("begun", found.begun),
    ]
    return [(name, value) for name, value in facts if value]
