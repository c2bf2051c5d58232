"""A start goes on from the book as it was kept, and finds what it does not read to be what it was."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.samples import SampledRecord
from tests.unit.trainer.world import MODEL, SECRET, World, new_world, rows_of, terms
from trainer import chain as chains
from trainer import snapshot
from trainer.book import Book
from trainer.chain import BrokenError, Chain
from trainer.verify import verify

# A world that was killed goes on in another process.
CHILD = """
import pickle, sys
from tests.unit.trainer.world import verified
world = pickle.load(sys.stdin.buffer)
world.open()
before = verified(world).certificates
world.run(120)
after = verified(world)
print(world.skipped > 0, after.agrees, after.certificates - before)
"""


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


def test_a_key_that_counted_before_a_restart_counts_no_second_time(tmp_path: Path) -> None:
    """Another process knows it from the snapshot, though Python's hash of a text is another there."""
    world = new_world(tmp_path)
    world.run(200)
    counted = [row for row in rows_of(SampledRecord, world) if row.second <= world.book.passed]
    world.kill()
    world.retries = counted[:100]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "PYTHONHASHSEED": seed},
        input=pickle.dumps(world),
        capture_output=True,
        check=True,
    )
    skipped, agrees, certificates = child.stdout.decode().split()
    assert (skipped, agrees) == ("True", "True"), child.stderr.decode()
    assert int(certificates) > 0


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


def test_all_that_a_book_is_made_of_tells_its_release(tmp_path: Path) -> None:
    """Else a snapshot of an earlier release, whose fields meant something else, would be gone by."""
    world = World(folder=tmp_path, asked=terms())
    world.run(120)
    told = {module.__name__ for module in snapshot._SOURCES}
    # Protocol 2 names each class in one word, "module name".
    named = {
        str(text).split()[0]
        for code, text, _ in pickletools.genops(pickle.dumps(world.book, 2))
        if code.name == "GLOBAL"
    }
    ours = {module for module in named if module.split(".")[0] in {"trainer", "gateway", "fallback"}}
    assert ours
    assert ours <= told
