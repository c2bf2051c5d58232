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
    console.print(Text(f"# {where}", style="dim"))
    console.print(Text(f'data_folder = "{config.data_folder}"'))
    for entry in entry_points(group="demur.config"):
        type_ = entry.load()
        if entry.name == settings.QUEUES:
            for name in ("default", *config.queue_names()):
                _table(console, f"{settings.QUEUES}.{name}", config.queue(name), type_())
        else:
            _table(console, entry.name, config.table(entry.name, type_), type_())


def _table(console: Console, name: str, found: msgspec.Struct, default: msgspec.Struct) -> None:
    console.print(Text(f"\n[{name}]", style="bold"))
    for key in found.__struct_fields__:
        value = getattr(found, key)
        text = msgspec.json.encode(value).decode()
        console.print(Text(f"{key} = {text}", style="" if value == getattr(default, key) else "bold green"))
