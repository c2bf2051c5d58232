"""What `demur bench gpu` found, as sections of a report: ONNX Runtime alone, answers, swaps, each model served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks.figures import Check
from benchmarks.gpu.alike import Compared
from benchmarks.gpu.alone import Sweep
from benchmarks.gpu.cards import Card as Gpu
from benchmarks.gpu.swaps import Swapping
from benchmarks.serve.report import plots, target
from benchmarks.serve.report.page import Card, Page, Row, Section, Table, number
from benchmarks.serve.report.plots import Line
from benchmarks.serve.results import Result


class Cards(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs."""

    count: int
    cards: tuple[Gpu, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The object that the command prints; see `bench_gpu`."""

    gpu: Cards | None
    device: str
    compared: dict[str, Compared] = {}
    alone: tuple[Sweep, ...] = ()
    swaps: dict[str, Swapping] = {}
    served: dict[str, Result] = {}
    errors: dict[str, str] = {}
    versions: dict[str, str] = {}
    seconds: float
    machine: str
    checks: tuple[Check, ...]
    ok: bool


def page(found: Found, *, facts: Sequence[tuple[str, str]]) -> Page:
    """Return the page of a run; without a GPU it says so first."""
    gpus = found.gpu.cards if found.gpu is not None else ()
    names = ", ".join(f"{gpu.name}, {gpu.memory_mib:,.0f} MiB, driver {gpu.driver}" for gpu in gpus)
    where = names or (f"{found.gpu.count} of which nvidia-smi says nothing" if found.gpu is not None else "none")
    notes = [f"{part}: {said}" for part, said in found.errors.items()]
    if found.gpu is None:
        notes.insert(0, "no GPU was used: this shows that the code runs, and nothing of a GPU")
    installed = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return Page(
        title=f"Demur on a GPU: {where}" if found.gpu is not None else "Demur without a GPU",
        lead=f"Every check and benchmark that needs one, in {found.seconds:g} s",
        ok=found.ok,
        cards=[card for name, each in found.served.items() for card in _cards(name, each)],
        sections=[*_alone(found.alone), *_compared(found.compared), *_swaps(found.swaps), *_served(found.served)],
        notes=notes,
        facts=[("machine", found.machine), ("GPU", where), ("installed there", installed), *facts],
        checks=found.checks,
    )


def _cards(model: str, found: Result) -> list[Card]:
    return [card._replace(what=f"{model}: {card.what}") for card in target.cards(found)]


def _alone(found: Sequence[Sweep]) -> list[Section]:
    drawn, rows = [], []
    for model in dict.fromkeys(sweep.model for sweep in found):
        own = [sweep for sweep in found if sweep.model == model]
        lines = [Line(_way(each), [(batch.rows, batch.rows_per_second) for batch in each.batches]) for each in own]
        title = f"{model}: ONNX Runtime alone, rows a second over rows of a batch"
        drawn.append(plots.curves(f"alone-{model}", title, lines, across="rows of a batch", up="rows a second"))
        rows += [
            Row((f"{model}, {_way(each)}", *map(number, msgspec.structs.astuple(batch))))
            for each in own
            for batch in each.batches
        ]
    head = ("on", "rows", "first ms", "p50 ms", "p99 ms", "rows/s")
    lead = "Inputs and outputs bound, one run after the other. First: the first run of that size in its session."
    return [Section("ONNX Runtime alone, by batch", lead, drawn, [Table("", head, rows)])] if rows else []


def _way(sweep: Sweep) -> str:
    return f"{sweep.provider.removesuffix('ExecutionProvider')} {sweep.datatype}"


def _compared(found: dict[str, Compared]) -> list[Section]:
    rows = [
        Row((f"{model} on {each.provider}, {way}", *map(number, msgspec.structs.astuple(getattr(each, way)))))
        for model, each in found.items()
        for way in ("bound", "unbound", "threads", "half")
    ]
    head = ("model", "mean difference", "most", "same label")
    lead = "Scores beside the CPU's, in standard deviations of these, and the share of rows with the CPU's label."
    return [Section("The CPU's answers", lead, (), [Table("", head, rows)])] if rows else []


def _swaps(found: dict[str, Swapping]) -> list[Section]:
    def row(model: str, each: Swapping) -> Row:
        seen = each.requests
        figures: tuple[Any, ...] = (
            each.swaps, each.rate, seen.failed_requests, seen.p99_outside_ms, seen.p99_inside_ms, seen.window_ms,
        )  # fmt: skip
        memory = (each.device_mib_empty, each.device_mib_settled, each.device_mib_end)
        return Row((model, *map(number, figures), *(number(mib, 7) for mib in memory)))

    head = (
        "model", "swaps", "requests/s", "failed", "p99 ms outside", "within", "a swap ms", "MiB empty", "settled",
        "end",
    )  # fmt: skip
    lead = "Under open-loop load at half of what 32 callers reach. Memory in use on all GPUs together."
    table = Table("", head, [row(model, each) for model, each in found.items()])
    return [Section("Hot swaps", lead, (), [table])] if found else []


def _served(found: dict[str, Result]) -> list[Section]:
    return [
        section._replace(title=f"{model} behind the gateway: {section.title}")
        for model, each in found.items()
        for section in target.sections(each, prefix=f"{model}-")
    ]
