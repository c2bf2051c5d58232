"""A book as it stood at the end of a chain's file, so that a start need not replay years of rows.

Nothing depends on it: where it is missing, was not written by this very code, or by somebody without the system's
secret, the chain is replayed whole. What it leaves unread it still knows by sha256, so a row of an old file that was
changed is found as before. `demur verify` never looks at it.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import structlog

from fallback.presence import write_atomic
from gateway import certification, samples
from trainer import book as books
from trainer import certificate, course, drift, rows, watermark
from trainer.book import Book
from trainer.chain import Chain, Start
from trainer.errors import disk

NAME: Final = "book.snapshot"
_TAG_BYTES: Final = 32
# What a book is made of: with any of these changed, what an earlier release kept is another thing.
_SOURCES: Final = (books, certificate, certification, course, drift, rows, samples, watermark)

log = structlog.get_logger(__name__)


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    start: Start
    book: bytes


def write(chain: Chain, book: Book, secret: bytes) -> None:
    """Keep `book`, which holds every row of `chain`, whose last file is full. Raises UnavailableError."""
    body = msgspec.msgpack.encode(_Snapshot(code=_code(), start=chain.start(), book=pickle.dumps(book)))
    with disk(chain.folder):
        write_atomic(chain.folder / NAME, _tag(secret, body) + body)


def read(chain: Chain, secret: bytes) -> tuple[Book, Start] | None:
    """Return what was kept of `chain`; None where there is nothing, or nothing to go by."""
    path = chain.folder / NAME
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    tag, body = whole[:_TAG_BYTES], whole[_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(secret, body)):
        log.warning("a snapshot was not made with this system's secret; all rows are read", path=str(path))
        return None
    found = msgspec.msgpack.decode(body, type=_Snapshot)
    if found.code != _code():
        log.info("a snapshot is of another release; all rows are read", path=str(path))
        return None
    book: Book = pickle.loads(found.book)  # noqa: S301 - as above
    return book, found.start


def _tag(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"demur snapshot 1\0" + body, hashlib.sha256)


@cache
def _code() -> str:
    """Return what tells this code, and so what a book is, from any other."""
    return hashlib.sha256(b"\0".join(Path(str(module.__file__)).read_bytes() for module in _SOURCES)).hexdigest()
