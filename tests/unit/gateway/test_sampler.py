from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.sampler import IDLE_SECONDS, NOTHING, Clock, Counts, Sampler, Seen, count
from gateway.samples import HISTOGRAM_BINS


class Times:
    """A time of day that somebody sets, and one that nobody can."""

    def __init__(self) -> None:
        self.wall = 1_000.0
        self.steady = 5.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def test_a_clock_goes_with_the_time_of_day() -> None:
    """Seconds are those of the time of day while nobody sets it."""
    times = Times()
    clock = times.clock()
    times.go(7.5)
    assert clock.second() == 1_007


def test_a_clock_that_is_set_back_goes_on_at_half_its_pace() -> None:
    """After a step back seconds go on, slower, until the time of day has caught up."""
    times = Times()
    clock = times.clock()
    assert clock.second() == 1_000
    times.wall -= 20
    assert clock.second() == 1_000
    times.go(10)
    assert clock.second() == 1_005
    times.go(40)
    assert clock.second() == 1_030


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1_000, 1_000)), max_size=30))
def test_seconds_never_go_back(steps: list[tuple[float, float]]) -> None:
    """Whatever is done to the time of day, a second is never followed by an earlier one."""
    times = Times()
    clock = times.clock()
    seen = [clock.second()]
    for passed, stepped in steps:
        times.go(passed)
        times.wall += stepped
        seen.append(clock.second())
    assert seen == sorted(seen)


def test_counts_are_of_the_eligible() -> None:
    """The histogram holds each eligible score once, 1.0 in the last bin."""
    scores = np.array([0.0, 0.049, 0.05, 0.5, 1.0, 0.7])
    eligible = np.array([True, True, True, True, True, False])
    seen = Seen(
        scores=scores,
        eligible=eligible,
        deferred=np.array([True, True, False, False, False, True]),
        unreviewed=np.array([False, False, True, False, False, False]),
        sampled=3,
    )
    found = count([seen])
    assert (found.eligible, found.answered, found.sampled) == (5, 2, 3)
    assert sum(found.histogram) == 5
    assert (found.histogram[0], found.histogram[1], found.histogram[10], found.histogram[-1]) == (2, 1, 1, 1)
    assert len(found.histogram) == HISTOGRAM_BINS


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), *[st.booleans()] * 4), max_size=5), max_size=5))
def test_batches_are_counted_together_as_one_by_one(batches: list[list[tuple[float, bool, bool, bool, bool]]]) -> None:
    """Batches of which some rows are left out give the same counts at once, one after the other, and in a sampler."""
    seen = [_seen(rows) for rows in batches]
    alone = sum((count([each]) for each in seen), NOTHING)
    assert count(seen) == alone
    sampler = Sampler("g", 100)
    for each in seen:
        sampler.add(100, each)
    (row,) = sampler.end()
    assert (row.eligible, row.answered, row.sampled) == (alone.eligible, alone.answered, alone.sampled)
    assert row.histogram == alone.histogram


def _seen(rows: list[tuple[float, bool, bool, bool, bool]]) -> Seen:
    scores, *flags = zip(*rows, strict=True) if rows else ([],) * 5
    eligible, deferred, unreviewed, which = (np.array(column, np.bool_) for column in flags)
    return Seen(
        scores=np.array(scores, np.float64),
        eligible=eligible,
        deferred=deferred,
        unreviewed=unreviewed,
        which=None if which.all() else which,
        sampled=len(rows),
    )


def test_a_second_is_closed_before_anything_of_a_later_one() -> None:
    """What closes a second is due once a later one is looked at, with all that was counted in it."""
    sampler = Sampler("g", 100)
    assert sampler.due(100) == []
    sampler.add(100, Counts(eligible=2, sampled=1))
    sampler.add(100, Counts(eligible=1, answered=1))
    assert sampler.due(100) == []
    (closing,) = sampler.due(101)
    assert (closing.second, closing.eligible, closing.answered, closing.sampled) == (100, 3, 1, 1)
    assert not closing.final


def test_what_is_due_stays_due_until_it_is_written() -> None:
    """A second whose closing could not be written is due again; two that sampled nothing become one."""
    sampler = Sampler("g", 100)
    sampler.add(100, Counts(eligible=1, sampled=1))
    for second in range(101, 150):
        sampler.add(second, Counts(eligible=1))
    first, rest = sampler.due(150)
    assert (first.second, first.sampled) == (100, 1)
    assert (rest.second, rest.eligible, rest.sampled) == (149, 49, 0)
    sampler.wrote()
    assert sampler.due(151) == []


def test_an_idle_gateway_says_so() -> None:
    """Where nothing was for long, the second before this one is closed, and not again until as much time has passed."""
    sampler = Sampler("g", 100)
    sampler.idle(101)
    assert sampler.due(101) == []
    sampler.idle(100 + IDLE_SECONDS)
    (closing,) = sampler.due(100 + IDLE_SECONDS)
    assert (closing.second, closing.eligible) == (99 + IDLE_SECONDS, 0)
    sampler.wrote()
    sampler.idle(101 + IDLE_SECONDS)
    assert sampler.due(101 + IDLE_SECONDS) == []


def test_the_last_row_is_later_than_every_other() -> None:
    """The end closes what is open, or a second that nobody closed yet; it alone is final."""
    sampler = Sampler("g", 100)
    (only,) = sampler.end()
    assert (only.second, only.final) == (100, True)
    sampler = Sampler("g", 100)
    sampler.add(103, Counts(sampled=1))
    sampler.add(104, Counts(sampled=2))
    assert [(row.second, row.sampled, row.final) for row in sampler.end()] == [(103, 1, False), (104, 2, True)]


def test_places_are_all_different() -> None:
    """The counter tells requests of one second apart."""
    sampler = Sampler("g", 100)
    assert [sampler.place(100), sampler.place(100), sampler.place(101)] == [
        (100, "g", 1),
        (100, "g", 2),
        (101, "g", 3),
    ]
