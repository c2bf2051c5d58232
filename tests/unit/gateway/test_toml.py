"""What is written is what the standard library reads back."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import toml

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = (
    _TEXT
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC))
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4))


@settings(max_examples=50)
@given(st.dictionaries(_TEXT, _VALUES, max_size=6))
def test_what_is_written_is_read_back(document: dict[str, object]) -> None:
    """Any document of TOML's types survives, whatever its keys and texts hold."""
    assert tomllib.loads(toml.dumps(document)) == document


def test_none_is_left_out_and_unknown_types_are_refused() -> None:
    """TOML has no null, and no type is guessed."""
    assert toml.dumps({"a": None, "b": 1}) == "b = 1\n"
    with pytest.raises(TypeError, match="bytes"):
        toml.dumps({"a": b"x"})


def test_a_datetime_keeps_its_zone() -> None:
    """Times are written with their offset."""
    assert toml.dumps({"t": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}) == "t = 2026-01-02T03:04:05+00:00\n"
