"""The page's own files: complete, strict, and readable for everybody."""

from __future__ import annotations

import re

import pytest

from fallback.workbench.assets import STATIC, routes

SCRIPTS = sorted(STATIC.rglob("*.js"))
STYLES = "".join(path.read_text() for path in sorted(STATIC.glob("*.css")))
# WCAG 2.2, 1.4.3 and 1.4.11.
TEXT_CONTRAST_MIN = 4.5
EDGE_CONTRAST_MIN = 3.0
TEXT_ON_GROUND = [
    *[(text, ground) for text in ("ink", "muted") for ground in ("ground", "surface", "raised", "key")],
    *[("ink", soft) for soft in ("accent-soft", "same-soft", "other-soft")],
    ("muted", "accent-soft"),
    ("accent-ink", "accent"),
    ("accent", "surface"),
    ("same", "surface"),
    ("same", "same-soft"),
    ("other", "surface"),
    ("other", "other-soft"),
    ("fault", "surface"),
    ("fault", "ground"),
]
EDGE_ON_GROUND = [("line-strong", "surface"), ("line-strong", "ground"), ("accent", "ground"), ("accent", "surface")]


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def palettes() -> dict[str, dict[str, str]]:
    """The colours by name, light and dark."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)", STYLES)
    )
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_keep_their_contrast(scheme: str) -> None:
    """Text has at least 4.5 to 1 on every ground it stands on, edges and focus 3 to 1, in both schemes."""
    colours = palettes()[scheme]
    short = [pair for pair in TEXT_ON_GROUND if contrast(colours[pair[0]], colours[pair[1]]) < TEXT_CONTRAST_MIN]
    short += [pair for pair in EDGE_ON_GROUND if contrast(colours[pair[0]], colours[pair[1]]) < EDGE_CONTRAST_MIN]
    assert short == []


def test_everything_the_page_names_is_served() -> None:
    """Each file that the page, a module or a style names has its route."""
    served = {route.path for route in routes()}
    page = (STATIC / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="(/[^"]*)"', page)) <= served
    for script in SCRIPTS:
        for name in re.findall(r'^import .* from "(\.[^"]+)"', script.read_text(), re.MULTILINE):
            assert f"/static/{(script.parent / name).resolve().relative_to(STATIC.resolve())}" in served


def test_nothing_comes_from_elsewhere_and_nothing_stands_inline() -> None:
    """No address of another host, no inline script, style or listener: the content security policy can be strict."""
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in (*SCRIPTS, *STATIC.rglob("*.css"), STATIC / "index.html"):
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()) == [], path.name


def test_no_module_makes_markup_of_text() -> None:
    """Content goes in as text; what would parse it as HTML or run it is not used anywhere."""
    for script in SCRIPTS:
        text = script.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc", text
        ), script.name


def test_modules_are_one_sitting_each() -> None:
    """No module is longer than 400 lines."""
    assert {script.name: lines for script in SCRIPTS if (lines := script.read_text().count("\n")) > 400} == {}


def test_motion_can_be_turned_off() -> None:
    """Whoever asked their system for less motion gets none."""
    assert "prefers-reduced-motion" in STYLES
