"""How a process says that it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallback import presence
from fallback.presence import Running


def test_a_process_says_where_it_answers(tmp_path: Path) -> None:
    """Under its own name."""
    assert presence.announced(tmp_path, "serve") is None
    running = Running(pid=7, addresses={"grpc": "127.0.0.1:1"}, facts={"provider": "CPUExecutionProvider"})
    presence.announce(tmp_path, "serve", running)
    assert presence.announced(tmp_path, "serve") == running
    presence.withdraw(tmp_path, "serve")
    assert presence.announced(tmp_path, "serve") is None


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """Replaced in one step or not at all."""
    path = tmp_path / "one"
    presence.write_atomic(path, b"old")
    path.chmod(0o400)
    with pytest.raises(TypeError):
        presence.write_atomic(path, "not bytes")  # type: ignore[arg-type]  # on purpose
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]
