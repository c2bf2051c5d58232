"""How fast people are, and how long one more waits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.config import QueueSettings
from fallback.limits import beyond
from fallback.load import RETRY_SECONDS_MAX, Load, expected_wait, read, retry_seconds

NOW = 60.0 * 1_000_000
MINUTE = 1_000_000
LOAD = Load(
    window_seconds=900,
    arrivals=(0,) * 10,
    reviews=90,
    hold_seconds=900,
    held=0,
    asked=0,
    content_bytes=0,
    draft_bytes=0,
)


def _wait(load: Load = LOAD, **changes: float) -> float | None:
    said = {"ahead": 0, "priority": 0, "wanted": 1, "undo_seconds": 0.0, "seconds_max": 86_400.0}
    return expected_wait(load, **{**said, **changes})  # type: ignore[arg-type]  # by name


def _with(**changes: object) -> Load:
    return msgspec.structs.replace(LOAD, **changes)


def test_nothing_is_said_where_nobody_answered_lately() -> None:
    """Nobody there is not a wait of any length."""
    assert _wait(_with(reviews=0, hold_seconds=0.0), ahead=5) is None


def test_who_comes_first_waits_for_their_own_review() -> None:
    """90 reviews were held for 900 s together: 10 s each."""
    assert _wait() == pytest.approx(10)


def test_those_ahead_go_at_the_speed_of_the_last_quarter_of_an_hour() -> None:
    """A review every 10 s: 30 ahead take 300 s, then comes one's own."""
    assert _wait(ahead=30) == pytest.approx(310)


def test_people_at_work_now_are_faster_than_a_quiet_past() -> None:
    """Little's law over the places held: four, of 10 s each, make 0.4 reviews a second."""
    assert _wait(_with(held=4), ahead=40) == pytest.approx(110)


def test_each_needs_as_many_reviews_as_the_queue_wants() -> None:
    """Three each: three times the work before one's own."""
    assert _wait(ahead=10, wanted=3) == pytest.approx(310)


def test_the_undo_window_is_waited_for_too() -> None:
    """An outcome is told when it is final."""
    assert _wait(undo_seconds=5) == pytest.approx(15)


def test_what_is_more_urgent_goes_first_while_one_waits() -> None:
    """45 of 90 reviews went to higher priorities: half the speed is left for those ahead."""
    busy = _with(arrivals=(0, 0, 0, 45, 0, 0, 0, 0, 0, 0))
    assert _wait(busy, ahead=30) == pytest.approx(610)
    assert _wait(busy, ahead=30, priority=3) == pytest.approx(310)


def test_where_the_urgent_come_faster_than_people_answer_all_that_is_left_is_told() -> None:
    """No wait is long enough: it will expire first."""
    assert _wait(_with(arrivals=(0,) * 9 + (90,)), ahead=1, seconds_max=3600) == 3600


def test_no_wait_is_longer_than_the_time_to_review() -> None:
    """After that there is an outcome, whoever came."""
    assert _wait(ahead=100_000, seconds_max=60) == 60


@given(ahead=st.integers(0, 10_000), more=st.integers(0, 100), priority=st.integers(0, 8), arrivals=st.integers(0, 80))
def test_more_ahead_never_wait_less_and_more_urgent_never_wait_more(
    ahead: int, more: int, priority: int, arrivals: int
) -> None:
    """Whatever the counters say."""
    busy = _with(arrivals=(arrivals // 10,) * 10)
    found, behind = _wait(busy, ahead=ahead, priority=priority), _wait(busy, ahead=ahead + more, priority=priority)
    urgent = _wait(busy, ahead=ahead, priority=priority + 1)
    assert found is not None
    assert behind is not None
    assert urgent is not None
    assert 0 <= urgent <= found <= behind <= 86_400


def test_counters_are_read_from_their_minutes() -> None:
    """What is older than the window does not count; reviews asked for count for an hour; others are sums."""
    fields = {
        f"{MINUTE}:reviews": 3,
        f"{MINUTE - 5}:reviews": 4,
        f"{MINUTE - 15}:reviews": 100,
        f"{MINUTE}:hold": 14_000,
        f"{MINUTE - 5}:0": 6,
        f"{MINUTE}:9": 1,
        f"{MINUTE - 60}:asked": 7,
        f"{MINUTE - 61}:asked": 1000,
        "bytes": 12,
        "drafts": 5,
        "until:60000123": 4,
    }
    found = read({name.encode(): str(count).encode() for name, count in fields.items()}, now=NOW + 30, held=2)
    assert found == Load(
        window_seconds=330,
        arrivals=(6, 0, 0, 0, 0, 0, 0, 0, 0, 1),
        reviews=7,
        hold_seconds=14,
        held=2,
        asked=7,
        content_bytes=12,
        draft_bytes=5,
    )


def test_an_empty_queue_says_nothing() -> None:
    """No counter, no speed, no division by nothing."""
    assert read({}, now=NOW, held=0).speed == 0
    assert _wait(read({}, now=NOW, held=3)) is None


def test_a_refused_client_comes_back_when_those_beyond_are_gone() -> None:
    """By the speed where it is known, within bounds; else as the caller says."""
    assert retry_seconds(LOAD, beyond=6, wanted=2, otherwise=5) == pytest.approx(120)
    assert retry_seconds(LOAD, beyond=10**6, wanted=2, otherwise=5) == RETRY_SECONDS_MAX
    assert retry_seconds(_with(held=1000, hold_seconds=1.0), beyond=1, wanted=1, otherwise=5) == 1
    assert retry_seconds(_with(reviews=0), beyond=6, wanted=2, otherwise=5) == 5


def test_what_is_reached_is_named_by_its_setting() -> None:
    """Each limit by itself; the hard one only where the queue keeps what is over."""
    settings = QueueSettings(
        depth_max=2, open_max=3, when_over="keep", budget_per_hour=5, bytes_max=100, drafts_bytes_max=10, outbox_max=4
    )
    full = _with(asked=5, content_bytes=100, draft_bytes=10)
    assert beyond(settings, LOAD, depth=1, untold=3) == ()
    assert beyond(settings, LOAD, depth=2, untold=3) == ("depth_max",)
    assert beyond(settings, full, depth=3, untold=4) == (
        "depth_max",
        "open_max",
        "budget_per_hour",
        "bytes_max",
        "drafts_bytes_max",
        "outbox_max",
    )
    assert beyond(QueueSettings(depth_max=2, open_max=2), LOAD, depth=2, untold=0) == ("depth_max",)
