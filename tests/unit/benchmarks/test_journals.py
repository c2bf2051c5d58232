"""Journals: written by one process while another reads."""

from __future__ import annotations

from pathlib import Path

from benchmarks.demo.journal import Failed, Journal, Refused, tail

FAILED = Failed(index=1, time=2.0, call="Predict", error="x")
REFUSED = Refused(time=3.0, reason="none of the signatures fits")


def test_a_tail_reads_each_entry_once_as_it_comes(tmp_path: Path) -> None:
    """What was read is not read again; a file that is not there yet is empty."""
    entries = tail(tmp_path / "a.jsonl")
    assert entries.read() == []
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.write(FAILED)
        assert entries.read() == [FAILED]
        journal.write(REFUSED)
        assert entries.read() == [REFUSED]
    assert entries.read() == []


def test_a_tail_leaves_a_line_that_is_not_whole_yet(tmp_path: Path) -> None:
    """Half a line is read once its other half is there."""
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.write(FAILED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    entries = tail(path)
    assert entries.read() == []
    path.write_bytes(whole)
    assert entries.read() == [FAILED]
