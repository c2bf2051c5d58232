from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import UnavailableError
from gateway.samples import ClosingRow, JoinRow
from trainer import chain as chains
from trainer.chain import BrokenError, Chain, Notes, models
from trainer.rows import Link, Row, first_break, genesis, link


def _rows(first: int, count: int) -> list[Row]:
    return [
        JoinRow(second=second, gateway="g")
        if second % 2
        else ClosingRow(second=second, gateway="g", eligible=1, answered=0, sampled=1, histogram=(0,) * 20)
        for second in range(first, first + count)
    ]


def _links(chain: Chain, rows: list[Row]) -> list[Link]:
    return link(chain.digest, rows)


def _read(folder: Path) -> tuple[list[Row], Chain]:
    found: list[Row] = []
    opened = Chain(folder, "m")
    opened.open(lambda row, _: found.append(row))
    return found, opened


def test_what_is_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    """Rows, digest and notes; a model without a chain has none."""
    assert models(tmp_path) == []
    _, chain = _read(tmp_path)
    chain.append(_links(chain, _rows(0, 3)), Notes(arrivals="5-0", ledger_row=2))
    chain.append(_links(chain, _rows(3, 2)), Notes(arrivals="7-1", ledger_row=4, agreed=1))
    found, again = _read(tmp_path)
    assert found == _rows(0, 5)
    assert (again.rows, again.digest, again.notes) == (5, chain.digest, Notes(arrivals="7-1", ledger_row=4, agreed=1))
    assert models(tmp_path) == ["m"]
    assert [kept.digest for kept in again.links()][-1] == chain.digest


def test_notes_alone_may_go_on(tmp_path: Path) -> None:
    """Cursors move where no row came of what was read."""
    _, chain = _read(tmp_path)
    chain.append([], Notes(arrivals="9-0"))
    found, again = _read(tmp_path)
    assert (found, again.notes.arrivals) == ([], "9-0")


@given(cut=st.integers(1, 1_000))
def test_a_batch_that_was_not_finished_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """At whatever byte its writer died: what was finished before stands, and the next one goes on from there."""
    folder = tmp_path_factory.mktemp("chain")
    _, chain = _read(folder)
    chain.append(_links(chain, _rows(0, 2)), Notes(ledger_row=1))
    [segment] = (folder / "m").glob("*.rows")
    whole = segment.stat().st_size
    chain.append(_links(chain, _rows(2, 3)), Notes(ledger_row=2))
    with segment.open("rb+") as file:
        file.truncate(max(whole, segment.stat().st_size - cut))
    found, again = _read(folder)
    assert (found, again.notes.ledger_row) == (_rows(0, 2), 1)
    assert segment.stat().st_size == whole
    again.append(_links(again, _rows(2, 3)), Notes(ledger_row=2))
    assert _read(folder)[0] == _rows(0, 5)


def test_a_reader_sees_what_is_finished_and_changes_nothing(tmp_path: Path) -> None:
    """Somebody else may be writing at this moment."""
    _, chain = _read(tmp_path)
    chain.append(_links(chain, _rows(0, 2)), Notes())
    [segment] = (tmp_path / "m").glob("*.rows")
    with segment.open("ab") as file:
        file.write(b"half a row")
    size = segment.stat().st_size
    found: list[Row] = []
    Chain(tmp_path, "m").read(lambda row, _: found.append(row))
    assert (len(found), len(list(chain.links())), segment.stat().st_size) == (2, 2, size)


@pytest.mark.parametrize("old", [b'"eligible":1', b"= {", b'"rows":2', b"\n= "])
def test_what_was_changed_is_never_cut_off_as_unfinished(tmp_path: Path, old: bytes) -> None:
    """A row, or the line that ends a batch: whoever opens it hears of it, and everything is left as it is."""
    _, chain = _read(tmp_path)
    for number in range(3):
        chain.append(_links(chain, _rows(2 * number, 2)), Notes())
    [segment] = (tmp_path / "m").glob("*.rows")
    body = segment.read_bytes()
    segment.write_bytes(body.replace(old, b"X" * len(old), 1))
    with pytest.raises(BrokenError):
        _read(tmp_path)
    assert segment.stat().st_size == len(body)


