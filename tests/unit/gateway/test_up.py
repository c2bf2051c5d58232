"""The supervisor's own small judgements; the whole of it is in the acceptance tests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fallback.config import FallbackSettings, load
from fallback.errors import ConfigError, StateError, UnavailableError
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


@pytest.mark.parametrize("named", ["DEMUR_REDIS_URL", "redis.url"])
async def test_a_redis_that_is_not_there_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """With what named it, where it was looked for, without the password, and what to do."""
    address = "redis://:secret@127.0.0.1:1/0"
    path = tmp_path / "demur.toml"
    path.write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n' if named == "redis.url" else "")
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    if named != "redis.url":
        monkeypatch.setenv("DEMUR_REDIS_URL", address)
    said = f"{named}: no Redis answers at redis://127.0.0.1:1/0: .*start it"
    with pytest.raises(UnavailableError, match=said) as told:
        await up.check_redis(load(path))
    assert "secret" not in told.value.message


async def test_with_a_server_of_its_own_no_redis_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is started first."""
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    (tmp_path / "demur.toml").write_text("")
    await up.check_redis(load(tmp_path / "demur.toml"))
