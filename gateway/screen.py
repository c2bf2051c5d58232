"""What `demur up` shows: a step under way, and one screen of what runs where and what to try."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.stack import Stack


@contextlib.contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """Show that `what` is under way: a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        with console.status(f"{what} ..."):
            yield
    else:
        console.print(f"{what} ...", highlight=False)
        yield


def show(console: Console, stack: Stack, facts: Mapping[str, str]) -> None:
    """Print where everything is and three lines to try."""
    where = Table.grid(padding=(0, 2))
    where.add_column(style="dim")
    where.add_column(overflow="fold")
    rows = {
        "gRPC": stack.gateway,
        "page": stack.page,
        "reviewers' gRPC": stack.review,
        "metrics": f"http://{stack.metrics}/metrics" if stack.metrics else "off",
        "device": f'{facts.get("provider") or "unknown"} (gateway.device = "{facts.get("device", "")}")',
        "Redis": stack.redis,
        "data": stack.data,
    }
    for what, value in rows.items():
        where.add_row(what, Text(value))
    console.print(Panel(where, title="Demur is up", title_align="left", expand=False, border_style="green"))
    console.print("Try:", style="bold")
    command = typed()
    lines = {
        stack.page: "the page where people answer",
        f"{command} predict digits --digit 7": "ask the model about a digit",
        f"{command} demo digits": "the whole loop by itself, retraining at least twice",
    }
    width = max(map(len, lines))
    for line, why in lines.items():
        console.print(Text.assemble("  ", (line.ljust(width), "cyan"), ("  " + why, "dim")), soft_wrap=True)
    console.print("Ctrl-C stops everything; the data stays.", style="dim")


def typed() -> str:
    """Return how a person here types this command: its name where the shell finds it, else its path."""
    if shutil.which("demur"):
        return "demur"
    script = Path(sys.executable).with_name("demur")
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)
