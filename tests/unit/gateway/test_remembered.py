"""Idempotency keys are remembered as far back as there is room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import ConflictError
from gateway.remembered import Remembered
from gateway.request import request_key, row_key


def test_the_same_input_is_known_again_and_another_is_refused() -> None:
    """With the rows that were deferred."""
    remembered = Remembered(10)
    key = request_key("ann", "k")
    assert remembered.check(key, "d") == frozenset()
    remembered.keep(key, "d", frozenset({1}))
    assert remembered.check(key, "d") == frozenset({1})
    with pytest.raises(ConflictError, match="idempotency_key: 'k' was used with another input"):
        remembered.check(key, "other")
    assert remembered.check(request_key("bob", "k"), "other") == frozenset()


def test_the_oldest_is_forgotten_when_there_is_no_room() -> None:
    """A key that is used stays longer."""
    remembered = Remembered(2)
    for key in ("a", "b"):
        remembered.keep(key, key, frozenset())
    remembered.check("a", "a")
    remembered.keep("c", "c", frozenset())
    assert remembered.check("b", "anything") == frozenset()
    with pytest.raises(ConflictError):
        remembered.check("a", "anything")


@given(st.tuples(st.text(), st.text(min_size=1)), st.tuples(st.text(), st.text(min_size=1)))
def test_no_two_clients_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Names have no line feed, so the pair can be told from its key."""
    names = [pair[0].replace("\n", "") for pair in (one, other)]
    same = (names[0], one[1]) == (names[1], other[1])
    assert (request_key(names[0], one[1]) == request_key(names[1], other[1])) == same


def test_without_a_key_every_request_has_its_own() -> None:
    """Made here."""
    assert request_key("ann", "") != request_key("ann", "")
    assert row_key("k", 0, 1) == "k"
    assert [row_key("k", row, 2) for row in range(2)] == ["k#0", "k#1"]
