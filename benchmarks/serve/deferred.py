"""What parking and audits take from the traffic that is answered, and how much longer who is parked waits.

Throughput: two gateways with the same model get the same calls in turns, 32 callers of a closed loop whose row the
model is sure of, and evenly beside them one call for every nineteen. On one gateway those beside are of the same row,
and nothing is audited; on the other they are of a row that the model can only guess at, which parks each, and of what
is answered a share is audited. Compared is what the 32 callers get.

Latency: at a low rate, a row that is answered, one that is parked, and a bare script that writes as many bytes as the
request has, by the same kind of client to the same server, in turns.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec

from benchmarks.figures import Check, Figure, Spread, check, figure, percentile, spread
from benchmarks.serve import closed, ground, opened
from benchmarks.serve.closed import Closed
from benchmarks.serve.ground import Served
from benchmarks.serve.measures import Tell, asked
from benchmarks.serve.models import Name
from benchmarks.serve.opened import Opened
from benchmarks.serve.sender import METHOD, Load
from benchmarks.serve.sending import START_SECONDS, shoot, workers
from fallback import embedded
from fallback.bare import Bare
from fallback.config import Config, RedisSettings
from fallback.errors import UnavailableError
from fallback.queue import Queue

SHARE: Final = 0.05
# Of what is answered without parking and audits.
KEPT_MIN: Final = 0.97
WRITES_MAX: Final = 1.5
# What goes to people may be so much behind at the end of a round: then it is not put off, only beside.
BEHIND_SECONDS_MAX: Final = 1.0
# So many times the calls that may be parked, or audited by chance, more or fewer.
_COUNT_SLACK: Final = 0.2
_BESIDE_STREAMS: Final = 64
_LOW_RATE: Final = 50.0
_LOOK_SECONDS: Final = 0.02
_SETTLE_SECONDS_MAX: Final = 30.0
_MICRO: Final = 1e6


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: rounds, calls of one closed loop by model, seconds of an open one."""

    rounds: int
    calls: dict[Name, int]
    open_seconds: float


FULL: Final = Size(rounds=5, calls={"tiny": 50_000, "mid": 25_000, "conv": 1_500}, open_seconds=4.0)
QUICK: Final = Size(rounds=1, calls={"tiny": 3_000, "mid": 2_000, "conv": 200}, open_seconds=0.5)


class Loop(NamedTuple):
    """One closed loop and what came beside: the callers' calls, those beside, and how many went to people.

    `cpu_us`, `valkey_us`: processor time of the gateway and of the queue's server for each call of both, until all that
    goes to people is parked; `behind_seconds`: how long after the last answer that was.
    """

    found: Closed
    beside: Closed
    cpu_us: float
    valkey_us: float
    parked: int
    expected: float
    behind_seconds: float


class Paced(NamedTuple):
    """One round at a low rate: what is answered, what is parked, and how long a bare write takes, p50, ms."""

    answered: Opened
    parked: Opened
    bare_ms: float


class Measured(NamedTuple):
    """All that was measured of one model, in rounds."""

    name: Name
    plain: list[Loop]
    deferring: list[Loop]
    paced: list[Paced]


