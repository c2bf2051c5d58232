"""The supervisor's own small judgements; the whole of it is in the acceptance tests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fallback.config import FallbackSettings, load
from fallback.errors import ConfigError, StateError
from gateway import up


def test_a_port_in_use_is_noticed() -> None:
    """Before any child is started; a free one and port 0 are fine."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "in use" in up.port_problem(address)
    assert up.port_problem(address) == ""
    assert up.port_problem("127.0.0.1:0") == ""
    assert up.port_problem("") == ""
    assert up.port_problem("127.0.0.1:http") != ""
    assert up.port_problem("192.0.2.1:80") != ""


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    """While the first one lives; afterwards the lock is free again."""
    with (
        up.locked(tmp_path),
        pytest.raises(StateError, match=r"`demur up` runs already on .* \(process \d+\)"),
        up.locked(tmp_path),
    ):
        pass
    with up.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the key it came from."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data_folder: .* cannot be written"), up.locked(tmp_path / "file" / "data"):
        pass


def test_callbacks_may_reach_this_machine_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what demur.toml allows; that is how `up` hands it to its children."""
    monkeypatch.setenv("DEMUR_WEBHOOK_ALLOW_NETWORKS", "127.0.0.0/8, ::1/128")
    path = tmp_path / "demur.toml"
    path.write_text('[fallback]\nwebhook_allow_networks = ["10.1.0.0/16"]\n')
    found = load(path).table("fallback", FallbackSettings)
    assert found.webhook_allow_networks == ("10.1.0.0/16", "127.0.0.0/8", "::1/128")
