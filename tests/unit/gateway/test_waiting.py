"""What waits is taken by level, group and arrival, and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.waiting import Waiting, retry_after


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class One:
    """Somebody who waits."""

    number: int
    rows: int
    group: str
    level: int


ONES = st.lists(st.tuples(st.integers(1, 8), st.sampled_from("xyz"), st.integers(1, 3)), max_size=40).map(
    lambda drawn: [One(number=n, rows=rows, group=group, level=level) for n, (rows, group, level) in enumerate(drawn)]
)


def _waiting(ones: list[One], *, ordered: bool = False) -> Waiting[One]:
    waiting: Waiting[One] = Waiting()
    waiting.ordered = ordered
    for one in ones:
        waiting.add(one, one.level)
    return waiting


def _batches(waiting: Waiting[One], rows_max: int) -> list[list[One]]:
    batches = []
    while waiting.rows:
        assert waiting.first() is not None
        batches.append(waiting.take(rows_max))
    assert waiting.take(rows_max) == []
    assert waiting.first() is None
    return batches


@given(ONES, st.integers(1, 8))
def test_all_are_taken_once_in_batches_of_one_group_within_the_bound(ones: list[One], rows_max: int) -> None:
    """One that is larger than the bound is a batch by itself."""
    batches = _batches(_waiting(ones), rows_max)
    assert sorted(one.number for batch in batches for one in batch) == list(range(len(ones)))
    for batch in batches:
        assert len({one.group for one in batch}) == 1
        assert len(batch) == 1 or sum(one.rows for one in batch) <= rows_max


@given(ONES)
def test_a_level_begins_only_when_those_before_it_are_done(ones: list[One]) -> None:
    """Each batch begins with the first level that is left; later ones only fill it up."""
    left = sorted(one.level for one in ones)
    for batch in _batches(_waiting(ones), 8):
        levels = [one.level for one in batch]
        assert levels == sorted(levels)
        assert levels[0] == left[0]
        for level in levels:
            left.remove(level)


@given(ONES)
def test_nobody_is_overtaken_within_level_and_group(ones: list[One]) -> None:
    """First come, first served."""
    taken = [one for batch in _batches(_waiting(ones), 8) for one in batch]
    for key in {(one.level, one.group) for one in ones}:
        numbers = [one.number for one in taken if (one.level, one.group) == key]
        assert numbers == sorted(numbers)


@given(ONES)
def test_in_order_of_arrival_nobody_is_overtaken_at_all(ones: list[One]) -> None:
    """Whatever the group, where all are of one level."""
    waiting: Waiting[One] = Waiting()
    waiting.ordered = True
    for one in ones:
        waiting.add(one)
    assert [one.number for batch in _batches(waiting, 8) for one in batch] == list(range(len(ones)))


@given(ONES, st.sets(st.integers(0, 40)))
def test_who_is_taken_out_is_counted_no_more(ones: list[One], gone: set[int]) -> None:
    """And the others keep their order."""
    waiting = _waiting(ones)
    removed = waiting.remove(lambda one: one.number in gone)
    assert all(level == one.level for one, level in removed)
    kept = [one for one in ones if one.number not in gone]
    assert waiting.rows == sum(one.rows for one in kept)
    for level in (1, 2, 3):
        assert waiting.count(level) == sum(one.level == level for one in kept)
        assert waiting.rows_before(level) == sum(one.rows for one in kept if one.level <= level)
    assert sorted(one.number for one in waiting) == [one.number for one in kept]
    ours, others = (_batches(each, 8) for each in (waiting, _waiting(kept)))
    assert sorted(one.number for batch in ours for one in batch) == sorted(
        one.number for batch in others for one in batch
    )


def test_who_is_late_comes_after_those_in_time_and_before_the_next_level() -> None:
    """Also behind one that comes later."""
    ones = [One(number=number, rows=1, group="", level=level) for number, level in enumerate((1, 1, 2, 1))]
    waiting: Waiting[One] = Waiting()
    waiting.add(ones[0], 1, late=True)
    for one in ones[1:]:
        waiting.add(one, one.level)
    assert [one.number for one in waiting.take(8)] == [1, 3, 0, 2]


@given(ONES, st.integers(1, 10), st.booleans())
def test_the_next_batch_has_no_more_rows_than_is_said_before(drawn: list[One], rows_max: int, ordered: bool) -> None:
    """And it is of the group that is said."""
    waiting = _waiting(drawn, ordered=ordered)
    while waiting.rows:
        group, rows = waiting.next_batch(rows_max)
        batch = waiting.take(rows_max)
        assert batch[0].group == group
        assert sum(one.rows for one in batch) <= rows <= max(batch[0].rows, rows_max)


@given(st.floats(0, 10**6))
def test_when_to_come_back_is_bounded(seconds: float) -> None:
    """Never at once, never in an hour."""
    assert 0.05 <= retry_after(seconds) <= 30
