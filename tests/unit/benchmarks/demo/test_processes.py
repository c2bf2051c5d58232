"""The demo's processes: what becomes of them and of what they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.demo import receiver
from benchmarks.demo.processes import Crew, Process, ProcessDiedError
from benchmarks.demo.worker import Specification, read_specification, write_specification

READY_SECONDS = 20.0
ENV = {**os.environ, receiver.SECRET: "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}


def specification(folder: Path) -> Specification:
    return Specification(name="receiver", journal=folder / "receiver.jsonl", ready=folder / "url")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def wait_for_end(process: Process) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not process.ended:
        assert time.monotonic() < deadline, f"{process.name} did not end"
        time.sleep(0.05)


def test_a_specification_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Paths too, for which JSON has no word."""
    given = specification(tmp_path)
    write_specification(tmp_path / "specification.json", given)
    assert read_specification(tmp_path / "specification.json") == given


def test_a_process_that_dies_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    """Without its secret the receiver cannot start, and says which variable is missing."""
    env = {name: value for name, value in ENV.items() if name != receiver.SECRET}
    with Crew(env=env) as crew:
        process = crew.start("receiver", specification(tmp_path))
        with pytest.raises(ProcessDiedError, match=receiver.SECRET):
            wait_for_end(process)


def test_leaving_the_crew_ends_everyone(tmp_path: Path) -> None:
    """Whatever happened inside."""
    with Crew(env=ENV) as crew:
        process = crew.start("receiver", specification(tmp_path))
        wait_for(tmp_path / "url")
        assert not process.ended
    assert process.ended


def test_a_process_ends_when_its_orchestrator_is_killed(tmp_path: Path) -> None:
    """Its orders close, and it does not outlive whoever gave them."""
    parent = (
        "import pathlib, sys, time; from benchmarks.demo.processes import Crew;"
        "from benchmarks.demo.worker import read_specification as read;"
        "crew = Crew(); crew.start('receiver', read(pathlib.Path(sys.argv[1])));"
        "time.sleep(60)"
    )
    path, lock = tmp_path / "given.json", tmp_path / "url"
    write_specification(path, specification(tmp_path))
    orchestrator = subprocess.Popen([sys.executable, "-c", parent, str(path)], env=ENV)
    wait_for(lock)
    port = int(lock.read_text().split(":")[2].split("/")[0])
    orchestrator.send_signal(signal.SIGKILL)
    orchestrator.wait()
    assert ends_listening(port)


def ends_listening(port: int) -> bool:
    """Say whether nobody listens on `port` any more, waiting for that a while."""
    import socket

    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return True
        time.sleep(0.05)
    return False
