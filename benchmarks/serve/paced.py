"""What is promised of latency: a lone caller at half of what it reaches back to back, and tiny at 1,000 a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.figures import Check, check_most, spread
from benchmarks.serve import echo, ground, measures, opened
from benchmarks.serve.ground import Served
from benchmarks.serve.measures import Size
from benchmarks.serve.opened import Opened
from benchmarks.serve.sender import METHOD, Load
from benchmarks.serve.sending import START_SECONDS, Shots, Worker, shoot, workers

_WARM_SECONDS: Final = 0.5
_SECONDS: Final = 1.0
_HALF: Final = 0.5
_POISSON: Final = 1_000.0


class Lone(NamedTuple):
    """One caller in rounds: the gateway's tiny model and the echo at the same rate, and ONNX Runtime's own time."""

    # What the caller reaches of the gateway back to back, calls a second; half of that is sent.
    back_to_back: float
    ours: list[Opened]
    other: list[Opened]
    alone_ms: list[float]


def lone(folder: Path, size: Size) -> Lone:
    """Measure one caller in rounds, ours and the echo in turns."""
    payload = measures.asked("tiny")
    with (
        ground.echo("cq") as plain,
        ground.gateway(folder, transport="cq") as served,
        workers(1) as crew,
    ):
        ground.published(served.address, "tiny")
        sides = [
            Load(address=each.address, method=method, payload=payload, seconds_max=_SECONDS, connections=1)
            for each, method in ((served, METHOD), (plain, echo.METHOD))
        ]
        for number, side in enumerate(sides):
            _closed(crew, side, _WARM_SECONDS, wait_seconds=0.0 if number else START_SECONDS)
        found = Lone(_closed(crew, sides[0], _SECONDS), [], [], [])
        for number in range(size.rounds):
            for side, to, into in zip(sides, (served, plain), (found.ours, found.other), strict=True):
                given = _at(side, _HALF * found.back_to_back, size, seed=number, arrivals="constant")
                into.append(kept(crew, given, to))
            found.alone_ms.append(measures.lone_ms("tiny"))
    return found


def poisson(folder: Path, size: Size) -> list[Opened]:
    """Measure tiny at 1,000 requests a second in rounds, as from many independent clients."""
    with ground.gateway(folder, transport="cq") as served, workers(1) as crew:
        ground.published(served.address, "tiny")
        given = Load(address=served.address, payload=measures.asked("tiny"), seconds_max=_SECONDS)
        _closed(crew, given, _WARM_SECONDS, wait_seconds=START_SECONDS)
        return [kept(crew, _at(given, _POISSON, size, seed=number), served) for number in range(size.rounds)]


def judge(lone_: Lone, at_1000: Sequence[Opened]) -> list[Check]:
    """Return the promises of latency: medians of what counts. A run whose generator lagged keeps none."""
    whole = [
        ours.p50_ms / (other.p50_ms + alone)
        for ours, other, alone in zip(lone_.ours, lone_.other, lone_.alone_ms, strict=True)
        if not ours.void and not other.void
    ]
    tail = [each.p99_ms / each.p50_ms for each in at_1000 if not each.void]
    runs = [*lone_.ours, *lone_.other, *at_1000]
    void, failed = sum(each.void for each in runs), sum(each.failed for each in runs)
    return [
        check_most("one caller at half load: p50 over echo's p50 + ONNX Runtime's own time", _median(whole), 1.35),
        check_most("tiny at 1,000 a second, Poisson: p99 over p50", _median(tail), 3.0),
        check_most("open loops whose generator lagged, void", void, 0),
        check_most("failed requests of the open loops", failed, 0),
    ]


def facts(lone_: Lone, at_1000: Sequence[Opened]) -> dict[str, Any]:
    """Return it as JSON has it: every round, and the spread of each percentile over those that count."""
    sides = {"one caller": lone_.ours, "one caller, echo": lone_.other, "1,000 a second": at_1000}
    names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms")
    return {
        **{
            side: {
                **{name: spread([getattr(each, name) for each in counted(runs)]) for name in names},
                "rounds": [opened.facts(each) for each in runs],
            }
            for side, runs in sides.items()
        },
        "one caller back to back, a second": round(lone_.back_to_back, 1),
        "ONNX Runtime alone, ms": spread(lone_.alone_ms),
    }


def counted(runs: Sequence[Opened]) -> Sequence[Opened]:
    """Return the runs that are not void; all of them where that leaves none, so that there is something to look at."""
    return [each for each in runs if not each.void] or runs


def kept(crew: Sequence[Worker], given: Load, served: Served) -> Opened:
    """Send an open loop, and once more where the generator lagged."""
    found = _sent(crew, given, served)
    return _sent(crew, given, served) if found.void else found


def _sent(crew: Sequence[Worker], given: Load, served: Served) -> Opened:
    before = served.cpu_seconds()
    found = opened.judged(shoot(crew, given))
    spent = served.cpu_seconds() - before
    return found._replace(cpu_us=float(f"{1e6 * spent / max(1, found.requests):.4g}"))


def _closed(crew: Sequence[Worker], given: Load, seconds: float, *, wait_seconds: float = 0.1) -> float:
    """Send back to back from one caller; returns the answers a second."""
    shots: Shots = shoot(
        crew, msgspec.structs.replace(given, callers=1, seconds_max=seconds), wait_seconds=wait_seconds
    )
    return int((shots.code == 0).sum()) / seconds


def _at(given: Load, rate: float, size: Size, **changed: Any) -> Load:
    return msgspec.structs.replace(given, rate=rate, seconds_max=size.open_seconds / size.rounds, **changed)


def _median(values: Sequence[float]) -> float:
    """Return the median; infinity of nothing, which keeps no promise."""
    return median(values) if values else float("inf")