@given(place=st.integers(0), byte=st.integers(0, 255))
def test_no_byte_that_was_changed_hides_a_row(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    """Every reader has all rows, or finds the one that does not follow, or is told; nothing is cut off."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "SEGMENT_BYTES_MAX", 600)
        _, chain = _read(folder)
        for number in range(4):
            chain.append(_links(chain, _rows(2 * number, 2)), Notes(ledger_row=number))
    segments = sorted((folder / "m").glob("*.rows"))
    assert len(segments) > 1
    bodies = [segment.read_bytes() for segment in segments]
    # A last line without its end is what a writer that was killed leaves: only a digest that somebody kept tells.
    place %= sum(map(len, bodies)) - 1
    for segment, body in zip(segments, bodies, strict=True):
        if 0 <= place < len(body):
            segment.write_bytes(body[:place] + bytes([byte]) + body[place + 1 :])
        place -= len(body)
    changed = [segment.read_bytes() for segment in segments]
    for reader in (Chain(folder, "m").read, Chain(folder, "m").open):
        found: list[Row] = []
        try:
            reader(lambda row, _, found=found: found.append(row))  # type: ignore[misc]  # bound now
        except BrokenError:
            continue
        assert found == _rows(0, 8)
    try:
        links = list(Chain(folder, "m").links())
    except BrokenError:
        links = []
    assert not links or len(links) == 8 or first_break(genesis("m"), links) is not None
    assert [segment.read_bytes() for segment in segments] == changed


@pytest.mark.parametrize(
    ("old", "sentence"),
    [
        (b'"rows":2,', "the line at byte [0-9]+, after row 2, is damaged: expected the end of a batch"),
        (b'= {"rows":2', "the line at byte [0-9]+ ends row 4, .*, but before it stand 5 rows"),
        (b'"rows":6,', "the line at byte [0-9]+, after row 6, is damaged: expected the end of a batch"),
        (b'= {"rows":6', "after row 6 comes something that is neither a row nor its batch's end"),
    ],
)
def test_what_stands_behind_a_damaged_line_is_not_taken_for_the_end(tmp_path: Path, old: bytes, sentence: str) -> None:
    """Nor is the last batch for one that was not finished; the sentence names the file and the place."""
    _, chain = _read(tmp_path)
    for number in range(3):
        chain.append(_links(chain, _rows(2 * number, 2)), Notes())
    [segment] = (tmp_path / "m").glob("*.rows")
    segment.write_bytes(segment.read_bytes().replace(old, b"X" + old[1:], 1))
    with pytest.raises(BrokenError, match=f"^{segment}: {sentence}"):
        list(Chain(tmp_path, "m").links())
    for reader in (Chain(tmp_path, "m").read, Chain(tmp_path, "m").open):
        with pytest.raises(BrokenError, match=f"^{segment}: "):
            reader(lambda *_: None)


def test_a_row_that_was_changed_is_named(tmp_path: Path) -> None:
    """By its number, and by what shows more of it."""
    _, chain = _read(tmp_path)
    chain.append(_links(chain, _rows(0, 4)), Notes())
    [segment] = (tmp_path / "m").glob("*.rows")
    segment.write_bytes(segment.read_bytes().replace(b'"second":2', b'"second":9'))
    with pytest.raises(BrokenError, match="row 2 of model 'm' is not what was written; see `demur verify m`"):
        _read(tmp_path)


def test_long_chains_are_kept_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each named by its first row; a batch that is not whole stands only at the end of the last."""
    monkeypatch.setattr(chains, "SEGMENT_BYTES_MAX", 500)
    _, chain = _read(tmp_path)
    for number in range(6):
        chain.append(_links(chain, _rows(2 * number, 2)), Notes(ledger_row=number))
    segments = sorted((tmp_path / "m").glob("*.rows"))
    assert len(segments) > 1
    assert segments[0].name == "000000000000.rows"
    found, again = _read(tmp_path)
    assert (found, again.notes.ledger_row) == (_rows(0, 12), 5)
    with segments[0].open("ab") as file:
        file.write(b"half a row")
    with pytest.raises(BrokenError, match="no whole batch"):
        _read(tmp_path)


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    """Nothing is taken for written."""
    _, chain = _read(tmp_path)
    (tmp_path / "m").write_bytes(b"in the way")
    with pytest.raises(UnavailableError):
        chain.append(_links(chain, _rows(0, 1)), Notes())
