"""The picture's figures, and that a PNG comes out."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.demo import picture
from benchmarks.demo.counts import Version
from benchmarks.demo.journal import Replied


def replied(index: int, *, deferred: bool, version: str = "1") -> Replied:
    return Replied(
        index=index,
        time=float(index),
        latency_ms=1.0,
        decision="deferred" if deferred else "answered",
        label="3",
        confidence=0.5,
        version=version,
    )


def version(name: str, accuracy: float) -> Version:
    return Version(
        version=name,
        accuracy_holdout=accuracy,
        deferred_share=0.3,
        auto_error=0.01,
        stream_requests=10,
        stream_deferred_share=0.3,
        stream_auto_error=None,
    )


def test_the_rolling_share_is_over_the_requests_in_the_order_they_were_sent() -> None:
    """Two clients' journals come one after the other; the picture sorts by time."""
    entries = [replied(n, deferred=n < 2) for n in (0, 2, 1, 3)]
    assert picture.rolling_share(entries, window=2) == [1.0, 1.0, 0.5, 0.0]


def test_a_version_is_drawn_where_it_was_first_met() -> None:
    """A late reply of the version before moves nothing."""
    entries = [replied(n, deferred=False, version=v) for n, v in enumerate("1121222")]
    assert picture.swap_positions(entries) == [(0, "1"), (2, "2")]


def test_the_picture_is_a_png_of_a_readable_size(tmp_path: Path) -> None:
    """Drawn without a display, into a folder that need not exist; one version is enough."""
    path = tmp_path / "new" / "digits.png"
    stream = [replied(n, deferred=n % 3 == 0) for n in range(200)]
    picture.draw(path, [version("1", 0.9), version("2", 0.95)], stream, caption="on this machine")
    picture.draw(path, [version("1", 0.9)], stream[:5], caption="on this machine")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= 1200
