"""Other servers beside this gateway: how a round is kept, told, and what a peer that does not come up says."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.serve import ground
from fallback.errors import UnavailableError


def figures(side: str, rate: float) -> peers.Figures:
    """Return one measurement."""
    return peers.Figures(side=side, server="s 1", rate=rate, p50_ms=100 / rate, p99_ms=1.0, cpu_us=50.0, failed=0)


def test_the_table_is_of_all_rounds_that_were_kept(tmp_path: Path) -> None:
    """Medians with the lowest and the highest rate; sides that were never measured are left out."""
    kept = tmp_path / "runs.jsonl"
    assert peers.read(kept) == []
    runs = [figures("demur cq", rate) for rate in (2000.0, 1000.0, 4000.0)] + [figures("kserve", 10.0)]
    kept.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in runs))
    assert peers.table(peers.read(kept)).splitlines()[2:] == [
        "| kserve: s 1 | 1 | 10 (10 to 10) | 10 | 1 | 50 |",
        "| demur cq: s 1 | 3 | 2,000 (1,000 to 4,000) | 0.05 | 1 | 50 |",
    ]


def test_a_peer_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    """By the end of its log, at once where it has ended; nothing of it stays behind."""
    argv = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(UnavailableError, match=r"ended with 1 .*\n.*no such model"),
        peers.child(tmp_path, "peer", argv, port=ground.free_port(), cwd=tmp_path),
    ):
        pass
