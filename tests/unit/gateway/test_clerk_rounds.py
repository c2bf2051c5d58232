"""What waits for the clerk goes in rounds: at once, together, or a moment later."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace
from typing import Any, cast

from gateway import clerk_rounds
from gateway.clerk_rounds import AUDITS_LINGER_SECONDS, ROUND_SECONDS_MAX, Given, Rounds

NOW = 100.0


def given(rows: int = 1, *, awaited: bool = True, weight: int = 10) -> Given:
    """A request with rows for people."""
    declined = SimpleNamespace(deferred=(0,) if awaited else (), rows=rows, weight=weight)
    return cast("Given", (cast("Any", declined), cast("Any", None)))


def test_who_is_waited_for_goes_at_once() -> None:
    """With all that waits by then."""
    rounds = Rounds()
    assert rounds.due == inf
    audit, parked = given(awaited=False), given()
    rounds.add([audit], NOW)
    assert rounds.due == NOW + AUDITS_LINGER_SECONDS
    rounds.add([parked], NOW)
    assert rounds.due <= NOW
    assert rounds.take(NOW) == [audit, parked]
    assert len(rounds) == 0


def test_one_round_is_under_way_at_a_time_and_the_next_has_what_came_meanwhile() -> None:
    """After one of many rows it goes a little later, never much."""
    rounds = Rounds()
    rounds.add([given()] * 100, NOW)
    assert rounds.since == inf
    assert len(rounds.take(NOW)) == 100
    assert rounds.since == NOW
    rounds.add([given(), given()], NOW)
    assert rounds.due == inf
    rounds.heard()
    assert rounds.since == inf
    assert NOW < rounds.due <= NOW + ROUND_SECONDS_MAX
    assert len(rounds.take(rounds.due)) == 2


def test_a_round_has_so_many_rows_and_bytes_and_no_more() -> None:
    """One request that has more by itself goes alone."""
    for large in (given(rows=clerk_rounds.ROWS_MAX + 1), given(weight=clerk_rounds.BYTES_MAX + 1)):
        rounds = Rounds()
        rounds.add([given(), large, given(), given()], NOW)
        sizes = []
        while len(rounds):
            sizes.append(len(rounds.take(NOW)))
            rounds.heard()
        assert sizes == [1, 1, 2]


def test_who_ends_waits_for_nobody() -> None:
    """Audits go at once then, and right after a round."""
    rounds = Rounds()
    rounds.add([given()] * 50, NOW)
    rounds.take(NOW)
    rounds.heard()
    rounds.add([given(awaited=False)], NOW)
    assert rounds.due > NOW
    rounds.hurry()
    assert rounds.due <= NOW


def test_what_a_clerk_that_died_never_had_is_given_back() -> None:
    """The next one begins anew."""
    rounds = Rounds()
    first, second = given(), given(awaited=False)
    rounds.add([first], NOW)
    rounds.take(NOW)
    rounds.add([first, second], NOW)
    assert rounds.clear() == [first, second]
    assert rounds.due == inf
    rounds.add([first], NOW)
    assert rounds.due <= NOW
