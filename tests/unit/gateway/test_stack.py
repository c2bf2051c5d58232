"""Where a running stack is found, and that one which was killed is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from fallback.errors import UnavailableError
from gateway import stack
from gateway.stack import Stack

STACK = Stack(
    gateway="127.0.0.1:8001",
    review="127.0.0.1:8003",
    page="http://127.0.0.1:8080",
    metrics="127.0.0.1:8002",
    data="/d",
    redis="unix:///d/valkey.sock",
    pids={"up": os.getpid()},
)


def test_what_is_written_is_found(tmp_path: Path) -> None:
    """And what is forgotten is not."""
    stack.write(tmp_path, STACK)
    assert stack.find(tmp_path) == STACK
    stack.forget(tmp_path)
    assert stack.read(tmp_path) is None
    with pytest.raises(
        UnavailableError, match=r"no stack runs on .*: start one with `demur up`, or give --gateway HOST:PORT"
    ):
        stack.find(tmp_path)


def test_a_killed_stack_is_not_found(tmp_path: Path) -> None:
    """Its file is still there; its supervisor is not."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    stack.write(tmp_path, msgspec.structs.replace(STACK, pids={"up": ended.pid}))
    assert stack.read(tmp_path) is None


def test_half_a_file_is_none(tmp_path: Path) -> None:
    """Whoever wrote it."""
    (tmp_path / "stack.json").write_text('{"gateway": ')
    assert stack.read(tmp_path) is None
