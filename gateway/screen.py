"""What `demur up` shows: a step under way, and one screen of what runs where and what to try."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

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
    for line, why in (
        (stack.page, "the page where people answer"),
        ("demur predict digits --digit 7", "ask the model about a digit"),
        ("demur demo digits", "the whole loop by itself, retraining twice"),
    ):
        console.print(Text.assemble("  ", (f"{line:<34}", "cyan"), ("  " + why, "dim")))
    console.print("Ctrl-C stops everything; the data stays.", style="dim")
