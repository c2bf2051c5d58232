"""`demur demo digits`: a stack to run on, the run, what came of it as a table, a picture and one JSON object."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.demo import certify, counts, evaluate, picture, report
from benchmarks.demo.counts import Tally, Version
from benchmarks.demo.journal import Replied
from benchmarks.demo.orchestrator import Orchestration, Plan, lay_down
from benchmarks.demo.progress import Display
from benchmarks.demo.receiver import SECRET
from benchmarks.figures import Check
from fallback import config as configuration
from fallback.config import Config, FallbackSettings
from fallback.secret import secret as kept_secret
from gateway.stack import Stack
from trainer import digits

# What a demonstration wants faster or more talkative than an operator does.
SETTINGS = """
[queues.default]
lease_seconds = 20

[trainer]
retrain_after_reviews = 80
"""
STUMBLE_EVERY = 20
SWAPS_GOAL = 2
MODEL = "digits"
SECRET_BYTES = 32
# The receiver fails no attempt of a stack that would be slower than this to make the next.
BACKOFF_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a run stands on: the stack, the model's name there, and the secret its callbacks are signed with."""

    stack: Stack
    model: str
    secret: str
    stumble_every: int


def run(*, as_json: bool, running: bool, requests: int, seed: int, keep: Path | None, to: Path | None) -> bool:
    """Run the demo once and tell what came of it; returns whether every promise holds."""
    start = time.monotonic()
    run_id = secrets.token_hex(3)
    console = screen.console(stderr=as_json)
    config = configuration.load()
    with (
        stack.tidily(),
        stack.place(keep) as folder,
        ThreadPoolExecutor(1) as aside,
        Display(console, requests) as display,
    ):
        laying = aside.submit(lay_down, folder / "stream.msgpack", seed)
        with _running(config, run_id, display) if running else _own(folder, display) as ground:
            plan = Plan(
                stack=ground.stack,
                folder=folder,
                images=folder / "stream.msgpack",
                model=ground.model,
                run=run_id,
                requests=requests,
                seed=seed,
                swaps_goal=SWAPS_GOAL,
                secret=ground.secret,
                stumble_every=ground.stumble_every,
            )
            truth = laying.result().labels
            orchestration = Orchestration(plan, display)
            asyncio.run(orchestration.run())
            tally = orchestration.tally
            display.phase("measuring each version on the hold-out")
            versions = asyncio.run(evaluate.measure_all(ground.stack, ground.model, tally, truth))
            display.phase(f"certifying the last version on fresh requests: at most {certify.ALPHA:.0%} wrong")
            certified = certify.run(
                ground.stack,
                folder / "certified",
                model=ground.model,
                version=versions[-1].version,
                seed=seed,
                show=display.show_stream,
            )
    path = to or (keep or config.data_folder) / "demo" / f"digits-{run_id}.png"
    facts = {
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine.describe(),
        "model": ground.model,
        "stack": "running" if running else "own",
        "seed": seed,
        "versions_on": f"{digits.HOLDOUT_COUNT} held-out digits at the live policy; stream_*: what clients saw",
        "picture": str(path),
        "certified": msgspec.to_builtins(certified),
        "certificate": certify.sentence(certified),
    }
    checks = [
        *counts.judge(tally, versions, requests=requests, swaps_goal=SWAPS_GOAL, left_open=orchestration.left_open),
        *certify.judge(certified),
    ]
    _tell(console, tally, versions, checks, facts=facts, as_json=as_json)
    return all(check.ok for check in checks)


def _tell(
    console: Console,
    tally: Tally,
    versions: list[Version],
    checks: list[Check],
    *,
    facts: dict[str, object],
    as_json: bool,
) -> None:
    summary = counts.summary(tally, versions, checks, facts)
    console.print(report.render(summary, versions, checks))
    path = Path(str(facts["picture"]))
    picture.draw(path, versions, tally.of(Replied), caption=report.caption(summary))
    console.print(Text(f"  {facts['certificate']}"))
    console.print(Text(f"  picture: {path}"))
    for entry in report.complaints(tally):
        console.print(Text(f"  {entry}", style="red"))
    if as_json:
        screen.print_json(summary)


@contextlib.contextmanager
def _own(folder: Path, display: Display) -> Iterator[Ground]:
    display.phase("starting a stack of its own: queue, gateway, reviews; a first model from 200 digits; trainer")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    with stack.own(folder, settings=SETTINGS, secrets={SECRET: secret}) as found:
        yield Ground(stack=found, model=MODEL, secret=secret, stumble_every=STUMBLE_EVERY)
        display.phase("stopping the stack")


@contextlib.contextmanager
def _running(config: Config, run_id: str, display: Display) -> Iterator[Ground]:
    """Use the stack that runs, under a model's name of this run's own, so that nobody's queue is disturbed."""
    found = stack.running(config.data_folder)
    model = f"{MODEL}-demo-{run_id}"
    display.phase(f"training a first model from 200 digits on the running stack, as {model}")
    stack.first(MODEL, model)
    settings = config.table("fallback", FallbackSettings)
    patient = bool(settings.callback_retry_seconds) and settings.callback_retry_seconds[0] <= BACKOFF_SECONDS_MAX
    yield Ground(
        stack=found,
        model=model,
        secret=kept_secret(config, "webhook").split()[0],
        stumble_every=STUMBLE_EVERY if patient else 0,
    )
