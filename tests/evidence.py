"""What the certifier makes of a gateway's rows, for tests: read as they came, known again by their place, counted."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord, UnparkedRow
from trainer import rows, watermark
from trainer.rows import LostRow
from trainer.watermark import Arrival, Counted, Pending

FOREVER = 10**12
_UNPARKED = b'{"type":"unparked"'


class Evidence:
    """A chain that grows. Time for labels is over at once, so that a second is passed as soon as it is closed.

    What comes again is known by its place, as the certifier knows it. Fails where the watermark would: on what goes
    back in time, or counts fewer records than came.
    """

    def __init__(self) -> None:
        self.rows: list[Arrival] = []
        self.unparked: list[Place] = []
        self.pending = Pending()
        self.counted: list[Counted] = []
        self._records: set[Place] = set()
        self._closed: dict[str, int] = {}

    def take(self, stream: Iterable[bytes]) -> None:
        """Take in rows one by one."""
        for body in stream:
            if body.startswith(_UNPARKED):
                # Told to the certifier alone, which makes a label of it.
                self.unparked.append(msgspec.json.decode(body, type=UnparkedRow).place)
                continue
            row: Arrival = arrival(body)
            if self._known(row):
                if not isinstance(row, ClosingRow) or not row.final or row.gateway not in self.live:
                    continue
                # It ended in a second that was over when it joined: nobody waits for it any more.
                row = LostRow(gateway=row.gateway)
            self.rows.append(row)
            self.pending = watermark.arrive(self.pending, [row])
            self.pending, counted = watermark.count(self.pending, reached=FOREVER, sla_seconds=0)
            self.counted += counted

    @property
    def records(self) -> list[SampledRecord]:
        """The sampled requests, in the order in which they came."""
        return [row for row in self.rows if isinstance(row, SampledRecord)]

    @property
    def closings(self) -> list[ClosingRow]:
        """What closed the seconds."""
        return [row for row in self.rows if isinstance(row, ClosingRow)]

    @property
    def gateways(self) -> list[str]:
        """Who joined."""
        return [row.gateway for row in self.rows if isinstance(row, JoinRow)]

    @property
    def holes(self) -> int:
        """Records that were counted and never came."""
        return sum(each.record is None for each in self.counted)

    @property
    def live(self) -> list[str]:
        """Gateways that the watermark still waits for."""
        return [name for name, span in self.pending.spans.items() if span.live]

    def _known(self, row: Arrival) -> bool:
        """Whether a row came before."""
        match row:
            case SampledRecord():
                known = row.place in self._records
                self._records.add(row.place)
                return known
            case JoinRow():
                known = row.gateway in self._closed
                self._closed.setdefault(row.gateway, row.second - 1)
                return known
            case ClosingRow():
                span = self.pending.spans.get(row.gateway)
                known = row.second <= max(self._closed[row.gateway], span.closed if span else row.second)
                self._closed[row.gateway] = max(row.second, self._closed[row.gateway])
                return known
            case _:
                raise AssertionError(row)


def arrival(body: bytes) -> SampledRecord | ClosingRow | JoinRow:
    """Read a row as the certifier reads it; fails for one that no gateway makes."""
    row = rows.decode(body)
    assert isinstance(row, SampledRecord | ClosingRow | JoinRow)
    return row