def measure(folder: Path, name: Name, size: Size, tell: Tell) -> Measured:
    """Measure one model on a gateway that answers all and on one that parks and audits, in turns."""
    found = Measured(name, [], [], [])
    with ground.gateway(folder, transport="cq") as plain, ground.gateway(folder, transport="cq") as deferring:
        asyncio.run(ground.publish(plain.address, name, audit_share=0.0))
        asyncio.run(ground.publish(deferring.address, name, audit_share=SHARE))
        calls = size.calls[name]
        rate = closed.saturate(plain.address, METHOD, asked(name), calls=calls // 2).rate
        _loop(deferring, name, calls=calls // 5, rate=rate, deferring=True)
        for number in range(size.rounds):
            found.plain.append(_loop(plain, name, calls=calls, rate=rate, deferring=False))
            found.deferring.append(_loop(deferring, name, calls=calls, rate=rate, deferring=True))
            one, other = found.plain[-1].found.rate, found.deferring[-1].found.rate
            tell(f"{name}, round {number + 1} of {size.rounds}, answered a second: {one:.0f}, deferring {other:.0f}")
            found.paced.append(_paced(deferring, name, size.open_seconds))
            ms = found.paced[-1].answered.p50_ms, found.paced[-1].parked.p50_ms, found.paced[-1].bare_ms
            tell(f"{name}, p50, ms: answered {ms[0]:.2f}, parked {ms[1]:.2f}, a bare write {ms[2]:.2f}")
    return found


def _loop(served: Served, name: Name, *, calls: int, rate: float, deferring: bool) -> Loop:
    """Measure 32 callers, and one call beside for every nineteen of theirs at the pace that `rate` has."""
    share = SHARE / (1 - SHARE)
    few, before = max(1, int(calls * share)), asyncio.run(_open(served, name))
    cpu, valkey = served.cpu_seconds(), served.valkey_seconds()
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(
            closed.saturate,
            served.address,
            METHOD,
            asked(name, doubtful=deferring),
            calls=few,
            streams=_BESIDE_STREAMS,
            rate=rate * share,
        )
        found = closed.saturate(served.address, METHOD, asked(name), calls=calls)
        others = beside.result()
    # One call of each asks how long an answer is.
    expected = deferring * (few + 1 + SHARE * (calls + 1))
    parked, behind = asyncio.run(_settled(served, name)) if deferring else (0, 0.0)
    return Loop(
        found,
        others,
        _MICRO * (served.cpu_seconds() - cpu) / (calls + few),
        _MICRO * (served.valkey_seconds() - valkey) / (calls + few),
        parked - before if deferring else 0,
        expected,
        behind,
    )


async def _open(served: Served, name: Name) -> int:
    """Return how many deferrals there are."""
    queue = Queue.connect(_config(served))
    try:
        return sum(state.open for state in await queue.states() if state.name == name)
    finally:
        await queue.close()


async def _settled(served: Served, name: Name) -> tuple[int, float]:
    """Return how many deferrals there are once no more come, and how long that took, seconds."""
    queue, start = Queue.connect(_config(served)), time.monotonic()
    count, since = -1, start
    try:
        while time.monotonic() < start + _SETTLE_SECONDS_MAX:
            now = sum(state.open for state in await queue.states() if state.name == name)
            if now != count:
                count, since = now, time.monotonic()
            elif time.monotonic() > since + BEHIND_SECONDS_MAX / 2:
                return count, since - start
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await queue.close()
    raise UnavailableError(f"{name}: deferrals still come {_SETTLE_SECONDS_MAX:.0f} s after the last answer")


def _config(served: Served) -> Config:
    url = embedded.url(embedded.folder(served.folder))
    return Config(data_folder=served.folder, tables={"redis": RedisSettings(url=url)})


def _paced(served: Served, name: Name, seconds: float) -> Paced:
    with workers(1) as crew:
        sure, doubtful = (
            opened.judged(
                shoot(
                    crew,
                    Load(
                        address=served.address,
                        payload=asked(name, doubtful=doubt),
                        rate=_LOW_RATE,
                        seconds_max=seconds,
                        arrivals="constant",
                        connections=1,
                    ),
                    wait_seconds=START_SECONDS,
                )
            )
            for doubt in (False, True)
        )
    return Paced(sure, doubtful, asyncio.run(_bare_ms(served, asked(name), seconds)))


async def _bare_ms(served: Served, payload: bytes, seconds: float) -> float:
    """Return how long a script takes that writes `payload`, p50, ms; at the same pace, on one connection."""
    bare, took = Bare(_config(served)), []
    start = time.monotonic()
    try:
        for number in range(int(_LOW_RATE * seconds)):
            await asyncio.sleep(max(0.0, start + number / _LOW_RATE - time.monotonic()))
            begin = time.perf_counter()
            await bare.write(str(number), payload)
            took.append(1000 * (time.perf_counter() - begin))
    finally:
        await bare.close()
    return percentile(took, 0.5)


def figures(found: Measured) -> list[Figure]:
    """Return the promises of one model."""
    rates = [(ours.found.rate, other.found.rate) for ours, other in zip(found.deferring, found.plain, strict=True)]
    waits = [(max(0.0, each.parked.p50_ms - each.answered.p50_ms), each.bare_ms) for each in found.paced]
    name = found.name
    return [
        figure(
            f"{name}: answered with 5 % parked and 5 % audited, over none",
            "a second",
            rates,
            limit=KEPT_MIN,
            at_least=True,
        ),
        figure(f"{name}: p50 parked less answered, over a bare write", "ms", waits, limit=WRITES_MAX),
    ]


def checks(found: Measured) -> list[Check]:
    """Return the promises, and whether what was measured is what was meant."""
    loops = [*found.plain, *found.deferring]
    failed = sum(each.found.failed + each.beside.failed for each in loops)
    opens = [side for each in found.paced for side in (each.answered, each.parked)]
    failed += sum(each.failed for each in opens)
    counts = [each.parked / each.expected for each in found.deferring]
    behind = max(each.behind_seconds for each in found.deferring)
    lag = max(each.lag_p99_ms for each in opens)

    def most(what: str, value: float, limit: float) -> Check:
        short = float(f"{value:.4g}")
        return Check(name=f"{found.name}: {what}", value=short, goal=f"<= {limit:g}", ok=short <= limit)

    return [
        *map(check, figures(found)),
        most("failed calls", failed, 0),
        most("parked and audited, furthest from what was meant", max(abs(each - 1) for each in counts), _COUNT_SLACK),
        most("parked after the last answer, s", behind, BEHIND_SECONDS_MAX),
        most("generator's lag p99, ms; more makes the run void", lag, opened.LAG_P99_MS_MAX),
    ]


def told(found: Measured) -> dict[str, object]:
    """Return what is told beside the promises: processor time a call, and what a row for people takes more."""
    plain, deferring = median(each.cpu_us for each in found.plain), median(each.cpu_us for each in found.deferring)
    share = SHARE + SHARE * (1 - SHARE)
    sides = {"plain": found.plain, "deferring": found.deferring}
    return {
        "cpu_us": {side: _spread([each.cpu_us for each in loops]) for side, loops in sides.items()},
        "valkey_us": {side: _spread([each.valkey_us for each in loops]) for side, loops in sides.items()},
        "row_us": round((deferring - plain) / share, 1),
        "parked": sum(each.parked for each in found.deferring),
        "closed_p50_ms": {side: median(each.found.p50_ms for each in loops) for side, loops in sides.items()},
        "closed_p99_ms": {side: median(each.found.p99_ms for each in loops) for side, loops in sides.items()},
        "behind_seconds": round(max(each.behind_seconds for each in found.deferring), 3),
        "answered_p50_ms": median(each.answered.p50_ms for each in found.paced),
        "parked_p50_ms": median(each.parked.p50_ms for each in found.paced),
        "parked_p99_ms": median(each.parked.p99_ms for each in found.paced),
        "bare_p50_ms": round(median(each.bare_ms for each in found.paced), 3),
    }


def _spread(values: list[float]) -> dict[str, float]:
    found: Spread = spread(values)
    return dict(msgspec.to_builtins(found))
