"""A spool and how far it was read: which rows went to the certifier, which audits to the queue. Belongs to one loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fallback.deferral import Parking
from gateway.samples import ClosingRow, JoinRow
from gateway.spool import Kind, Position, Spool

ROWS_MAX: Final = 1_000
AUDITS_MAX: Final = 64
_BYTES_MAX: Final = 4 * 1024 * 1024
# Tags stand first in a row.
_CLOSING: Final = b'{"type":"closing"'
_JOIN: Final = b'{"type":"join"'

Rows = Sequence[tuple[bytes, Position]]


class Shipment:
    """One spool on its way. `ended`: nothing more is written to it."""

    def __init__(self, spool: Spool, *, ended: bool = False) -> None:
        self.spool = spool
        self.ended = ended
        self._mark = spool.mark()
        self._sent = self._mark.closed

    @property
    def heard(self) -> bool:
        """Whether the certifier was told anything of this gateway."""
        return self._mark.joined

    @property
    def shipped(self) -> bool:
        """Whether every row that is there was sent."""
        return self._sent >= self.spool.end

    @property
    def done(self) -> bool:
        """Whether nothing is left to do, now and later."""
        return self.ended and self.shipped and self._mark.parked >= self.spool.end

    def rows(self) -> tuple[Rows, Position]:
        """Return the next rows to send, and the position after them."""
        return self.spool.read(self._sent, Kind.ROW, count=ROWS_MAX, bytes_max=_BYTES_MAX)

    def sent(self, rows: Rows, after: Position) -> None:
        """Hear that the certifier's stream has `rows`. Raises UnavailableError where that cannot be written down."""
        mark = self._mark
        if any(row.startswith(_JOIN) for row, _ in rows):
            # Sent again after a crash, a join changes nothing: what comes before the first closing is sent again.
            mark = msgspec.structs.replace(mark, joined=True)
            first = next(msgspec.json.decode(row, type=JoinRow) for row, _ in rows if row.startswith(_JOIN))
            mark = msgspec.structs.replace(mark, second=max(mark.second, first.second - 1))
        for row, place in reversed(rows):
            if row.startswith(_CLOSING):
                closing = msgspec.json.decode(row, type=ClosingRow)
                mark = msgspec.structs.replace(mark, closed=place, second=closing.second, final=closing.final)
                break
        if mark is not self._mark:
            self.spool.set_mark(mark)
            self._mark = mark
        self._sent = after

    def audits(self) -> tuple[list[Parking], Position]:
        """Return the next audits to park, and the position after them."""
        found, after = self.spool.read(self._mark.parked, Kind.AUDIT, count=AUDITS_MAX, bytes_max=_BYTES_MAX)
        return [msgspec.msgpack.decode(audit, type=Parking) for audit, _ in found], after

    def parked(self, after: Position) -> None:
        """Hear that the audits up to `after` are parked, or given up. Raises UnavailableError as `sent` does."""
        if after != self._mark.parked:
            mark = msgspec.structs.replace(self._mark, parked=after)
            self.spool.set_mark(mark)
            self._mark = mark
