from __future__ import annotations

import time

import pytest

from fallback.errors import AwayError, FullError, InvalidError, OverError, UnavailableError
from gateway.hold_off import HoldOff

AWAY = UnavailableError("away")


def test_nobody_is_held_off_before_anything_failed() -> None:
    """A queue that nobody heard anything of is tried."""
    assert HoldOff().why("q") is None


def test_a_server_that_is_away_holds_its_queues_off() -> None:
    """Until it was heard of again, however long that takes; another's queues are on another server."""
    hold_off = HoldOff()
    hold_off.failed("q", AWAY)
    assert hold_off.away == ("q",)
    assert hold_off.why("another") is None
    hold_off.heard("another")
    assert hold_off.why("q") is AWAY
    hold_off.heard("q")
    assert hold_off.why("q") is None
    assert not hold_off.away


def test_only_a_server_that_is_away_is_not_tried_by_anybody() -> None:
    """Content that could not be kept is one request's trouble; and what who is not tried is told says nothing new."""
    hold_off = HoldOff()
    hold_off.failed("q", AWAY)
    assert hold_off.gone("q") is None
    hold_off.failed("q", AwayError("the server is away", retry_after_seconds=2.0))
    told = hold_off.gone("q")
    assert told is not None
    assert (told.message, told.retry_after_seconds) == ("the server is away", 2.0)
    assert hold_off.gone("another") is None
    hold_off.heard("q")
    hold_off.failed("q", told)
    assert hold_off.gone("q") is None


def test_a_full_queue_holds_itself_off_for_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least for a second, at most for a minute."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    hold_off = HoldOff()
    for seconds, held in ((None, 1), (0.1, 1), (7.0, 7), (3_600.0, 60)):
        full = FullError("full", retry_after_seconds=seconds)
        hold_off.failed("q", full)
        assert hold_off.why("another") is None
        now += held - 0.5
        assert hold_off.why("q") is full
        now += 0.5
        assert hold_off.why("q") is None


def test_what_is_the_requests_own_trouble_holds_nobody_off() -> None:
    """A request that is refused for what it is says nothing of others."""
    hold_off = HoldOff()
    hold_off.failed("q", InvalidError("wrong"))
    assert hold_off.why("q") is None


def test_who_is_answered_all_the_same_is_held_off_too() -> None:
    """What is not parked has no label, whatever its client is told."""
    hold_off = HoldOff()
    over = OverError("over", unreviewed=True)
    hold_off.failed("q", over)
    assert hold_off.why("q") is over
