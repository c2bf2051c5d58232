"""A spool and how far it was read: which rows went to the certifier, which audits to the queue."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Final

import msgspec

from fallback.deferral import Parking
from gateway.samples import ClosingRow, JoinRow
from gateway.spool import Kind, Mark, Position, Spool

ROWS_MAX: Final = 1_000
AUDITS_MAX: Final = 64
_BYTES_MAX: Final = 4 * 1024 * 1024
# Tags stand first in a row.
_CLOSING: Final = b'{"type":"closing"'
_JOIN: Final = b'{"type":"join"'

Rows = Sequence[tuple[bytes, Position]]


class Shipment:
    """One spool on its way. `ended`: nothing more is written to it. Rows and audits may be read at the same time."""

    def __init__(self, spool: Spool, *, ended: bool = False) -> None:
        self.spool = spool
        self.ended = ended
        # The second in which the certifier was last told something of it.
        self.heard: int | None = None
        self._lock = Lock()
        self._mark = spool.mark()
        self._sent = self._mark.closed

    @property
    def shipped(self) -> bool:
        """Whether every row that is there was sent."""
        return self._sent >= self.spool.end

    @property
    def parked(self) -> bool:
        """Whether every audit that is there is parked, or given up."""
        return self._mark.parked >= self.spool.end

    @property
    def done(self) -> bool:
        """Whether nothing is left to do, now and later."""
        return self.ended and self.shipped and self.parked

    def rows(self) -> tuple[Rows, Position]:
        """Return the next rows to send, and the position after them."""
        return self.spool.read(self._sent, Kind.ROW, count=ROWS_MAX, bytes_max=_BYTES_MAX)

    def sent(self, rows: Rows, after: Position, second: int) -> None:
        """Hear that the certifier's stream has `rows`, in `second`."""
        self._sent = after
        if not rows:
            return
        self.heard = second
        with self._lock:
            mark = self._mark
            for row, place in rows:
                if row.startswith(_JOIN):
                    join = msgspec.json.decode(row, type=JoinRow)
                    mark = msgspec.structs.replace(mark, joined=True, second=join.second - 1)
                elif row.startswith(_CLOSING):
                    closing = msgspec.json.decode(row, type=ClosingRow)
                    mark = msgspec.structs.replace(mark, closed=place, second=closing.second, final=closing.final)
            self._set(mark)

    def audits(self) -> tuple[list[Parking], Position]:
        """Return the next audits to park, and the position after them."""
        found, after = self.spool.read(self._mark.parked, Kind.AUDIT, count=AUDITS_MAX, bytes_max=_BYTES_MAX)
        return [msgspec.msgpack.decode(audit, type=Parking) for audit, _ in found], after

    def settled(self, after: Position) -> None:
        """Hear that the audits up to `after` are parked, or given up."""
        with self._lock:
            self._set(msgspec.structs.replace(self._mark, parked=after))

    def _set(self, mark: Mark) -> None:
        if mark != self._mark:
            self._mark = mark
            self.spool.set_mark(mark)
