"""Plots as SVG. Text stays text, and colours are names that a style sheet fills in: one picture for light and dark.

matplotlib knows no style sheets, so it draws with colours that stand for names and are replaced afterwards.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

Point = tuple[float, float]
WIDTH: Final = 8.4
HEIGHT: Final = 3.6


class Colour(NamedTuple):
    """A named colour: what stands for it while matplotlib draws, and what it is on light and on dark paper."""

    drawn: str
    light: str
    dark: str


PALETTE: Final[dict[str, Colour]] = {
    "ink": Colour("#010000", "#22272e", "#e6e9ee"),
    "faint": Colour("#020000", "#5d6673", "#9fabb8"),
    "grid": Colour("#030000", "#e1e5ea", "#343c46"),
    "paper": Colour("#040000", "#ffffff", "#14181d"),
    "blue": Colour("#050000", "#1f5fa8", "#6cb0ff"),
    "amber": Colour("#060000", "#a85a00", "#f0a64a"),
    "green": Colour("#070000", "#1a7f5a", "#5fcf9f"),
    "red": Colour("#080000", "#b8332a", "#ff8f80"),
    "violet": Colour("#090000", "#7a4fb5", "#c3a0ff"),
    "slate": Colour("#0a0000", "#6b7480", "#b4bec9"),
}
# Lines differ in more than colour.
_LINES: Final = (
    ("blue", "o", "solid"),
    ("amber", "s", (0, (5, 2))),
    ("green", "^", (0, (1, 1.2))),
    ("violet", "D", (0, (6, 2, 1, 2))),
    ("red", "v", (0, (3, 1))),
    ("slate", "P", (0, (8, 2))),
)
_PERCENTILES: Final = (0, 50, 90, 99, 99.9, 99.99, 99.999)
# Values further apart than this are drawn on a logarithmic axis.
_WIDE: Final = 12.0
_MARKED_MAX: Final = 16
_COLUMNS_MAX: Final = 5
# Inches that a picture has left and right of its axes, about.
_MARGIN: Final = 0.8


class Plot(NamedTuple):
    """One picture: its name (of a file, too), what it shows in a line and in a sentence, and the picture."""

    name: str
    title: str
    text: str
    svg: str

    def alone(self) -> str:
        """Return it as a file of its own, which follows its reader's choice of light or dark."""
        return self.svg.replace(">", f"><style>{style(':root')}</style>", 1)


class Line(NamedTuple):
    """A named row of points."""

    label: str
    points: Sequence[Point]


class Mark(NamedTuple):
    """Something at one place of an axis: a bound, a goal."""

    label: str
    at: float


def style(selector: str) -> str:
    """Return the style sheet that fills the names in for what is within `selector`."""

    def fill(chosen: Callable[[Colour], str]) -> str:
        return "".join(f"--{name}:{chosen(colour)};" for name, colour in PALETTE.items())

    light, dark = fill(lambda colour: colour.light), fill(lambda colour: colour.dark)
    return f"{selector}{{{light}}}@media(prefers-color-scheme:dark){{{selector}{{{dark}}}}}"


