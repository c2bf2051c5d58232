"""Who serves, found in /proc: this process, which listens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.serve import serving
from benchmarks.serve.serving import Worked
from fallback.errors import InvalidError


def test_who_listens_on_a_port_is_found_with_its_other_ports() -> None:
    """Over IPv4 and IPv6 alike, and no more once it has stopped."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port = one.getsockname()[1]
        assert serving.listening(port) == (os.getpid(),)
        assert {port, other.getsockname()[1]} <= set(serving.ports([os.getpid()]))
    assert serving.listening(port) == ()


def test_a_server_is_its_process_and_what_that_started() -> None:
    """Each once, with the time that they worked; one that has ended counts nothing."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = serving.family([os.getpid(), os.getpid()])
        assert found[0] == os.getpid()
        assert found.count(child.pid) == 1
        before = serving.cpu_seconds(found)
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        assert serving.cpu_seconds(found) - before >= 0.05
    finally:
        child.kill()
        child.wait()
    assert serving.cpu_seconds([child.pid]) == 0
    assert serving.command(child.pid) == ""
    assert "python" in serving.command(os.getpid())


def test_who_started_a_server_is_known_but_for_who_started_us() -> None:
    """The nearest first: what also started the benchmark, a shell or a supervisor, does not work for the server."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sys; sys.stdin.read()'])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        until = time.monotonic() + 20
        while len(serving.family([parent.pid])) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        _, child = serving.family([parent.pid])
        assert serving.above(child) == (parent.pid,)
    finally:
        parent.communicate()
    assert serving.above(child) == ()


def test_who_only_forwards_is_told_from_a_server(tmp_path: Path) -> None:
    """By its program's name, as where a server in a container or a pod is reached."""
    program = tmp_path / "kubectl"
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    until = time.monotonic() + 20
    while not serving.command(child.pid) and time.monotonic() < until:  # for a moment a new program has no words
        time.sleep(0.01)
    try:
        assert serving.forwards(child.pid)
        assert not serving.forwards(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_what_others_took_is_what_neither_server_nor_client_did() -> None:
    """In cores, over the time between; where nothing is known nothing is said."""
    before, after = Worked(10.0, 100.0, 50.0), Worked(14.0, 106.0, 54.0)
    assert serving.others(before, after) == 0.5
    assert serving.others(None, after) is None
    assert serving.others(before, Worked(14.0, 101.0, 54.0)) == 0.0
    looked = serving.worked([os.getpid()], [])
    assert looked is None or looked.machine > 0


def test_an_address_is_here_or_elsewhere() -> None:
    """By whether it could be bound; no name of nobody is here."""
    assert serving.is_here("127.0.0.1")
    assert serving.is_here("localhost")
    assert not serving.is_here("192.0.2.1")
    assert not serving.is_here("nobody.invalid")


def test_a_process_that_is_none_is_named() -> None:
    """By the option that named it."""
    serving.expect(os.getpid())
    with pytest.raises(InvalidError, match="--pid: expected a process of this machine, got 999999999"):
        serving.expect(999_999_999)
