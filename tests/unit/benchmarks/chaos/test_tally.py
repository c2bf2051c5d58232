"""What is on its way, counted entry by entry."""

from __future__ import annotations

from itertools import permutations

from benchmarks.chaos.history import Asked, Called, Entry, Replied, Watched
from benchmarks.chaos.tally import Tally

ONE = "queues/single/deferrals/one"
asked = Asked(time=1.0, client="shop", key="k", queue="single")
failed = Replied(time=1.5, client="shop", key="k", code="UNAVAILABLE")
replied = Replied(time=2.0, client="shop", key="k", code="OK", deferral=ONE)
watched = Watched(
    time=3.0, queue="single", cursor="1-0", deferral=ONE, state="resolved", label="a", version=2, outcome_time=2.9
)
refused = Called(time=3.5, id="e", type="t", deferral=ONE, state="resolved", label="a", status=500)
called = Called(time=4.0, id="e", type="t", deferral=ONE, state="resolved", label="a", status=200)


def _after(*entries: Entry) -> Tally:
    tally = Tally()
    for entry in entries:
        tally.note(entry)
    return tally


def test_it_knows_what_is_in_flight_and_when_all_is_settled() -> None:
    """A request is named, then in flight until its outcome, and settled once that was taken."""
    assert not _after().all_named(1)
    assert not _after(asked, failed).all_named(1)
    flying = _after(asked, failed, replied)
    assert (flying.all_named(1), flying.all_named(2), flying.named, flying.in_flight) == (True, False, 1, 1)
    ended = _after(asked, replied, watched, refused)
    assert (ended.in_flight, ended.settled(1)) == (0, False)
    assert _after(asked, replied, watched, refused, called).settled(1)


def test_the_order_of_entries_and_repeats_make_no_difference() -> None:
    """Journals are read one after the other, and events come twice."""
    every: tuple[Entry, ...] = (asked, replied, watched, called, asked, replied)
    for entries in permutations(every):
        tally = _after(*entries)
        assert (tally.settled(1), tally.named, tally.in_flight) == (True, 1, 0)
