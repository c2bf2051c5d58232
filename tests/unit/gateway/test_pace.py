"""What is known to be short is what was measured, and no more of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pace import (
    GROUPS_MAX,
    INLINE_SECONDS_MAX,
    SURPRISE_SECONDS,
    SURPRISED_RUNS,
    SURPRISED_RUNS_MAX,
    Pace,
)

SHORT = INLINE_SECONDS_MAX / 10


def test_the_expected_wait_is_that_of_the_runs_before_ones_own() -> None:
    """Those that fill one's own run up cost nothing; several runs at a time share what is before."""
    pace = Pace()
    pace.ran(2.0)
    assert pace.expected_wait(0, rows_max=8, instances=1) == 0
    assert pace.expected_wait(7, rows_max=8, instances=1) == 0
    assert pace.expected_wait(17, rows_max=8, instances=1, rest_seconds=0.5) == 4.5
    assert pace.expected_wait(17, rows_max=8, instances=2) == 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 64), st.sampled_from([SHORT, 0.005])), max_size=30))
def test_nothing_is_short_whose_like_was_not(runs: list[tuple[str, int, float]]) -> None:
    """Of its group, and with as many rows, within a power of two; what changed is told."""
    pace, short = Pace(), dict.fromkeys("ab", 0)
    for group, rows, seconds in runs:
        before = [[pace.is_short(each, size) for size in range(1, 129)] for each in "ab"]
        changed = pace.computed(group, rows, seconds)
        if seconds == SHORT:
            short[group] = max(short[group], 1 << (rows - 1).bit_length())
        after = [[pace.is_short(each, size) for size in range(1, 129)] for each in "ab"]
        assert changed or before == after
        assert not any(pace.is_short(each, rows + 1) for each, rows in short.items())
        assert pace.short == any(map(any, after))


def test_a_size_that_takes_long_is_not_short_and_others_are_as_they_were_measured() -> None:
    """However often either is asked for, and whichever was measured first."""
    pace = Pace()
    for rows in (1, 8, 64):
        pace.computed("", rows, SHORT)
    for _ in range(10):
        pace.computed("", 8, SURPRISE_SECONDS / 2)
    assert [pace.is_short("", rows) for rows in (1, 5, 8, 9, 64, 65)] == [True, False, False, True, True, False]
    for _ in range(100):
        pace.computed("", 8, SHORT)
    assert pace.is_short("", 8)
    pace.computed("first", 1, INLINE_SECONDS_MAX)
    pace.computed("first", 32, SHORT)
    assert [pace.is_short("first", rows) for rows in (1, 2, 32)] == [False, True, True]


def runs_until_short(pace: Pace) -> int:
    for number in range(1, 100_000):
        pace.computed("", 1, SHORT)
        if pace.is_short("", 1):
            return number
    raise AssertionError("it is never short again")


def test_each_surprise_doubles_how_many_short_runs_are_needed() -> None:
    """Whatever the group of the one that took long was."""
    pace = Pace()
    assert runs_until_short(pace) == 1
    for surprises in range(4):
        pace.computed("other", 1, SHORT)
        for _ in range(SURPRISED_RUNS << surprises):
            pace.computed("other", 1, SHORT)
        assert pace.is_short("other", 1)
        assert pace.computed("other", 1, SURPRISE_SECONDS)
        assert not pace.short
        assert runs_until_short(pace) == SURPRISED_RUNS << surprises
    for _ in range(10):
        pace.computed("", 1, SURPRISE_SECONDS)
        assert runs_until_short(pace) <= SURPRISED_RUNS_MAX
    pace.renew()
    assert not pace.short
    assert runs_until_short(pace) == 1


def test_short_runs_with_long_ones_among_them_show_nothing_after_a_surprise() -> None:
    """They have to be in a row."""
    pace = Pace()
    pace.computed("", 1, SHORT)
    pace.computed("", 1, 1.0)
    for _ in range(10):
        for _ in range(SURPRISED_RUNS - 1):
            pace.computed("", 1, SHORT)
        pace.computed("", 1, 1.0)
        assert not pace.short


def test_a_long_run_that_was_not_known_to_be_short_surprises_nobody() -> None:
    """A first run takes longer than those after it."""
    pace = Pace()
    pace.computed("", 1, 1.0)
    assert runs_until_short(pace) < SURPRISED_RUNS


def test_the_groups_that_are_known_are_bounded() -> None:
    """Whoever sends ever other shapes makes the oldest forgotten."""
    pace = Pace()
    for number in range(GROUPS_MAX + 1):
        pace.computed(number, 1, SHORT)
    assert [pace.is_short(number, 1) for number in (0, 1, GROUPS_MAX)] == [False, True, True]
