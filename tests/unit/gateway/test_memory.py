"""Memory that goes back to the system."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from gateway.memory import give_back_small, keep_what_is_there


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


def test_what_is_there_is_looked_through_no_more_and_what_comes_later_is() -> None:
    """A cycle that is made afterwards is found."""
    try:
        keep_what_is_there()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1_000
        later: list[object] = []
        later.append(later)
        del later
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
