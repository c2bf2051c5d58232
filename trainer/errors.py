"""The errors that only training raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake.exceptions import DeltaError

from fallback.errors import StateError, UnavailableError


class NotTrainableError(StateError):
    """This model cannot be retrained here; the sentence says what was looked for and what was found."""


class ParityError(StateError):
    """The exported model does not compute what was trained."""


class DiskError(UnavailableError):
    """The disk refuses: full, not ours to write, or not readable. Nothing is lost; it is tried again."""


class StoppedError(UnavailableError):
    """The process is about to end: the work that it was at is begun again by the next one."""


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the disk refuses while the block works on `path` into a sentence that names it; raises DiskError."""
    try:
        yield
    except (OSError, DeltaError) as error:
        raise DiskError(f"{path} could not be read or written: {error}") from error
