"""The run as a picture: three figures over the versions above, the stream as it happened below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.demo.counts import DEFERRED, Version
from benchmarks.demo.journal import Replied

_INK, _FAINT, _GRID = "#22272e", "#6b7480", "#e3e7ec"
_GREEN, _AMBER, _RED = "#1a7f5a", "#c77d0a", "#c0392b"
_WINDOW = 60
_KEY = "● on the held-out digits, every version on the same ones   ○ on the part of the stream that it served"
# A chart whose values all lie above this does not start at zero.
_ZOOM_ABOVE_PERCENT = 60.0


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One small line chart over the versions; values in [0, 1], `stream` what clients saw, if they could."""

    title: str
    values: tuple[float, ...]
    colour: str
    stream: tuple[float | None, ...] = ()


def panels(versions: Sequence[Version]) -> tuple[Panel, Panel, Panel]:
    """Return the three charts that the picture shows, from left to right."""
    return (
        Panel(title="Accuracy", values=tuple(v.accuracy_holdout for v in versions), colour=_GREEN),
        Panel(
            title="Share deferred to people",
            values=tuple(v.deferred_share for v in versions),
            stream=tuple(v.stream_deferred_share for v in versions),
            colour=_AMBER,
        ),
        Panel(
            title="Error among automatic answers",
            values=tuple(v.auto_error for v in versions),
            stream=tuple(v.stream_auto_error for v in versions),
            colour=_RED,
        ),
    )


def rolling_share(replied: Sequence[Replied], window: int = _WINDOW) -> list[float]:
    """Return, for each request in the order sent, the share deferred among it and the `window` - 1 before it."""
    ordered = sorted(replied, key=lambda entry: entry.time)
    flags = [entry.decision == DEFERRED for entry in ordered]
    return [sum(flags[max(0, end - window) : end]) / min(end, window) for end in range(1, len(flags) + 1)]


def swap_positions(replied: Sequence[Replied]) -> list[tuple[int, str]]:
    """Return where in the stream each version was first met, as (position, version), the first version included."""
    seen: dict[str, int] = {}
    for position, entry in enumerate(sorted(replied, key=lambda entry: entry.time)):
        seen.setdefault(entry.version, position)
    return [(position, version) for version, position in seen.items()]


def draw(path: Path, versions: Sequence[Version], replied: Sequence[Replied], *, caption: str) -> None:
    """Write the picture as a PNG of about 1,500 by 1,000 pixels; `caption` names the run and its machine."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style = {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK, "axes.edgecolor": _GRID,
        "axes.labelcolor": _FAINT, "xtick.color": _FAINT, "ytick.color": _FAINT, "axes.titlesize": 10,
    }  # fmt: skip
    with plt.rc_context(style):
        figure = plt.figure(figsize=(10, 6.2), dpi=150, facecolor="white")
        grid = figure.add_gridspec(
            2, 3, height_ratios=(1.15, 1), left=0.06, right=0.975, top=0.845, bottom=0.15, hspace=0.38, wspace=0.2
        )
        names = [version.version for version in versions]
        for column, panel in enumerate(panels(versions)):
            _draw_panel(figure.add_subplot(grid[0, column]), panel, names)
        _draw_stream(figure.add_subplot(grid[1, :]), replied)
        figure.text(0.06, 0.945, _headline(versions), fontsize=13, weight="bold")
        figure.text(0.06, 0.912, _KEY, fontsize=8.5, color=_FAINT)
        figure.text(0.06, 0.03, caption, fontsize=8, color=_FAINT, va="bottom", linespacing=1.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": "demur demo digits"})
        plt.close(figure)


def _headline(versions: Sequence[Version]) -> str:
    first, last = versions[0], versions[-1]
    return (
        f"{len(versions)} versions in one stream: "
        f"accuracy {100 * first.accuracy_holdout:.1f} % → {100 * last.accuracy_holdout:.1f} %, "
        f"deferred {100 * first.deferred_share:.1f} % → {100 * last.deferred_share:.1f} %"
    )


def _draw_panel(axes: Any, panel: Panel, names: list[str]) -> None:
    from matplotlib import patheffects

    places = range(len(panel.values))
    values = [100 * value for value in panel.values]
    seen = [(place, 100 * share) for place, share in enumerate(panel.stream) if share is not None]
    axes.plot(places, values, color=panel.colour, linewidth=2, marker="o", markersize=6, clip_on=False, zorder=3)
    axes.plot(
        [place for place, _ in seen], [share for _, share in seen], color=_FAINT, linewidth=0, marker="o", markersize=6,
        markerfacecolor="white", clip_on=False, zorder=2.5,
    )  # fmt: skip
    for place, value in zip(places, values, strict=True):
        # Beside a falling line there is room to its right, clear of the stream's mark.
        aside = panel.stream and values[min(len(values) - 1, place + 1)] <= value
        axes.annotate(
            f"{value:.1f} %", (place, value), textcoords="offset points",
            ha="left" if aside else "center", xytext=(8, 4) if aside else (_beside(values, place), 11),
            fontsize=9, color=panel.colour, weight="bold" if place in {0, len(values) - 1} else "normal",
            path_effects=[patheffects.withStroke(linewidth=3, foreground="white")], zorder=4,
        )  # fmt: skip
    shown = [*values, *(share for _, share in seen)]
    spread = max(shown) - min(shown)
    floor = min(shown) - max(spread, 1.0) if min(shown) > _ZOOM_ABOVE_PERCENT else 0.0
    axes.set_ylim(floor, max(shown) + max(0.25 * (max(shown) - floor), 0.5))
    axes.set_xlim(*((-0.3, len(values) - 0.25) if panel.stream else (-0.6, len(values) - 0.4)))
    axes.set_xticks(list(places), [f"v{name}" if name.isdecimal() else name for name in names])
    axes.set_title(panel.title, loc="left", color=_INK)
    _bare(axes)


def _beside(values: Sequence[float], place: int) -> float:
    """Return how many points to move a label sideways so that a rising or falling line does not run through it."""
    before, after = values[max(0, place - 1)], values[min(len(values) - 1, place + 1)]
    if before == after or values[place] < min(before, after):
        return 0.0
    return 11.0 if before > after else -11.0


def _draw_stream(axes: Any, replied: Sequence[Replied]) -> None:
    share = [100 * value for value in rolling_share(replied)]
    whole = range(min(_WINDOW, len(share)) - 1, len(share))
    axes.fill_between(whole, [share[place] for place in whole], color=_AMBER, alpha=0.16, linewidth=0)
    axes.plot(whole, [share[place] for place in whole], color=_AMBER, linewidth=1.4)
    top = max([*(share[place] for place in whole), 1.0]) * 1.25
    for position, version in swap_positions(replied):
        label = f"v{version}" if version.isdecimal() else version
        axes.axvline(position, color=_FAINT, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.annotate(
            f"{label} live", (position, top), textcoords="offset points", xytext=(4, -9), fontsize=8.5, color=_FAINT
        )
    axes.set_ylim(0, top)
    axes.set_xlim(0, max(1, len(share) - 1))
    axes.set_title(f"Share deferred while the stream went on (last {_WINDOW} requests)", loc="left", color=_INK)
    axes.set_xlabel("requests sent; a dashed line: from here on a new version answered", fontsize=8.5)
    _bare(axes)


def _bare(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.get_major_locator().set_params(nbins=4)
