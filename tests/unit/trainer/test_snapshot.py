"""A start goes on from the book as it was kept, and finds what it does not read to be what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.world import MODEL, SECRET, World, terms
from trainer import chain as chains
from trainer import snapshot
from trainer.book import Book
from trainer.chain import BrokenError, Chain
from trainer.verify import verify


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "SEGMENT_BYTES_MAX", 60_000)


def test_a_start_from_a_snapshot_goes_on_as_one_that_read_everything(tmp_path: Path) -> None:
    """Killed again and again: the same evidence, thresholds and digests, of which only the newest rows were read."""
    world, whole = World(folder=tmp_path, asked=terms()), Book(model=MODEL)
    skipped = []
    for _ in range(12):
        world.run(20)
        world.kill()
        world.open()
        skipped.append(world.skipped)
    Chain(tmp_path, MODEL).read(whole.take)
    assert skipped[-1] > 0.5 * whole.rows
    assert sorted(skipped) == skipped
    book = world.book
    assert (book.rows, book.digest, book.passed, book.records) == (
        whole.rows,
        whole.digest,
        whole.passed,
        whole.records,
    )
    assert [course.state.logs.tolist() for course in book.courses] == [
        course.state.logs.tolist() for course in whole.courses
    ]
    assert [course.steps for course in book.courses] == [course.steps for course in whole.courses]
    assert whole.courses[0].steps
    assert verify(MODEL, Chain(tmp_path, MODEL).links()).agrees


def test_a_row_of_an_old_file_that_was_changed_is_found(tmp_path: Path) -> None:
    """Though nobody reads it."""
    world = World(folder=tmp_path, asked=terms())
    world.run(120)
    world.kill()
    oldest = min((tmp_path / MODEL).glob("*.rows"))
    content = oldest.read_bytes()
    oldest.write_bytes(content.replace(b'"wrong":["1"]', b'"wrong":[]', 1))
    with pytest.raises(BrokenError, match="was changed or is gone"):
        world.open()
    oldest.unlink()
    with pytest.raises(BrokenError, match="was changed or is gone"):
        world.open()


@pytest.mark.parametrize("spoilt", ["another secret", "another byte", "another release", "nothing"])
def test_what_nobody_vouches_for_is_not_gone_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str) -> None:
    """All rows are read instead."""
    world = World(folder=tmp_path, asked=terms())
    world.run(120)
    chain, path = Chain(tmp_path, MODEL), tmp_path / MODEL / snapshot.NAME
    assert snapshot.read(chain, SECRET)
    content = path.read_bytes()
    if spoilt == "another byte":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif spoilt == "another release":
        monkeypatch.setattr(snapshot, "_code", lambda: "elsewhere")
    elif spoilt == "nothing":
        path.unlink()
    assert snapshot.read(chain, bytes(32) if spoilt == "another secret" else SECRET) is None
