"""Journals: written by one process while another reads."""

from __future__ import annotations

from pathlib import Path

from benchmarks.demo.journal import Failed, Journal, Refused, Tail, read_all

FAILED = Failed(index=1, time=2.0, call="Predict", error="x")
REFUSED = Refused(time=3.0, reason="none of the signatures fits")


def test_a_tail_reads_each_entry_once_as_it_comes(tmp_path: Path) -> None:
    """What was read is not read again; a file that is not there yet is empty."""
    tail = Tail(tmp_path / "a.jsonl")
    assert tail.read() == []
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.write(FAILED)
        assert tail.read() == [FAILED]
        journal.write(REFUSED)
        assert tail.read() == [REFUSED]
    assert tail.read() == []


def test_a_tail_leaves_a_line_that_is_not_whole_yet(tmp_path: Path) -> None:
    """Half a line is read once its other half is there."""
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.write(FAILED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    tail = Tail(path)
    assert tail.read() == []
    path.write_bytes(whole)
    assert tail.read() == [FAILED]


def test_all_journals_together_are_every_entry(tmp_path: Path) -> None:
    """Files in the order given."""
    for name, entry in (("a", FAILED), ("b", REFUSED)):
        with Journal(tmp_path / name) as journal:
            journal.write(entry)
    assert read_all([tmp_path / "a", tmp_path / "b"]) == [FAILED, REFUSED]
