"""What `demur config` shows: every key with its meaning, or what is in force."""

from __future__ import annotations

from importlib.metadata import entry_points
from itertools import groupby

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fallback import config as settings
from fallback.config import Config
from gateway import toml


def explain(console: Console) -> None:
    """List every key by table: type, default, meaning."""
    for table, rows in groupby(settings.explain(), key=lambda row: row.table):
        title = {"": "top of the file", "environment": "environment variables"}.get(table, f"[{table}]")
        console.print(Text(f"\n{title}", style="bold"))
        grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        grid.add_column(style="cyan", no_wrap=True)
        grid.add_column(overflow="fold")
        for row in rows:
            facts = f"{row.type}, default {row.default}" if row.default else row.type
            what = Text.assemble(row.description, (f"  ({facts})" if table != "environment" else "", "dim"))
            grid.add_row(Text(row.key), what)
        console.print(grid)


def show(console: Console, config: Config) -> None:
    """Print what is in force as a demur.toml; what differs from the default is in bold."""
    where = f"read from {config.path}" if config.path else "no demur.toml: all defaults"
    _print(console, f"# {where}", style="dim")
    _print(console, toml.line("data_folder", str(config.data_folder)))
    for entry in entry_points(group="demur.config"):
        type_ = entry.load()
        if entry.name == settings.QUEUES:
            for name in ("default", *config.queue_names()):
                _table(console, (settings.QUEUES, name), config.queue(name), type_())
        else:
            _table(console, (entry.name,), config.table(entry.name, type_), type_())


def _table(console: Console, path: tuple[str, ...], found: msgspec.Struct, default: msgspec.Struct) -> None:
    _print(console, f"\n{toml.header(*path)}", style="bold")
    for key in found.__struct_fields__:
        value = getattr(found, key)
        if value is not None:
            style = "" if value == getattr(default, key) else "bold green"
            _print(console, toml.line(key, msgspec.to_builtins(value)), style=style)


def _print(console: Console, line: str, *, style: str = "") -> None:
    """Print a line whole, however long: what is shown is to be read as TOML."""
    console.print(Text(line, style=style), soft_wrap=True)
