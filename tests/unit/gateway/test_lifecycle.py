"""The table of versions' states, walked as a whole, and the functions that walk it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import AbortedError, NotFoundError, StateError
from gateway import lifecycle
from gateway.lifecycle import ModelStates, Standing, VersionState

S = VersionState


def _states(**by_version: VersionState) -> ModelStates:
    standings = {name: Standing(state=state, reason="r", time=1.0) for name, state in by_version.items()}
    champion = next((name for name, state in by_version.items() if state is S.CHAMPION), "")
    return ModelStates(champion=champion, states=standings)


@pytest.mark.parametrize(("start", "target"), list(itertools.product(S, [S.CHAMPION, S.REJECTED])))
def test_only_the_edges_of_the_table_are_walked(start: VersionState, target: VersionState) -> None:
    """Every state x target that a function serves: along an edge it moves, otherwise it says where it stands."""
    states = _states(**{"7": start})
    if target is S.CHAMPION and start is S.CHAMPION:
        with pytest.raises(StateError, match="already"):
            lifecycle.promote(states, "7", reason="why", time=2.0)
        return
    walk = lifecycle.promote if target is S.CHAMPION else lifecycle.reject
    if target in lifecycle.TABLE[start]:
        assert walk(states, "7", reason="why", time=2.0).states["7"] == Standing(state=target, reason="why", time=2.0)
    else:
        with pytest.raises(StateError, match=f"is {start.value} and cannot become {target.value}"):
            walk(states, "7", reason="why", time=2.0)


def test_a_shadow_stands_beside_a_champion_and_few_others() -> None:
    """From where the table lets it; out of it, it is a candidate again."""
    states = _states(**{"1": S.CHAMPION, "2": S.CANDIDATE, "3": S.RETIRED, "4": S.ROLLED_BACK, "5": S.CANDIDATE})
    for version in "234":
        states = lifecycle.shadow(states, version, reason="why", time=2.0)
    assert lifecycle.shadows(states) == ["2", "3", "4"]
    with pytest.raises(StateError, match="versions 2, 3, 4 are in shadow, 3 at most"):
        lifecycle.shadow(states, "5", reason="why", time=2.0)
    out = lifecycle.unshadow(states, "3", reason="enough", time=3.0)
    assert out.states["3"] == Standing(state=S.CANDIDATE, reason="enough", time=3.0)
    with pytest.raises(StateError, match="version 5 is candidate, not in shadow"):
        lifecycle.unshadow(states, "5", reason="why", time=2.0)
    with pytest.raises(StateError, match="expected a champion"):
        lifecycle.shadow(_states(**{"2": S.CANDIDATE}), "2", reason="why", time=2.0)
    assert lifecycle.promote(states, "2", reason="better", time=4.0).states["2"].state is S.CHAMPION


def test_the_table_names_every_state() -> None:
    """No state lacks a row."""
    assert set(lifecycle.TABLE) == set(S)


def test_promotion_retires_the_champion_before_and_a_roll_back_returns_to_it() -> None:
    """The reasons tell what happened to whom."""
    states = ModelStates()
    for version in "12":
        states = lifecycle.add(states, version, reason="new", time=1.0)
        states = lifecycle.promote(states, version, reason=f"better {version}", time=2.0)
    assert (states.champion, states.previous) == ("2", ("1",))
    assert states.states["1"].state is S.RETIRED
    assert "version 2 took over: better 2" in states.states["1"].reason
    with pytest.raises(AbortedError, match="expected version 1 to be the champion, version 2 is the champion now"):
        lifecycle.roll_back(states, reason="worse at night", time=3.0, expected="1")
    back = lifecycle.roll_back(states, reason="worse at night", time=3.0, expected="2")
    assert (back.champion, back.previous) == ("1", ())
    assert back.states["2"] == Standing(state=S.ROLLED_BACK, reason="worse at night", time=3.0)
    with pytest.raises(StateError, match="no champion before version 1"):
        lifecycle.roll_back(back, reason="x", time=4.0)


def test_an_unknown_version_is_not_found() -> None:
    """The sentence names those that are."""
    with pytest.raises(NotFoundError, match="version 9 is not known; there are: 7"):
        lifecycle.promote(_states(**{"7": S.CANDIDATE}), "9", reason="x", time=1.0)


def test_the_document_is_read_back_equal() -> None:
    """What is stored is what was meant."""
    states = _states(**{"1": S.CHAMPION, "2": S.ROLLED_BACK})
    assert lifecycle.decode(lifecycle.encode(states)) == states


def test_the_record_is_bounded() -> None:
    """The oldest versions are forgotten, never the champion or those to go back to; a new one is not taken for old."""
    states = ModelStates()
    for number in range(1, lifecycle.STATES_MAX + 20):
        states = lifecycle.add(states, str(number), reason="new", time=float(number))
        if number <= 3:
            states = lifecycle.promote(states, str(number), reason="better", time=float(number))
    assert len(states.states) == lifecycle.STATES_MAX
    assert {"1", "2", "3"} <= set(states.states)
    assert lifecycle.shown(states, "4", time=1.0) == Standing(state=S.RETIRED, reason=lifecycle.FORGOTTEN, time=1.0)
    newest = str(lifecycle.STATES_MAX + 20)
    assert lifecycle.shown(states, newest, time=1.0).state is S.CANDIDATE
    assert len(lifecycle.encode(states)) < 512 * 1024


@given(st.lists(st.tuples(st.sampled_from(["add", "promote", "roll_back", "reject"]), st.sampled_from("1234"))))
def test_there_is_never_more_than_one_champion(steps: list[tuple[str, str]]) -> None:
    """Whatever is tried in whatever order, `champion` names the one version in that state."""
    states = ModelStates()
    for step, version in steps:
        try:
            if step == "add":
                states = lifecycle.add(states, version, reason="r", time=0.0)
            elif step == "promote":
                states = lifecycle.promote(states, version, reason="r", time=0.0)
            elif step == "reject":
                states = lifecycle.reject(states, version, reason="r", time=0.0)
            else:
                states = lifecycle.roll_back(states, reason="r", time=0.0)
        except (StateError, NotFoundError):
            continue
        champions = [name for name, standing in states.states.items() if standing.state is S.CHAMPION]
        assert champions == ([states.champion] if states.champion else [])
        assert states.champion not in states.previous
        assert all(S.CHAMPION in lifecycle.TABLE[states.states[name].state] for name in states.previous)
