"""Memory that goes back to the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.memory import give_back_small


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it does nothing")
def test_small_blocks_that_are_freed_go_back() -> None:
    """Also those that stand between blocks in use, which the C library keeps by itself."""
    blocks = [bytes(32 * 1024) for _ in range(2_000)]
    full = _resident_bytes()
    del blocks[: len(blocks) - 1]
    give_back_small()
    assert _resident_bytes() < full - 32 * 1024 * 1024
