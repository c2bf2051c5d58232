"""`demur verify` and `demur certificate show`, on the evidence that a certifier left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallback.errors import StateError
from gateway.samples import JoinRow
from tests.unit.trainer.world import MODEL, World, new_world, terms
from trainer import certificate_commands
from trainer.chain import BrokenError, Chain, Notes
from trainer.rows import genesis, link


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One that proved something, of two segments."""
    world = new_world(tmp_path, north=terms(alpha=0.05, segment="north"))
    world.run(200)
    return world


def _damage(folder: Path) -> Path:
    """Change one byte of a line that ends a batch, a third of the way; returns the file."""
    [segment] = (folder / MODEL).glob("*.rows")
    lines = segment.read_bytes().splitlines(keepends=True)
    marks = [number for number, line in enumerate(lines) if line.startswith(b"= ")]
    number = marks[len(marks) // 3]
    lines[number] = lines[number].replace(b'"rows"', b'"rowz"')
    segment.write_bytes(b"".join(lines))
    return segment


def test_what_each_process_promises_is_said(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the operator knows whether alpha and delta are what was wanted."""
    certificate_commands.verify(MODEL, data=tmp_path)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith(f"{MODEL}: agrees: {world.book.rows} rows")
    names = {course.row.segment: course.row.epoch for course in world.book.courses}
    assert lines == [
        f"  process {names['']} (version 1): alpha 0.1, delta 0.05",
        f"  process {names['north']} (version 1, segment north): alpha 0.05, delta 0.05",
    ]


def test_a_damaged_line_hides_nothing(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands name the file and the place; another model's evidence is checked all the same."""
    segment = _damage(world.folder)
    sentence = f"{segment}: the line at byte [0-9]+, after row [0-9]+, is damaged"
    with pytest.raises(BrokenError, match=sentence):
        certificate_commands.show(MODEL, data=tmp_path)
    other = Chain(world.folder, "other")
    other.append(link(genesis("other"), [JoinRow(second=1, gateway="a")]), Notes())
    with pytest.raises(StateError, match=f"^{MODEL}: {sentence}"):
        certificate_commands.verify(data=tmp_path)
    assert capsys.readouterr().out == "other: agrees: 1 rows, 0 records, 0 certificates computed again\n"
