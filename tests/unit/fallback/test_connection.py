"""What goes to the server: commands, and scripts with what they use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import Connection as Plain

from fallback.connection import _used
from fallback.packing import PIECE_BYTES_MAX, Packing, script_head

WORDS = st.one_of(st.text(max_size=9), st.binary(max_size=9), st.integers(), st.floats(allow_nan=False))


# A connection as the queue makes it.
Packed: Any = type("Packed", (Packing, Plain), {})


@given(name=st.sampled_from(["GET", "SCRIPT LOAD", b"GET"]), arguments=st.lists(WORDS, max_size=5))
def test_a_command_is_packed_as_the_client_library_packs_it(name: str, arguments: list[str | bytes | int]) -> None:
    """Any texts, bytes and numbers, and names of two words."""
    assert b"".join(Packed().pack_command(name, *arguments)) == b"".join(Plain().pack_command(name, *arguments))


@given(names=st.lists(st.text(max_size=9), max_size=5), arguments=st.lists(WORDS, max_size=5))
def test_a_head_is_packed_as_its_words_are(names: list[str], arguments: list[str | bytes | int]) -> None:
    """Beforehand, once for all runs of a script with the same keys."""
    packed = Packed().pack_command("EVALSHA", script_head("sha", tuple(names)), *arguments)
    assert b"".join(packed) == b"".join(Plain().pack_command("EVALSHA", "sha", len(names), *names, *arguments))


@pytest.mark.parametrize("size", [PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1])
def test_a_pipeline_is_its_commands_in_a_row(size: int) -> None:
    """However large what they carry, which is not copied above a size."""
    commands = [("SET", "a", b"x" * size), ("GET", "a"), ("SET", "b", b"y" * size, "NX")]
    pieces = Packed().pack_commands(commands)
    assert b"".join(pieces) == b"".join(Plain().pack_commands(commands))
    assert any(piece is commands[0][2] for piece in pieces) == (size > PIECE_BYTES_MAX)


def test_a_script_has_what_it_uses_of_what_is_shared() -> None:
    """And what that uses in turn, in the order in which it stands."""
    shared = "-- head\nlocal P = 1\n\nlocal function a()\nend\n\nlocal function b()\n  a()\nend\n\n-- no\nlocal c = 3\n"
    assert _used(shared, "b()") == "-- head\nlocal P = 1\n\nlocal function a()\nend\n\nlocal function b()\n  a()\nend"
    assert _used(shared, "return P") == "-- head\nlocal P = 1"
