"""Cores go to whoever ran least lately, and short runs of several models take turns by the time they take."""

from __future__ import annotations

import time

from gateway.turns import Shares, lately, take_turns


class Model:
    """Somebody who runs on the cores."""

    def __init__(self, name: str, offers: list[str], *, uses: bool = True) -> None:
        self._name = name
        self._offers = offers
        self._uses = uses

    def offer(self) -> bool:
        self._offers.append(self._name)
        return self._uses


def test_a_first_run_is_never_refused_and_one_beside_it_needs_a_free_core() -> None:
    """It is offered one as soon as there is one."""
    offers: list[str] = []
    shares, a, b = Shares(2), Model("a", offers), Model("b", offers)
    assert shares.take(a, beside=False)
    assert shares.take(a, beside=True)
    assert shares.take(b, beside=False)
    assert not shares.take(a, beside=True)
    shares.give(a, 1.0)
    assert offers == []
    shares.give(b, 1.0)
    assert offers == ["a"]
    assert shares.take(a, beside=True)


def _full(*spent: tuple[Model, float]) -> Shares:
    """One core, taken by the first, after each ran so long; all want another."""
    shares = Shares(1)
    for model, seconds in spent:
        assert shares.take(model, beside=False)
        shares.give(model, seconds)
    assert shares.take(spent[0][0], beside=False)
    for model, _ in spent:
        assert not shares.take(model, beside=True)
    return shares


def test_a_free_core_goes_to_who_ran_least() -> None:
    """By measured time, not by the order of asking; the others are asked when the next one is free."""
    offers: list[str] = []
    a, b, c = (Model(name, offers) for name in "abc")
    shares = _full((a, 3.0), (b, 1.0), (c, 2.0))
    shares.give(a, 0.0)
    assert offers == ["b"]
    assert shares.take(b, beside=True)
    shares.give(b, 5.0)
    assert offers == ["b", "c"]


def test_a_core_that_one_has_no_use_for_goes_to_the_next() -> None:
    """Nobody waits for a core that is free; who is forgotten is not asked."""
    offers: list[str] = []
    a, b, c = Model("a", offers), Model("b", offers, uses=False), Model("c", offers)
    shares = _full((a, 3.0), (b, 1.0), (c, 2.0))
    shares.forget(c)
    shares.give(a, 0.0)
    assert offers == ["b", "a"]


def test_what_was_long_ago_counts_for_little() -> None:
    """A third after a second."""
    assert lately(1.0, 10.0, 10.0) == 1.0
    assert 0.3 < lately(1.0, 10.0, 11.0) < 0.4
    assert lately(1000.0, 10.0, 40.0) < 1e-9


class Runs:
    """Batches that take so long each."""

    def __init__(self, batches: int, seconds: float) -> None:
        self.rows = batches
        self.ran = 0
        self._seconds = seconds

    def run_batch(self) -> bool:
        time.sleep(self._seconds)
        self.rows -= 1
        self.ran += 1
        return self.rows > 0


def test_short_runs_take_turns_by_the_time_that_they_take() -> None:
    """One whose runs are the shorter has the more of them, and is done before the other."""
    light, heavy = Runs(5, 0.0), Runs(100, 0.05)
    take_turns([heavy, light], time.monotonic() + 60)
    assert light.rows == 0
    assert heavy.ran == 1


def test_turns_end_in_time() -> None:
    """What is left is left to others; who is alone needs no turns."""
    both = [Runs(1000, 0.001), Runs(1000, 0.001)]
    take_turns(both, time.monotonic() + 0.003)
    assert all(each.rows for each in both)
    take_turns(both[:1], time.monotonic() + 60)
    assert both[0].rows


def test_who_has_nothing_short_left_is_not_asked_again() -> None:
    """Though something of its own waits: for another thread."""
    stuck, light = Runs(1000, 0.0), Runs(5, 0.001)
    stuck.run_batch = lambda: False  # type: ignore[method-assign]
    take_turns([stuck, light], time.monotonic() + 60)
    assert (stuck.rows, light.rows) == (1000, 5)
