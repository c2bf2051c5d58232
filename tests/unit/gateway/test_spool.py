from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallback.errors import FullError, UnavailableError
from gateway.spool import SEGMENTS_MIN, START, About, Kind, Mark, Position, Spool, frame

ABOUT = About(model="m", gateway="g")
MIB = 1024 * 1024
Entries = list[tuple[Kind, bytes]]


def make(root: Path, bytes_max: int = MIB, about: About = ABOUT) -> Spool:
    return Spool.create(root, about, bytes_max=bytes_max)


def again(spool: Spool, bytes_max: int = MIB) -> Spool:
    """The same spool as whoever takes it over finds it."""
    spool.close()
    found = Spool.take(spool.folder, bytes_max=bytes_max)
    assert found is not None
    return found


def everything(spool: Spool, kind: Kind, start: Position = START, count: int = 3) -> list[bytes]:
    found: list[bytes] = []
    while start < spool.end:
        entries, start = spool.read(start, kind, count=count, bytes_max=100)
        found += [payload for payload, _ in entries]
    return found


def rows(*payloads: bytes) -> Entries:
    return [(Kind.ROW, payload) for payload in payloads]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=60)), max_size=5), max_size=12))
def test_what_was_written_is_read_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Entries]
) -> None:
    """Each kind is read as it was written, over as many segments as there are, by this process and by the next."""
    spool = make(tmp_path_factory.mktemp("spool"), bytes_max=SEGMENTS_MIN * 64, about=ABOUT)
    written: Entries = []
    for batch in batches:
        try:
            spool.append(batch)
        except FullError:
            break
        written += batch
    for kind in Kind:
        assert everything(spool, kind) == [payload for each, payload in written if each is kind]
    taken = again(spool)
    assert list(taken.scan(START)) == written
    assert not taken.damaged
    taken.remove()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12), st.integers(min_value=0))
def test_a_torn_end_loses_what_was_not_whole(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], cut: int
) -> None:
    """Wherever the last segment ends, the whole entries before are read, and what is written next follows them."""
    spool = make(tmp_path_factory.mktemp("spool"))
    spool.append(rows(*payloads))
    (segment,) = spool.folder.glob("*.seg")
    length = cut % (segment.stat().st_size + 1)
    os.truncate(segment, length)
    taken = again(spool)
    whole = [payload for _, payload in taken.scan(START)]
    assert whole == payloads[: len(whole)]
    sizes = [len(frame(Kind.ROW, payload)) for payload in payloads]
    assert len(whole) == max(n for n in range(len(sizes) + 1) if sum(sizes[:n]) <= length)
    assert not taken.damaged
    taken.append(rows(b"next"))
    assert everything(taken, Kind.ROW) == [*whole, b"next"]
    taken.remove()


def test_a_changed_byte_is_damage(tmp_path: Path) -> None:
    """What follows an entry that is not what was written is left out, and said to be damaged, not torn."""
    spool = make(tmp_path)
    spool.append(rows(b"one", b"two", b"three"))
    (segment,) = spool.folder.glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[-len(frame(Kind.ROW, b"three")) - 1] ^= 1
    segment.write_bytes(content)
    taken = again(spool)
    assert [payload for _, payload in taken.scan(START)] == [b"one"]
    assert taken.damaged


def test_a_damaged_end_does_not_keep_a_reader_for_ever(tmp_path: Path) -> None:
    """The spool of a living gateway that is damaged is read as far as it goes, then what comes after is."""
    spool = make(tmp_path)
    spool.append(rows(b"one", b"two"))
    (segment,) = spool.folder.glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    found, place = spool.read(START, Kind.ROW, count=10, bytes_max=1000)
    assert [payload for payload, _ in found] == [b"one"]
    spool.append(rows(b"three"))
    assert everything(spool, Kind.ROW, place) == [b"three"]


def test_a_full_spool_takes_small_rows_only(tmp_path: Path) -> None:
    """A spool that is not full takes whatever comes; then nothing, large or small, but what closes seconds."""
    spool = make(tmp_path, bytes_max=1000)
    spool.append(rows(b"w" * 900))
    spool.append(rows(b"x" * 300))
    with pytest.raises(FullError, match="spool_bytes_max"):
        spool.append(rows(b"y"))
    spool.append(rows(b"z" * 200), spare=True)
    assert everything(spool, Kind.ROW) == [b"w" * 900, b"x" * 300, b"z" * 200]


def test_what_all_readers_have_passed_is_deleted(tmp_path: Path) -> None:
    """A segment goes once rows and audits of it are done, and makes room."""
    spool = make(tmp_path, bytes_max=SEGMENTS_MIN * 100)
    places = []
    for number in range(6):
        spool.append(rows(b"%d" % number * 100))
        places.append(spool.end)
    before = spool.size
    spool.set_mark(Mark(closed=places[3], parked=START))
    assert spool.size == before
    spool.set_mark(Mark(closed=places[3], parked=places[4]))
    assert spool.size < before
    assert everything(spool, Kind.ROW, places[3]) == [b"4" * 100, b"5" * 100]
    assert again(spool).mark() == Mark(closed=places[3], parked=places[4])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A disk that takes a part and then no more leaves the spool as it was; later writes follow what was whole."""
    spool = make(tmp_path)
    spool.append(rows(b"one"))
    real = os.write

    def half(file: int, content: bytes) -> int:
        if len(content) <= 4:
            raise OSError(number, os.strerror(number))
        return real(file, content[: len(content) // 2])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        with pytest.raises(FullError if number == errno.ENOSPC else UnavailableError):
            spool.append(rows(b"two"))
    spool.append(rows(b"three"))
    assert everything(spool, Kind.ROW) == [b"one", b"three"]
    assert [payload for _, payload in again(spool).scan(START)] == [b"one", b"three"]


def test_what_could_not_be_cut_off_is_before_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the cut fails, nothing is written behind the torn end until it is made."""
    spool = make(tmp_path)
    spool.append(rows(b"one"))
    real = os.write

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    def half(file: int, content: bytes) -> int:
        if len(content) <= 4:
            fails()
        return real(file, content[: len(content) // 2])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        broken.setattr(os, "truncate", fails)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                spool.append(rows(b"two"))
    spool.append(rows(b"three"))
    assert [payload for _, payload in again(spool).scan(START)] == [b"one", b"three"]


def test_a_living_gateways_spool_is_not_taken(tmp_path: Path) -> None:
    """A spool is somebody's for as long as they hold it."""
    spool = make(tmp_path)
    assert Spool.take(spool.folder, bytes_max=MIB) is None
    assert again(spool).about == ABOUT


def test_a_spool_that_came_to_nothing_is_removed(tmp_path: Path) -> None:
    """What is left of a gateway that died while it made its spool goes."""
    folder = tmp_path / "m" / "g"
    folder.mkdir(parents=True)
    assert Spool.take(folder, bytes_max=MIB) is None
    assert not folder.exists()


def test_where_the_disk_cannot_be_written_a_spool_says_so(tmp_path: Path) -> None:
    """A root that is no folder is told as such."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="spool"):
        make(tmp_path / "file")
