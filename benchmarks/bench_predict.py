"""`demur bench predict`: an open-loop run against a stack, with its figures, its machine and whether to believe it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import load, machine, screen, stack
from benchmarks.caller import CALL_SECONDS, Specification
from benchmarks.load import Shot
from fallback import channel
from fallback import config as configuration
from fallback.errors import UnavailableError
from gateway.model_client import ModelClient
from gateway.stack import Stack
from trainer import digits

MODEL = "digits"
# Enough for every caller to have started and connected.
START_SECONDS = 3.0
GRACE_SECONDS = 10.0


def run(*, rate: float, seconds: float, callers: int, as_json: bool, running: bool, seed: int) -> bool:
    """Run once and tell; returns whether no request failed and the run may be believed."""
    console = screen.console(stderr=as_json)
    with (
        stack.tidily(),
        stack.place(None) as folder,
        _ground(folder, running=running, console=console) as (found, model),
    ):
        asyncio.run(_answer_all(found.gateway, model))
        console.print(
            Text(f"{rate:g} requests a second for {seconds:g} s from {callers} processes, Poisson, open loop")
        )
        specifications = [
            Specification(
                gateway=found.gateway,
                model=model,
                content=digits.load().png(digits.load().stream[number]),
                start=time.time() + START_SECONDS,
                rate=rate / callers,
                seconds=seconds,
                seed=seed * callers + number,
            )
            for number in range(callers)
        ]
        shots = _call(folder, specifications)
    facts: dict[str, object] = {
        "seconds": seconds,
        "callers": callers,
        "seed": seed,
        "stack": "running" if running else "own",
        "machine": machine.describe(),
    }
    summary = load.summary(shots, rate=rate, seconds=seconds, facts=facts)
    _tell(console, summary, shots, seconds=seconds)
    if as_json:
        screen.print_json(summary)
    return bool(summary["ok"])


def _call(folder: Path, specifications: list[Specification]) -> list[Shot]:
    """Run every caller in a process of its own and return all shots; raises UnavailableError if a caller fails."""
    children: list[tuple[subprocess.Popen[bytes], Path]] = []
    try:
        for number, specification in enumerate(specifications):
            path, result = folder / f"caller-{number}.json", folder / f"shots-{number}.json"
            path.write_bytes(msgspec.json.encode(specification))
            command = [sys.executable, "-m", "benchmarks.caller", str(path), str(result)]
            children.append((subprocess.Popen(command, env=os.environ.copy()), result))  # noqa: S603 - this Python, our own module
        for child, _ in children:
            if child.wait(START_SECONDS + specifications[0].seconds + CALL_SECONDS + GRACE_SECONDS):
                raise UnavailableError(f"a caller ended with code {child.returncode}; what it said stands above")
    finally:
        for child, _ in children:
            child.kill()
            child.wait()
    return [shot for _, result in children for shot in msgspec.json.decode(result.read_bytes(), type=list[Shot])]


async def _answer_all(gateway: str, model: str) -> None:
    """Have the policy of `model` answer everything: what is measured is the answer, and nothing is parked."""
    async with ModelClient(gateway, **channel.shown("bench")) as client:
        policy = await client.get_policy(model)
        policy.threshold = policy.audit_share = 0.0
        policy.class_thresholds.clear()
        del policy.always_person[:]
        await client.update_policy(policy)


@contextlib.contextmanager
def _ground(folder: Path, *, running: bool, console: Console) -> Iterator[tuple[Stack, str]]:
    if running:
        found, model = stack.running(configuration.load().data_folder), f"{MODEL}-bench-{secrets.token_hex(3)}"
        console.print(Text(f"training a first model on the running stack, as {model}"))
        stack.first(MODEL, model)
        yield found, model
        return
    console.print(Text("starting a stack of its own"))
    with stack.own(folder, secrets={}) as found:
        yield found, MODEL


def _tell(console: Console, summary: dict[str, object], shots: list[Shot], *, seconds: float) -> None:
    got = summary
    lines = [
        f"from when it was due: p50 {got['p50_ms']} ms, p99 {got['p99_ms']} ms, p99.9 {got['p999_ms']} ms",
        f"{got['requests']} requests: {got['offered_rate']} a second offered, {got['achieved_rate']} achieved",
        f"{got['machine']}",
    ]
    for line in lines:
        console.print(Text(f"  {line}"))
    console.print(screen.check_table(load.judge(shots, seconds=seconds)))
