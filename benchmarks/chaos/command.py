"""`demur bench chaos`: the rounds, then what came of them as a table and one JSON object."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.chaos import plan
from benchmarks.chaos.ground import Launch, alone, ground
from benchmarks.chaos.plan import Target
from benchmarks.chaos.rounds import IN_FLIGHT_MIN, ROUND_SECONDS_MAX, SETTLE_SECONDS_MAX, Results, Rounds
from benchmarks.figures import Check
from gateway.up import demur

FAULTS_MIN = 3
# What the server may hold more than before the first round: scripts it knows by now, buffers, a few stream nodes.
MEMORY_BYTES_MAX = 2 * 1024 * 1024
SHOWN_MAX = 50
# What runs in one process with the replica that is struck.
_WITHIN = {Target.REVIEW: "review (page, reaper, dispatcher)"}


def run(*, rounds: int, seed: int, as_json: bool, keep: Path | None) -> bool:
    """Run `rounds` rounds and tell what came of them; returns whether every promise held."""
    console = screen.console(stderr=as_json)
    start = time.monotonic()
    with stack.tidily(), stack.place(keep) as folder:

        def tell(line: str) -> None:
            console.print(Text(f"{time.monotonic() - start:6.1f} s  {line}"))

        results = asyncio.run(chaos(folder, rounds=rounds, seed=seed, tell=tell))
    checks = judge(results)
    found = summary(results, checks, seed=seed, seconds=time.monotonic() - start)
    _tell(console, found, checks)
    if as_json:
        screen.print_json(found)
    return all(check.ok for check in checks)


async def chaos(
    folder: Path,
    *,
    rounds: int,
    seed: int,
    tell: Callable[[str], None],
    launch: Launch = demur,
    purge: bool = True,
    settle_seconds: float = SETTLE_SECONDS_MAX,
) -> Results:
    """Run on a ground of its own in `folder`, an empty folder; `launch` is what starts gateway and replicas.

    With `purge` it ends when the server has forgotten everything. What is not told within `settle_seconds` after the
    last round counts as never told.
    """
    tell("starting Valkey, a gateway, two review replicas, three reviewers, two clients and a receiver")
    with alone():
        async with ground(folder, seed=seed, launch=launch) as made:
            running = Rounds(made, seed=seed, tell=tell, settle_seconds=settle_seconds)
            await running.run(rounds, purge=purge)
            return running.results


def judge(results: Results) -> list[Check]:
    """Return every promise of a run beside what was found."""
    rounds = results.rounds
    accepted = min((one.accepted for one in rounds), default=0)
    in_flight = min((one.in_flight for one in rounds), default=0)
    longest = max((one.seconds for one in rounds), default=0.0)
    fewest = min((len(one.faults) for one in rounds), default=0)
    missing = plan.missing([one.faults for one in rounds]) if len(rounds) >= 10 else []  # noqa: PLR2004 - any ten
    grown = results.kept_bytes_after - results.kept_bytes_before
    checks = [
        Check(name=promise, value=len(problems), goal="= 0", ok=not problems)
        for promise, problems in results.broken.items()
    ]
    return [
        *checks,
        Check(
            name="accepted in the poorest round",
            value=accepted,
            goal=f">= {IN_FLIGHT_MIN}",
            ok=accepted >= IN_FLIGHT_MIN,
        ),
        Check(
            name="in flight when the first fault of a round struck, at least",
            value=in_flight,
            goal=f">= {IN_FLIGHT_MIN}",
            ok=in_flight >= IN_FLIGHT_MIN,
        ),
        Check(
            name="seconds of the longest round",
            value=round(longest, 2),
            goal=f"<= {ROUND_SECONDS_MAX:g}",
            ok=longest <= ROUND_SECONDS_MAX,
        ),
        Check(name="faults a round, at least", value=fewest, goal=f">= {FAULTS_MIN}", ok=fewest >= FAULTS_MIN),
        Check(name="kinds missing within ten rounds", value=len(missing), goal="= 0", ok=not missing),
        Check(
            name="bytes on the server over those before, keys that still lapse aside",
            value=grown,
            goal=f"<= {MEMORY_BYTES_MAX}",
            ok=grown <= MEMORY_BYTES_MAX,
        ),
    ]


def summary(results: Results, checks: list[Check], *, seed: int, seconds: float) -> dict[str, object]:
    """Return the object that `--json` prints."""
    faults = [fault for one in results.rounds for fault in one.faults]
    violations = [f"{promise}: {problem}" for promise, problems in results.broken.items() for problem in problems]
    return {
        "rounds": len(results.rounds),
        "seed": seed,
        "faults": len(faults),
        "faults_by_kind": dict(sorted(Counter(str(fault.kind) for fault in faults).items())),
        "faults_by_process": dict(
            sorted(Counter(_WITHIN.get(fault.target, str(fault.target)) for fault in faults if fault.target).items())
        ),
        "faults_by_connection": dict(sorted(Counter(str(fault.link) for fault in faults if fault.link).items())),
        "accepted": results.accepted,
        "accepted_min": min((one.accepted for one in results.rounds), default=0),
        "in_flight_min": min((one.in_flight for one in results.rounds), default=0),
        "resolved": results.states["resolved"],
        "cancelled": results.states["cancelled"],
        "reviews": results.reviews,
        "callbacks": results.callbacks,
        "lost": len(results.broken.get("accepted deferrals without an outcome", [])),
        "duplicated": len(results.broken.get("deferrals with more than one outcome", [])),
        "violations": len(violations),
        "violations_shown": violations[:SHOWN_MAX],
        "round_seconds_max": round(max((one.seconds for one in results.rounds), default=0.0), 2),
        "checks": [msgspec.to_builtins(check) for check in checks],
        "ok": all(check.ok for check in checks),
        "machine": machine.describe(),
        "seconds": round(seconds, 1),
    }


def _tell(console: Console, found: dict[str, object], checks: list[Check]) -> None:
    console.print(
        Text(
            f"  {found['rounds']} rounds, {found['faults']} faults: {found['accepted']} accepted, "
            f"{found['resolved']} resolved, {found['cancelled']} cancelled, {found['reviews']} reviews, "
            f"{found['callbacks']} called back; {found['seconds']} s"
        )
    )
    console.print(Text(f"  {found['machine']}"))
    violations = found["violations_shown"]
    assert isinstance(violations, list)
    for violation in violations:
        console.print(Text(f"  {violation}", style="red"))
    console.print(screen.check_table(checks))
