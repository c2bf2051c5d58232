"""The contents that the ledger only names: inputs by their sha256, each a file of its own that may be erased.

A row of the ledger, a dataset, a report refer to content by digest. Erasing a person's data is removing a file here;
whatever meets the gap counts it and goes on.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from fallback.errors import InvalidError
from fallback.presence import write_atomic

FOLDER: Final = "contents"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Contents:
    """Content-addressed files under one folder, `<folder>/<first two digits>/<sha256>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes) -> str:
        """Keep `content`, synced to disk, and return its sha256 (hex); a repeat changes nothing."""
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        if not path.exists():
            write_atomic(path, content)
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return the content, or None where it was erased, never was, or is not what its name says."""
        try:
            content = self._path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def erase(self, digest: str) -> bool:
        """Remove the content; False where there was none."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"digest: expected 64 hexadecimal digits (a sha256), got {digest[:100]!r}")
        return self.folder / digest[:2] / digest
