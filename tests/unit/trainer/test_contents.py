from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fallback.errors import InvalidError, UnavailableError
from trainer.contents import Contents


def test_what_is_put_can_be_had_by_its_digest(tmp_path: Path) -> None:
    """Content-addressed: the key is the sha256; a repeat is the same file."""
    contents = Contents(tmp_path)
    digest = contents.put(b"abc")
    assert digest == hashlib.sha256(b"abc").hexdigest() == contents.put(b"abc")
    assert contents.get(digest) == b"abc"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_erased_content_is_gone_and_may_be_asked_for(tmp_path: Path) -> None:
    """A gap is None, not an error."""
    contents = Contents(tmp_path)
    digest = contents.put(b"abc")
    assert contents.erase(digest)
    assert not contents.erase(digest)
    assert contents.get(digest) is None


def test_content_that_was_changed_is_no_content(tmp_path: Path) -> None:
    """What is not what its name says is not trained on."""
    contents = Contents(tmp_path)
    digest = contents.put(b"abc")
    (tmp_path / digest[:2] / digest).write_bytes(b"abd")
    assert contents.get(digest) is None


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_a_digest_is_64_hexadecimal_digits(digest: str, tmp_path: Path) -> None:
    """Nothing else becomes a path."""
    with pytest.raises(InvalidError, match="expected 64 hexadecimal digits"):
        Contents(tmp_path).get(digest)


def test_what_was_erased_does_not_come_back(tmp_path: Path) -> None:
    """Not from a queue that still has it, not by an import; nor does a copy stay that a killed process left."""
    contents = Contents(tmp_path)
    digest = contents.put(b"abc")
    (tmp_path / digest[:2] / f".{digest}-x1").write_bytes(b"abc")
    assert contents.erase(digest)
    assert contents.put(b"abc") == digest
    assert contents.get(digest) is None
    assert b"abc" not in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    later = hashlib.sha256(b"on its way").hexdigest()
    assert not contents.erase(later)
    contents.put(b"on its way")
    assert contents.get(later) is None


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    """The sentence names the file."""
    (tmp_path / "contents").write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"contents/.* could not be read or written"):
        Contents(tmp_path / "contents").put(b"abc")
