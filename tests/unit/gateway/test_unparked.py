from __future__ import annotations

import pytest

from gateway.unparked import UNPARKED_SECONDS, Unparked


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unparked(clock: Clock) -> Unparked:
    return Unparked(clock=clock, places_max=3)


def test_what_no_retry_parks_is_due_after_its_time(unparked: Unparked, clock: Clock) -> None:
    """Of its model only, until it is told; a retry that fails begins the time anew."""
    unparked.lost("m", "1-g-1", again=False)
    unparked.lost("other", "1-g-1", again=False)
    unparked.lost("m", "1-g-2", again=False)
    clock.now = 100.0
    unparked.lost("m", "1-g-2", again=True)
    clock.now = UNPARKED_SECONDS - 0.1
    assert unparked.due("m") == []
    clock.now = UNPARKED_SECONDS
    assert unparked.due("m") == unparked.due("m") == ["1-g-1"]
    unparked.told("m", ["1-g-1"])
    assert unparked.due("m") == []
    assert unparked.due("other") == ["1-g-1"]
    clock.now += 100.0
    assert unparked.due("m") == ["1-g-2"]


def test_what_was_parked_is_never_due(unparked: Unparked, clock: Clock) -> None:
    """By a retry, also where the first try hears later of its failure; or by the first, where a retry fails."""
    unparked.lost("m", "1-g-1", again=False)
    unparked.parked("m", "1-g-1", again=True)
    unparked.parked("m", "1-g-2", again=True)
    unparked.lost("m", "1-g-2", again=False)
    unparked.parked("m", "1-g-3", again=False)
    unparked.lost("m", "1-g-3", again=True)
    clock.now = 2 * UNPARKED_SECONDS
    assert unparked.due("m") == []


def test_what_has_no_room_is_left_to_its_time(unparked: Unparked, clock: Clock) -> None:
    """The oldest are kept: they are told first."""
    for number in range(5):
        unparked.lost("m", f"1-g-{number}", again=False)
        unparked.parked("m", f"2-g-{number}", again=True)
    clock.now = UNPARKED_SECONDS
    assert unparked.due("m") == ["1-g-0", "1-g-1", "1-g-2"]
    assert len(unparked._retried) == 3
