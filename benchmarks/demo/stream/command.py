"""`demur demo stream`: a stack of its own, the run, what came of it as tables and one JSON object."""

from __future__ import annotations

import asyncio
import base64
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from benchmarks import machine, screen, stack
from benchmarks.demo import report as demo_report
from benchmarks.demo.journal import Replied
from benchmarks.demo.receiver import SECRET
from benchmarks.demo.stream import model, report, scores
from benchmarks.demo.stream.progress import Ticker
from benchmarks.demo.stream.run import Plan, Stream
from gateway.up import demur

# Everybody answers within seconds; a label that does not come counts as an error after this.
SETTINGS: Final = """
[queues.default]
lease_seconds = 30
review_seconds = 120
"""
MODEL: Final = "stream"
SECRET_BYTES: Final = 32
VERIFY_SECONDS_MAX: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for on the command line."""

    scores: Path
    labels: Path
    alpha: float
    delta: float
    audit_share: float
    requests: int
    error_rate: float
    people: int
    per_second: float
    seed: int
    as_json: bool
    keep: Path | None


def run(wish: Wish) -> bool:
    """Run the stream once and tell what came of it; returns whether every promise holds."""
    found = scores.load(wish.scores, wish.labels)
    rows = found.draw(wish.requests, wish.seed)
    start = time.monotonic()
    console = screen.console(stderr=wish.as_json)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    with (
        stack.tidily(),
        stack.place(wish.keep) as folder,
        Ticker(console, wish.requests) as ticker,
    ):
        ticker.phase("starting a stack of its own: queue, gateway, reviews, trainer")
        with stack.own(folder, settings=SETTINGS, secrets={SECRET: secret}) as own:
            plan = Plan(
                stack=own,
                folder=folder,
                artefact=model.save(len(found.classes), folder / "stream.onnx"),
                manifest=model.manifest(MODEL, found),
                input=model.INPUT,
                values=found.values,
                scores=found,
                rows=rows,
                alpha=wish.alpha,
                delta=wish.delta,
                audit_share=wish.audit_share,
                error_rate=wish.error_rate,
                people=wish.people,
                per_second=wish.per_second,
                seed=wish.seed,
            )
            stream = Stream(plan, ticker.show)
            ticker.phase(f"streaming {wish.requests} requests; {wish.people} people review")
            asyncio.run(stream.run())
            ticker.phase("verifying the certificate from the ledger alone, and stopping the stack")
            verified = _verify(folder / "demur.toml", console)
    served = report.serve(stream.tally.of(Replied), rows, found)
    checks = report.judge(
        stream.tally,
        served,
        stream.proofs,
        alpha=wish.alpha,
        delta=wish.delta,
        requests=wish.requests,
        left_open=stream.open,
        verified=verified,
    )
    summary = report.summary(
        stream.tally,
        served,
        stream.proofs,
        stream.standing,
        checks,
        alpha=wish.alpha,
        oracle=found.oracle(wish.alpha),
        facts=_facts(wish, found, time.monotonic() - start),
    )
    console.print(report.render(summary, stream.proofs.all, checks))
    for entry in demo_report.complaints(stream.tally):
        console.print(Text(f"  {entry}", style="red"))
    if wish.as_json:
        screen.print_json(summary)
    return all(check.ok for check in checks)


def _facts(wish: Wish, found: scores.Scores, seconds: float) -> dict[str, object]:
    """Return what the run was made of, for the summary."""
    return {
        "alpha": wish.alpha,
        "delta": wish.delta,
        "audit_share": wish.audit_share,
        "error_rate": wish.error_rate,
        "people": wish.people,
        "rows": len(found.labels),
        "accuracy": round(1 - float(found.wrong.mean()), report.PLACES),
        "seed": wish.seed,
        "seconds": round(seconds, 1),
        "machine": machine.describe(),
    }


def _verify(config: Path, console: Console) -> bool:
    """Run `demur verify` on the run's data folder; says what it printed where it does not agree."""
    done = subprocess.run(  # noqa: S603 - this Python, our own command
        demur("verify", MODEL),
        capture_output=True,
        text=True,
        check=False,
        env=stack.environment(config, {}),
        timeout=VERIFY_SECONDS_MAX,
    )
    if done.returncode:
        console.print(Text((done.stdout + done.stderr).strip()[-2000:], style="red"))
    return done.returncode == 0