def percentiles(name: str, title: str, lines: Sequence[Line], *, bound: Mark | None = None) -> Plot:
    """Draw latency (ms) by percentile, on an axis on which each ninth is as far again: 90, 99, 99.9."""

    def draw(axes: Any) -> None:
        most = 10.0
        for number, line in enumerate(lines):
            # The last point, 100 %, lies nowhere on this axis.
            points = [(1 / (1 - percent / 100), ms) for percent, ms in line.points if percent < 100]  # noqa: PLR2004
            most = max([most, *(place for place, _ in points)])
            _plot(axes, number, line.label, points, marked=len(points) <= _MARKED_MAX)
        axes.set_xscale("log")
        axes.set_xlim(1, most * 1.15)
        shown = [percent for percent in _PERCENTILES if 1 / (1 - percent / 100) <= most * 1.15]
        axes.set_xticks([1 / (1 - percent / 100) for percent in shown], [f"{percent:g} %" for percent in shown])
        axes.set_xticks([], minor=True)
        _up(axes, [ms for line in lines for _, ms in line.points], "latency, ms", bound)
        axes.set_xlabel("percentile of requests")

    return _drawn(name, title, f"Latency by percentile of {_listed(line.label for line in lines)}.", draw)


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    up: str,
    bound: Mark | None = None,
    at: Mark | None = None,
    dots: Line | None = None,
    crosses: Sequence[Point] = (),
    labels: Sequence[str] = (),
) -> Plot:
    """Draw lines over one quantity. `bound` lies across, `at` upright; `dots` are not joined; `crosses` do not count.

    `labels` stand beside the points of the last line.
    """

    def draw(axes: Any) -> None:
        for number, line in enumerate(lines):
            _plot(axes, number, line.label, line.points, marked=True)
        if dots is not None and dots.points:
            places, heights = zip(*dots.points, strict=True)
            axes.plot(
                places, heights, color=PALETTE["slate"].drawn, linewidth=0, marker="o", markersize=5.5,
                markerfacecolor="none", label=dots.label,
            )  # fmt: skip
        if crosses:
            ink = PALETTE["red"].drawn
            places, heights = zip(*crosses, strict=True)
            axes.plot(
                places, heights, color=ink, linewidth=0, marker="x", markersize=8, label="void: counts for nothing"
            )
        for label, (place, value) in zip(labels, lines[-1].points if lines else (), strict=False):
            axes.annotate(
                label, (place, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8,
                color=PALETTE["faint"].drawn,
            )  # fmt: skip
        axes.set_xlim(left=0)
        if at is not None:
            _upright(axes, at)
        values = [value for line in [*lines, *([dots] if dots else [])] for _, value in line.points]
        values += [value for _, value in crosses]
        _up(axes, values, up, bound)
        axes.set_xlabel(across)

    said = f"{up} over {across}: {_listed(line.label for line in lines)}."
    if bound is not None:
        said += f" {bound.label}: {bound.at:g}."
    return _drawn(name, title, said[0].upper() + said[1:], draw)


def stacked(name: str, title: str, labels: Sequence[str], parts: Sequence[Line], *, across: str, up: str) -> Plot:
    """Draw a bar for each label, of parts one upon the other: `Line.points` are (number of the bar, size)."""

    def draw(axes: Any) -> None:
        floor = [0.0] * len(labels)
        hatches = ("", "//", "\\\\")
        for number, part in enumerate(parts):
            sizes = [size for _, size in part.points]
            axes.bar(
                range(len(labels)), sizes, 0.62, bottom=floor, label=part.label, linewidth=0.6,
                color=PALETTE[_LINES[number][0]].drawn, edgecolor=PALETTE["paper"].drawn, hatch=hatches[number % 3],
            )  # fmt: skip
            floor = [low + size for low, size in zip(floor, sizes, strict=True)]
        for place, whole in enumerate(floor):
            axes.annotate(
                _number(whole), (place, whole), textcoords="offset points", xytext=(0, 4), ha="center", fontsize=8,
                color=PALETTE["faint"].drawn,
            )  # fmt: skip
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(0, max([*floor, 1e-9]) * 1.14)
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return _drawn(name, title, f"{up} over {across}, split into {_listed(part.label for part in parts)}.", draw)


class Ratio(NamedTuple):
    """One promise as a part of its goal, 1 or more where it is kept: the middle, the least, the most; and in words."""

    label: str
    middle: float
    low: float
    high: float
    said: str


def ratios(name: str, title: str, found: Sequence[Ratio]) -> Plot:
    """Draw promises one under the other, each with its spread, on an axis whose 1 is the goal."""

    def draw(axes: Any) -> None:
        for place, each in enumerate(found):
            ink = PALETTE["green" if each.middle >= 1 else "red"].drawn
            axes.plot([each.low, each.high], [place, place], color=ink, linewidth=2.2, solid_capstyle="round")
            axes.plot(
                [each.middle], [place], color=ink, marker="o" if each.middle >= 1 else "X", markersize=8,
                markeredgecolor=PALETTE["paper"].drawn,
            )  # fmt: skip
            axes.annotate(
                each.said, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5,
                color=PALETTE["ink"].drawn, annotation_clip=False,
            )  # fmt: skip
        axes.axvline(1, color=PALETTE["ink"].drawn, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            "goal", (1, 1), xycoords=("data", "axes fraction"), textcoords="offset points", xytext=(0, 4), ha="center",
            fontsize=8.5, color=PALETTE["faint"].drawn,
        )  # fmt: skip
        axes.set_yticks(range(len(found)), [each.label for each in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        least = min([0.4, *(each.low for each in found)])
        axes.set_xlim(max(0.0, least - 0.05), max([1.6, *(each.high for each in found)]) + 0.05)
        axes.set_xlabel("part of the goal; left of it a promise is broken (X)")
        axes.tick_params(axis="y", labelsize=8.5)
        axes.grid(visible=True, axis="x", color=PALETTE["grid"].drawn, linewidth=0.8)
        axes.grid(visible=False, axis="y")

    said = "; ".join(f"{each.label}: {each.said}" for each in found)
    return _drawn(name, title, f"{said}.", draw, height=1.1 + 0.42 * max(1, len(found)), legend=False, width=9.6)


def bars(name: str, title: str, found: Sequence[tuple[str, float, str]], *, across: str) -> Plot:
    """Draw one bar under the other: its label, its length, and what is said behind it."""

    def draw(axes: Any) -> None:
        longest = max([*(size for _, size, _ in found), 1e-9])
        for place, (_, size, said) in enumerate(found):
            axes.barh([place], [size], 0.6, color=PALETTE["blue"].drawn)
            axes.annotate(
                said, (size, place), textcoords="offset points", xytext=(5, 0), va="center", fontsize=8.5,
                color=PALETTE["ink"].drawn,
            )  # fmt: skip
        axes.set_yticks(range(len(found)), [label for label, _, _ in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(0, longest * 1.34)
        axes.set_xlabel(across)
        axes.grid(visible=True, axis="x", color=PALETTE["grid"].drawn, linewidth=0.8)
        axes.grid(visible=False, axis="y")

    said = "; ".join(f"{label}: {said}" for label, _, said in found)
    return _drawn(name, title, f"{across}. {said}.", draw, height=0.9 + 0.36 * max(1, len(found)), legend=False)


def _plot(axes: Any, number: int, label: str, points: Sequence[Point], *, marked: bool) -> None:
    colour, marker, dash = _LINES[number % len(_LINES)]
    axes.plot(
        [place for place, _ in points], [value for _, value in points], color=PALETTE[colour].drawn, linewidth=1.8,
        linestyle=dash, marker=marker if marked else None, markersize=5, label=label,
        markeredgecolor=PALETTE["paper"].drawn, markeredgewidth=0.7,
    )  # fmt: skip


def _up(axes: Any, values: Sequence[float], what: str, bound: Mark | None) -> None:
    """Set the upright axis: logarithmic where values are far apart, from 0 where they are not; draw the bound."""
    from matplotlib import ticker

    known = [value for value in values if value > 0] or [1.0]
    if bound is not None:
        known.append(bound.at)
    low, high = min(known), max(known)
    if high > _WIDE * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.4, high * 1.6)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.set_ylim(0, high * 1.16)
    axes.yaxis.set_major_formatter(lambda value, _: _number(value))
    axes.set_ylabel(what)
    if bound is not None:
        axes.axhline(bound.at, color=PALETTE["red"].drawn, linewidth=1.2, linestyle=(0, (6, 3)))
        axes.annotate(
            bound.label, (1, bound.at), xycoords=("axes fraction", "data"), textcoords="offset points", xytext=(-3, 3),
            ha="right", fontsize=8, color=PALETTE["red"].drawn,
        )  # fmt: skip


def _upright(axes: Any, mark: Mark) -> None:
    axes.axvline(mark.at, color=PALETTE["ink"].drawn, linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate(
        mark.label, (mark.at, 0), xycoords=("data", "axes fraction"), textcoords="offset points", xytext=(-4, 6),
        rotation=90, ha="right", va="bottom", fontsize=8, color=PALETTE["ink"].drawn,
    )  # fmt: skip


def _drawn(
    name: str,
    title: str,
    text: str,
    draw: Callable[[Any], None],
    *,
    height: float = HEIGHT,
    width: float = WIDTH,
    legend: bool = True,
) -> Plot:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink, faint, grid = (PALETTE[colour].drawn for colour in ("ink", "faint", "grid"))
    # A salt makes what is drawn again the same, and ids of two pictures on one page different.
    look = {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": ink, "axes.edgecolor": grid,
        "axes.labelcolor": faint, "xtick.color": faint, "ytick.color": faint,
        "svg.fonttype": "none", "svg.hashsalt": name,
        "hatch.color": PALETTE["paper"].drawn, "hatch.linewidth": 0.8,
    }  # fmt: skip
    with mpl.rc_context(look):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.grid(axis="y", color=grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda value, _: _number(value))
        axes.yaxis.set_major_formatter(lambda value, _: _number(value))
        axes.patch.set_visible(False)
        figure.patch.set_visible(False)
        draw(axes)
        if legend and axes.get_legend_handles_labels()[1]:
            _legend(axes, width)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(name, title, text, _named(out.getvalue(), name, title, text))


def _legend(axes: Any, width: float) -> None:
    """Put the legend above the axes, in as many columns as fit into a picture of so many inches."""
    for columns in range(_COLUMNS_MAX, 0, -1):
        made = axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, frameon=False, borderaxespad=0, fontsize=8.5
        )
        if made.get_window_extent().width / axes.figure.dpi <= width - _MARGIN:
            return


def _named(drawn: str, name: str, title: str, text: str) -> str:
    """Return the picture with its title, names for colours, and ids that no other picture has."""
    svg = drawn[drawn.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, (stood, _, _) in PALETTE.items():
        svg = svg.replace(stood, f"var(--{colour})")
    svg = svg.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None, "matplotlib writes one"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size.group(0)} role="img"'
    )
    labels = f"<title>{html.escape(title)}</title><desc>{html.escape(text)}</desc>"
    return f'{head} aria-label="{html.escape(title)}">{labels}{svg[svg.index(">") + 1 :].strip()}'


def _listed(labels: Any) -> str:
    return ", ".join(labels)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - from here on digits are grouped
