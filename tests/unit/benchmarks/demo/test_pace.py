"""The pace of the stream, walked through as a machine of some speed would."""

from __future__ import annotations

from benchmarks.demo.pace import Pace

PACE = Pace(requests=1200, swaps_goal=2, full_per_second=40.0, trickle_per_second=5.0, patience_seconds=45.0)


def test_a_part_ends_before_each_swap_and_the_last_at_the_streams_end() -> None:
    """Each version up to the goal has its share of the stream."""
    assert [PACE.part_end(swaps) for swaps in range(5)] == [400, 800, 1200, 1200, 1200]


def test_the_stream_is_sent_at_the_full_rate_until_the_part_is_nearly_used_up() -> None:
    """The rest of a part is kept back so that requests go on while the next version is trained."""
    assert PACE.per_second(sent=0, swaps=0, trickled_seconds=0) == 40
    assert PACE.per_second(sent=339, swaps=0, trickled_seconds=0) == 40
    assert PACE.per_second(sent=340, swaps=0, trickled_seconds=0) == 5


def test_a_swap_sets_the_full_rate_again() -> None:
    """The next version gets its own part."""
    assert PACE.per_second(sent=400, swaps=1, trickled_seconds=9) == 40


def test_once_the_goal_is_reached_there_is_nothing_to_wait_for() -> None:
    """The rest of the stream goes at the full rate."""
    assert PACE.per_second(sent=1199, swaps=2, trickled_seconds=0) == 40


def test_a_trainer_that_never_comes_is_waited_for_once() -> None:
    """All trickling together is bounded, so that the stream comes to its end."""
    assert PACE.per_second(sent=350, swaps=0, trickled_seconds=45) == 40
    assert PACE.per_second(sent=790, swaps=0, trickled_seconds=45) == 40


def test_a_whole_stream_takes_no_longer_than_the_full_rate_and_the_patience() -> None:
    """Walked in steps of a fifth of a second with no swap at all."""
    sent = trickled = seconds = 0.0
    while sent < PACE.requests:
        rate = PACE.per_second(sent=int(sent), swaps=0, trickled_seconds=trickled)
        trickled += 0.2 if rate == PACE.trickle_per_second else 0
        sent += 0.2 * rate
        seconds += 0.2
    assert seconds < PACE.requests / PACE.full_per_second + PACE.patience_seconds + 1
