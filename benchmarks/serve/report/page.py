"""A page that needs nothing beside itself: sections with plots, and every number of them in a table. Pure.

What a server or a file says of itself is somebody else's text: everything is escaped, and the page runs no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from benchmarks.figures import Check
from benchmarks.serve.report import plots
from benchmarks.serve.report.plots import Plot

_CSS: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.55rem;line-height:1.25;margin:.2rem 0 .3rem}
h2{font-size:1.15rem;margin:2.6rem 0 .3rem}
p{margin:.3rem 0 .8rem;max-width:46rem}
.faint,figcaption,caption{color:var(--faint)}
.verdict{font-weight:600}.good{color:var(--green)}.bad{color:var(--red)}
.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.1rem 0;padding:0;list-style:none}
.cards li{border:1px solid var(--grid);border-radius:.5rem;padding:.6rem .9rem;min-width:11rem;flex:1 1 11rem}
.cards b{display:block;font-size:1.35rem;font-weight:650;font-variant-numeric:tabular-nums}
.cards small{color:var(--faint);display:block;line-height:1.35}
figure{margin:.8rem 0}
figure svg{width:100%;height:auto;max-width:58rem;display:block}
figcaption{font-size:.86rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums;margin:.5rem 0}
caption{text-align:left;font-size:.86rem;padding-bottom:.25rem}
th,td{padding:.22rem .7rem .22rem 0;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--faint);font-weight:500;vertical-align:bottom}
th:first-child,td:first-child,.words td,.words th{text-align:left}
.words td,td:first-child,td.why{white-space:normal}
.words td{overflow-wrap:anywhere}td.why{min-width:14rem}
tr.void td{color:var(--faint);text-decoration:line-through}
tr.void td.why{color:var(--red);text-decoration:none;text-align:left}
code{font:.86rem/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.9rem}
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{main{max-width:none}section{break-inside:avoid}}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Row(NamedTuple):
    """A row of a table; `void`: why it counts for nothing, empty for one that does."""

    cells: Sequence[str]
    void: str = ""


class Table(NamedTuple):
    """A table; `words` where its cells are sentences rather than numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    words: bool = False


class Section(NamedTuple):
    """One part of the page."""

    title: str
    lead: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()


class Card(NamedTuple):
    """One figure to see first: what it is, and what belongs to it."""

    figure: str
    what: str
    beside: str = ""


class Page(NamedTuple):
    """The whole report."""

    title: str
    lead: str
    ok: bool
    cards: Sequence[Card]
    sections: Sequence[Section]
    notes: Sequence[str]
    # What it was measured on and with: names and values.
    facts: Sequence[tuple[str, str]]
    checks: Sequence[Check]


def render(page: Page) -> str:
    """Return the page as HTML."""
    broken = sum(not check.ok for check in page.checks)
    kept = (
        "every check is ok"
        if page.ok
        else f"{broken} of {len(page.checks)} checks {'is' if broken == 1 else 'are'} not ok"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    body = (
        f"<header><h1>{escape(page.title)}</h1><p class=faint>{escape(page.lead)}</p>"
        f'<p class="verdict {"good" if page.ok else "bad"}">{kept}</p></header>'
        f"<ul class=cards>{''.join(map(_card, page.cards))}</ul>"
        f"{f'<h2>To know beside the figures</h2><ul>{notes}</ul>' if notes else ''}"
        f"{''.join(map(_section, page.sections))}"
        f"{_section(Section('Checks', '', tables=[_checks(page.checks)]))}"
        f"<section><h2>Measured on and with</h2><dl>{''.join(map(_fact, page.facts))}</dl></section>"
    )
    return (
        "<!doctype html>\n"
        f'<html lang=en><head><meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        '<meta name=viewport content="width=device-width,initial-scale=1"><meta name=color-scheme content="light dark">'
        f"<title>{escape(page.title)}</title><style>{plots.style(':root')}{_CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure as it stands in tables, to so many digits; a dash for None."""
    if value is None:
        return "-"
    short = float(f"{value:.{digits}g}")
    return f"{short:,.0f}" if abs(short) >= 1000 else f"{short:g}"  # noqa: PLR2004 - from here on digits are grouped


def _card(card: Card) -> str:
    beside = f"<small>{escape(card.beside)}</small>" if card.beside else ""
    return f"<li><b>{escape(card.figure)}</b>{escape(card.what)}{beside}</li>"


def _section(section: Section) -> str:
    lead = f"<p>{escape(section.lead)}</p>" if section.lead else ""
    drawn = "".join(map(_figure, section.plots))
    return f"<section><h2>{escape(section.title)}</h2>{lead}{drawn}{''.join(map(_table, section.tables))}</section>"


def _figure(plot: Plot) -> str:
    return f"<figure>{plot.svg}<figcaption>{escape(plot.title)}</figcaption></figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in table.head)
    rows = "".join(map(_row, table.rows))
    kind = " class=words" if table.words else ""
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return f"<div class=wide><table{kind}>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _row(row: Row) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
    if not row.void:
        return f"<tr>{cells}</tr>"
    return f"<tr class=void>{cells}<td class=why>void: {escape(row.void)}</td></tr>"


def _fact(fact: tuple[str, str]) -> str:
    name, value = fact
    said = f"<code>{escape(value)}</code>" if name == "command" else escape(value)
    return f"<dt>{escape(name)}</dt><dd>{said}</dd>"


def _checks(checks: Sequence[Check]) -> Table:
    rows = [
        Row((("ok" if check.ok else "NOT OK"), check.name, number(check.value), f"promised {check.goal}"))
        for check in checks
    ]
    return Table("", ("", "what", "found", ""), rows, words=True)
