"""The end of a run as a person reads it in a terminal: one table of versions, one of promises, three sparklines."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.demo.counts import Tally, Version
from benchmarks.demo.journal import Failed, Refused, Stumbled
from benchmarks.figures import Check
from benchmarks.screen import check_table

_SHOWN_MAX = 5
_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Return one bar a value, from lowest for the smallest to highest for the largest; all middle if equal."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return _BARS[len(_BARS) // 2] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def percent(share: float | None) -> str:
    """Return `share` in [0, 1] as a percentage with one decimal; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def version_table(versions: Sequence[Version]) -> Table:
    """Return the table of versions: three columns measured on the hold-out, three on the stream."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Each version, on the held-out digits and on what it served",
        title_justify="left",
    )
    table.add_column("version")
    for heading in ("accuracy", "deferred", "auto error"):
        table.add_column(f"{heading}\nhold-out", justify="right")
    for heading in ("requests", "deferred", "auto error"):
        table.add_column(f"{heading}\nstream", justify="right")
    for version in versions:
        table.add_row(
            version.version,
            percent(version.accuracy_holdout),
            percent(version.deferred_share),
            percent(version.auto_error),
            str(version.stream_requests),
            percent(version.stream_deferred_share),
            percent(version.stream_auto_error),
        )
    return table


def trend_table(versions: Sequence[Version]) -> Table:
    """Return a sparkline over the versions for each of the three figures, with its first and last value."""
    table = Table.grid(padding=(0, 2))
    rows = (
        ("accuracy on the hold-out", [version.accuracy_holdout for version in versions], "green"),
        ("share deferred to people", [version.deferred_share for version in versions], "yellow"),
        ("error among automatic answers", [version.auto_error for version in versions], "red"),
    )
    for name, values, colour in rows:
        if values:
            table.add_row(
                f"  {name}", Text(sparkline(values), style=colour), f"{percent(values[0])} → {percent(values[-1])}"
            )
    return table


def render(summary: dict[str, object], versions: Sequence[Version], checks: Sequence[Check]) -> RenderableType:
    """Return the whole report; `summary` as `counts.summary` makes it."""
    got = summary
    lines = [
        f"{got['requests']} requests: {got['answered']} answered at once, {got['deferred']} deferred to people",
        f"{got['resolved']} deferrals resolved, {got['callbacks_delivered']} called back, {got['lost']} lost",
        f"{got['audited']} answers audited, {got['amended']} of them amended",
        f"{got['swaps']} hot swaps, {got['failed_requests']} failed requests",
        f"Predict p50 {got['p50_ms']} ms, p99 {got['p99_ms']} ms; {got['seconds']} s in all",
        f"{got['machine']}",
    ]
    return Group(
        version_table(versions),
        trend_table(versions),
        Text(),
        *(Text(f"  {line}") for line in lines),
        Text(),
        check_table(checks),
    )


def caption(summary: dict[str, object]) -> str:
    """Return the two lines under the picture: the run in figures, and the machine they were measured on."""
    got = summary
    return (
        f"demur demo digits: {got['requests']} digits streamed over gRPC, {got['answered']} answered at once, "
        f"{got['deferred']} deferred, {got['audited']} audited, {got['failed_requests']} failed; "
        f"Predict p50 {got['p50_ms']} ms, p99 {got['p99_ms']} ms\n"
        f"397 held-out digits, at the live policy. Measured on {got['machine']}"
    )


def complaints(tally: Tally) -> list[str]:
    """Return what went wrong in the processes' own words, the first few of each kind."""
    failed = [f"failed: {entry.call} of request {entry.index}: {entry.error}" for entry in tally.of(Failed)]
    refused = [f"callback refused: {entry.reason}" for entry in tally.of(Refused)]
    stumbled = [f"tried again: {entry.call}: {entry.error}" for entry in tally.of(Stumbled)]
    return [*failed[:_SHOWN_MAX], *refused[:_SHOWN_MAX], *stumbled[:_SHOWN_MAX]]
