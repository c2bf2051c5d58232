"""Lease tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import InvalidError
from fallback.token import TOKEN_CHARS_MAX, Hold, read, write


@given(
    queue=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True).filter(str.isascii),
    one=st.text("0123456789abcdef", min_size=1, max_size=32),
    slot=st.integers(0, 24),
    generation=st.integers(1, 2**53),
)
def test_a_token_says_what_was_written(queue: str, one: str, slot: int, generation: int) -> None:
    """In characters that need no quoting in a URL."""
    hold = Hold(queue, one, slot, generation, "nonce")
    text = write(hold)
    assert read(text) == hold
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    assert len(text) <= TOKEN_CHARS_MAX


@given(text=st.text(max_size=100))
def test_anything_else_is_refused_and_nothing_more(text: str) -> None:
    """Never another exception, whatever somebody sends."""
    with pytest.raises(InvalidError, match="token: expected"):
        read(text)


@pytest.mark.parametrize(
    "hold",
    [
        Hold("a b", "1", 0, 1, "n"),
        Hold("{q}", "1", 0, 1, "n"),
        Hold("q", "a:b", 0, 1, "n"),
        Hold("q", "\u00e9", 0, 1, "n"),
        Hold("q", "1", -1, 1, "n"),
    ],
)
def test_a_token_cannot_lead_to_other_keys(hold: Hold) -> None:
    """Queue and id are parts of keys: they are checked even in a well-formed token."""
    with pytest.raises(InvalidError, match="token"):
        read(write(hold))
