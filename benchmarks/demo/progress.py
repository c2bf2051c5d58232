"""What a person sees while the demo runs: the phase, a bar of the stream, and the processes' counts."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from benchmarks.demo.counts import Tally
from benchmarks.demo.journal import Failed, Replied, Reviewed
from benchmarks.demo.stream.progress import line
from benchmarks.demo.stream.run import Stream

_REFRESH_PER_SECOND = 4


def counters(tally: Tally) -> list[tuple[str, str]]:
    """Return the live counts as (what, how many), in the order they are shown."""
    deferred = len(tally.deferrals)
    told = sum(tally.told_by_callback().values())
    return [
        ("answered", str(tally.answered)),
        ("deferred", str(deferred)),
        ("waiting", str(max(0, deferred - told))),
        ("reviewed", str(len(tally.of(Reviewed)))),
        ("called back", str(told)),
        ("audited", str(len(tally.audits()))),
        ("failed", str(len(tally.of(Failed)))),
        ("champion", f"v{tally.versions[-1]}" if tally.versions else "-"),
    ]


class Display:
    """The live picture on a terminal; plain lines, one a phase, where there is none."""

    def __init__(self, console: Console, requests: int) -> None:
        self._console = console
        self._phase = ""
        self._last = ""
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._task = self._bar.add_task("stream", total=requests)
        self._tally = Tally()
        self._start = time.monotonic()
        self._live = Live(self._picture(), console=console, refresh_per_second=_REFRESH_PER_SECOND, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what happens now."""
        self._phase = text
        self._console.print(Text(f"{time.monotonic() - self._start:5.1f} s  {text}"))
        self._refresh()

    def show(self, tally: Tally) -> None:
        """Show the counts as they are."""
        self._tally = tally
        self._bar.update(self._task, completed=len(tally.of(Replied)) + len(tally.of(Failed)))
        self._refresh()

    def show_stream(self, stream: Stream) -> None:
        """Show how far the last act is."""
        self._last = line(stream, requests=stream.requests, seconds=time.monotonic() - self._start)
        self._refresh()

    def _refresh(self) -> None:
        if self._console.is_terminal:
            self._live.update(self._picture())

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 3))
        shown = counters(self._tally)
        table.add_row(*(Text(f"  {name}", style="dim") for name, _ in shown))
        table.add_row(*(Text(f"  {value}", style="bold") for _, value in shown))
        return Group(Text(), self._bar, table, Text(f"  {self._last}"))
