"""What nobody expected: logged whole under an id, told to the caller as that id only."""

from __future__ import annotations

import uuid
from typing import Final

import structlog

from fallback.errors import DemurError

_ID_CHARS: Final = 12

log = structlog.get_logger(__name__)


def told(error: BaseException, **context: object) -> DemurError:
    """Return what a caller may be told: a DemurError as it is, of anything else an id to look for in the log."""
    if isinstance(error, DemurError):
        return error
    name = uuid.uuid4().hex[:_ID_CHARS]
    log.error("internal error", id=name, exc_info=error, **context)
    return DemurError(f"internal error, id {name}")
