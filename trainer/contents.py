"""The contents that the ledger only names: inputs by their sha256, each a file of its own that may be erased.

A row of the ledger, a dataset, a report refer to content by digest. Erasing a person's data is emptying a file here;
whatever meets the gap counts it and goes on. The empty file stays as a mark: the same content, on its way from a queue
or imported again, is not kept again.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from fallback.errors import InvalidError
from fallback.presence import write_atomic
from trainer.errors import disk

FOLDER: Final = "contents"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Contents:
    """Content-addressed files under one folder, `<folder>/<first two digits>/<sha256>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes) -> str:
        """Keep `content`, synced to disk, and return its sha256 (hex); a repeat or what was erased changes nothing."""
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        with disk(path):
            if not path.exists():
                write_atomic(path, content)
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return the content, or None where it was erased, never was, or is not what its name says."""
        path = self._path(digest)
        with disk(path):
            if not path.exists():
                return None
            content = path.read_bytes()
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def erase(self, digest: str) -> bool:
        """Remove the content, and refuse it from now on; False where there was none."""
        path = self._path(digest)
        with disk(path):
            there = path.exists() and path.stat().st_size > 0
            write_atomic(path, b"")
            # What a process that was killed while writing left behind is a copy too.
            for left in path.parent.glob(f".{digest}-*"):
                left.unlink(missing_ok=True)
        return there

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"digest: expected 64 hexadecimal digits (a sha256), got {digest[:100]!r}")
        return self.folder / digest[:2] / digest
