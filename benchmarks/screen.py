"""What every command of measurements says in a terminal, and its one object of JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Check, Figure

PLAIN_COLUMNS = 120


def console(*, stderr: bool) -> Console:
    """Return what a command talks through; where there is no terminal, wide enough that no line is broken."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_COLUMNS)


def tell_figures(console: Console, figures: Sequence[Figure], *, end: str = "") -> None:
    """Say each figure, ours and what it is measured against; each ends with `end`."""
    for figure in figures:
        ours, other, ratio = figure.ours, figure.other, figure.ratio
        console.print(Text(f"  {figure.name}"))
        said = f"{ours.median:g} over {other.median:g} {figure.unit}: {ratio.median:g}, {ratio.low:g} to {ratio.high:g}"
        console.print(Text(f"    {said}{end}", style="dim"))


def check_table(checks: Sequence[Check]) -> Table:
    """Return every promise with what was found; a broken one stands out without colour too."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("BROKEN", style="bold red")
        table.add_row("", mark, check.name, f"{check.value:g}", Text(f"promised {check.goal}", style="dim"))
    return table


def print_json(found: object) -> None:
    """Print what `--json` asks for: the whole of a run as one object, on a line of its own."""
    print(msgspec.json.encode(found).decode(), flush=True)  # noqa: T201 - the command's output
