"""What a person sees while the demo runs."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.demo.counts import Tally
from benchmarks.demo.journal import Called, Replied
from benchmarks.demo.progress import Display, counters


def tally() -> Tally:
    made = Tally()
    common = {"time": 1.0, "latency_ms": 1.0, "label": "3", "confidence": 0.5, "version": "2"}
    made.add(
        [
            Replied(index=0, decision="answered", **common),  # type: ignore[arg-type] # a plain dict of fields
            Replied(index=1, decision="deferred", deferral="d1", **common),  # type: ignore[arg-type] # as above
            Replied(index=2, decision="deferred", deferral="d2", **common),  # type: ignore[arg-type] # as above
            Called(id="e", time=1.0, type="deferral.resolved", deferral="d1", label="3", status=200),
        ]
    )
    return made


def test_the_counters_say_what_waits_and_which_version_is_live() -> None:
    """Waiting: given to a person and not called back yet."""
    got = dict(counters(tally()))
    assert (got["answered"], got["deferred"], got["waiting"], got["called back"]) == ("1", "2", "1", "1")
    assert got["champion"] == "v2"
    assert dict(counters(Tally()))["champion"] == "-"


def test_without_a_terminal_each_phase_is_one_plain_line() -> None:
    """A log has no use for a picture that moves."""
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=False), requests=3) as display:
        display.phase("starting")
        display.show(tally())
        display.phase("streaming")
    lines = text.getvalue().splitlines()
    assert [line.split(" s  ")[1] for line in lines] == ["starting", "streaming"]
    assert "\x1b" not in text.getvalue()


def test_on_a_terminal_the_counts_are_shown_while_they_change() -> None:
    """The bar and the counters."""
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=True, width=120), requests=3) as display:
        display.phase("streaming")
        display.show(tally())
    assert "champion" in text.getvalue()
