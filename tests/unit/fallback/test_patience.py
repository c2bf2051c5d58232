"""When an outcome is told again, and how hard a receiver is leaned on."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from fallback.config import FallbackSettings
from fallback.patience import (
    FAILING_PAUSE_SECONDS,
    HOLD_SECONDS,
    POSTPONE_SECONDS,
    POSTPONED_PER_SECOND,
    RETRY_SECONDS,
    THROTTLED_PAUSE_SECONDS,
    Pace,
    Strain,
    postpone_max,
    postponed,
    retry_after,
)


def test_the_default_schedule_is_the_standards() -> None:
    """Standard Webhooks 1.0.0, "Deliverability and reliability": ten attempts over 75:35:05."""
    hours, minutes = 3_600, 60
    since_start = [5, 5 * minutes + 5, 35 * minutes + 5, 2 * hours + 35 * minutes + 5, 7 * hours + 35 * minutes + 5]
    since_start += [17 * hours + 35 * minutes + 5, 31 * hours + 35 * minutes + 5, 51 * hours + 35 * minutes + 5]
    since_start += [75 * hours + 35 * minutes + 5]
    assert list(accumulate(RETRY_SECONDS)) == since_start
    assert FallbackSettings().callback_retry_seconds == RETRY_SECONDS
    assert [retry_after(attempt, 0.0, RETRY_SECONDS) for attempt in range(1, 10)] == list(RETRY_SECONDS)
    assert retry_after(10, 0.0, RETRY_SECONDS) is None


@given(attempt=st.integers(1, 1_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_the_schedules_and_at_most_a_quarter_longer(attempt: int, jitter: float) -> None:
    """However many attempts; after the last there is none."""
    wait = retry_after(attempt, jitter, RETRY_SECONDS)
    assert (wait is None) == (attempt > len(RETRY_SECONDS))
    assert wait is None or RETRY_SECONDS[attempt - 1] <= wait <= 1.25 * RETRY_SECONDS[attempt - 1]


def test_a_receiver_that_asks_for_time_gets_it_within_reason() -> None:
    """Retry-After lengthens a wait, up to a day; it never shortens one or brings a dead letter back."""
    assert retry_after(1, 0.5, (2.0, 10.0), asked_seconds=120) == 120
    assert retry_after(2, 0.0, (2.0, 10.0), asked_seconds=1) == 10
    assert retry_after(1, 0.5, (2.0, 10.0), asked_seconds=1e9) == 86_400
    assert retry_after(3, 0.5, (2.0, 10.0), asked_seconds=120) is None


def test_a_pace_goes_down_with_failures_and_recovers() -> None:
    """By half to one at a time, with longer and longer pauses; a few successes undo it."""
    pace = Pace.fresh(8)
    assert (pace.at_once, pace.pause_seconds, pace.unhurt) == (8, 0.0, True)
    for _ in range(20):
        pace = pace.after(Strain.THROTTLED, 0.1)
    assert (pace.at_once, pace.pause_seconds) == (1, THROTTLED_PAUSE_SECONDS[1])
    for _ in range(20):
        pace = pace.after(Strain.NONE, 0.1)
    assert pace.unhurt


@given(st.lists(st.tuples(st.sampled_from(Strain), st.floats(0, 300)), max_size=60), st.integers(1, 1_000))
def test_a_pace_stays_within_its_bounds(ends: list[tuple[Strain, float]], most: int) -> None:
    """Whatever happens: at least one at a time, at most as many as may, a pause of at most a minute."""
    pace = Pace.fresh(most)
    for strain, seconds in ends:
        before, pace = pace, pace.after(strain, seconds)
        assert 1 <= pace.at_once <= most
        assert 0 <= pace.pause_seconds <= THROTTLED_PAUSE_SECONDS[1]
        assert pace.per_second > 0
        assert pace.held_max >= 1
        if strain is Strain.NONE:
            assert pace.at_once >= before.at_once
            assert pace.pause_seconds <= before.pause_seconds
        else:
            assert pace.at_once <= before.at_once
            assert pace.pause_seconds >= max(before.pause_seconds, FAILING_PAUSE_SECONDS[0])


@given(st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_what_does_not_fit_comes_again_when_it_may_fit(seconds: float, jitter: float) -> None:
    """Never at once, never later than that."""
    assert 0 < postponed(seconds, jitter) <= max(HOLD_SECONDS, seconds)


@given(count=st.integers(0, 10_000_000))
def test_what_is_put_off_comes_back_soon_and_no_more_at_once_than_can_be_looked_at(count: int) -> None:
    """Few wait for seconds only, whatever the pace was; of many no more than so many come back in a second."""
    seconds = postpone_max(count)
    assert POSTPONE_SECONDS[0] <= seconds <= POSTPONE_SECONDS[1]
    assert count / seconds <= 1.001 * max(POSTPONED_PER_SECOND, count / POSTPONE_SECONDS[1])
