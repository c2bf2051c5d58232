"""Records a model's sampled requests before anybody is answered: one turn for each batch.

Theory of operation. A turn holds the recorder's lock from the moment the second is looked at until the batch's records
are in the spool. So the spool has everything in the order that counts: that the gateway joined, the records of a
second, what closes it, the records of the next one. Whoever reads it in order can send nothing too early.

A batch is one write: what closes earlier seconds, the audits with all that is to be parked, the records. An audit
stands before its record, so that a write that was cut short leaves no record without its audit. What cannot be written
is not sampled, and who asked is refused. Whether anything is recorded is known before a batch is looked at: were
sure and unsure requests left out by different rules, what is left would be no sample.

Seconds also end while nobody asks: the shipping loop calls `tick`. A gateway that was silent for long may have been
declared lost, and one whose name the certifier gave up has been: it ends its name and goes on under another, for
nothing that is told under the old one counts. A request that is tried again under its key, in
the same epoch, keeps the place that it had.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Final, Self, TypeAlias

import msgspec
import structlog

from fallback.errors import DemurError, UnavailableError
from gateway.sampler import Clock, Counts, Sampler, Seen
from gateway.samples import ClosingRow, JoinRow, Place, UnparkedRow, place_of
from gateway.shipment import Rows, Shipment
from gateway.spool import About, Entry, Kind, Position, Spool, boot

_NAME_BYTES: Final = 6
# After a write that failed nothing is recorded for so long: a disk that is full to the brim may have room for what is
# small, and what is evidence must not depend on that.
_FAILED_SECONDS: Final = 5
# One that is given up again and again (its clock is wrong) takes another name no more often than this.
_RENAME_SECONDS: Final = 60
# Epoch and request key.
Key: TypeAlias = tuple[str, str]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Where a request's record stands, and whether its audit is in a spool."""

    place: Place
    audited: bool


class Recorder:
    """One model's, in one gateway. `turn` from any thread; the rest from the slow loop's."""

    def __init__(self, model: str, *, root: Path, bytes_max: int, keys_max: int, clock: Clock | None = None) -> None:
        self.model = model
        self.shipments: tuple[Shipment, ...] = ()
        self._root = root
        self._bytes_max = bytes_max
        self._keys_max = keys_max
        self._clock = clock or Clock()
        self._lock = Lock()
        self._sampler: Sampler | None = None
        self._current: Shipment | None = None
        self._recorded: OrderedDict[Key, Recorded] = OrderedDict()
        self._closed = False
        # When a write last failed, and why.
        self._failed = -_FAILED_SECONDS, DemurError("nothing failed yet")
        self._renamed = -_RENAME_SECONDS
        # A name joins after the last second of the one before, which others may have passed by then.
        self._first = 0

    @property
    def gateway(self) -> str:
        """The name it goes by now; empty before its first turn."""
        return "" if self._sampler is None else self._sampler.gateway

    @property
    def spool_bytes(self) -> int:
        """What waits on this machine's disk."""
        return sum(shipment.spool.size for shipment in self.shipments)

    def turn(self, lost: Mapping[str, str] = MappingProxyType({})) -> Turn:
        """Return a batch's use of the recorder; a context manager, which holds the lock.

        `lost` are the names that the certifier gave up, and why.
        """
        return Turn(self, lost)

    def sent(self, shipment: Shipment, rows: Rows, after: Position) -> None:
        """Hear that the certifier's stream has `rows` of a shipment, up to `after`."""
        with self._lock:
            second = self._second()
        shipment.sent(rows, after, second)

    def adopt(self, shipment: Shipment, recorded: Mapping[Key, Recorded]) -> None:
        """Take over what a dead gateway left; who asked it may ask again."""
        with self._lock:
            # The oldest first: what is later than seconds that others have closed by then is left out.
            self.shipments = tuple(sorted((*self.shipments, shipment), key=lambda each: each.spool.about.second))
            for key, each in recorded.items():
                self._keep(key, each)

    def tick(self, *, rejoin_seconds: float) -> None:
        """Close the seconds that are over; what cannot be written now waits for the next tick.

        After a silence of more than `rejoin_seconds` the gateway may have been declared lost, and goes on under another
        name. Raises DemurError where the old one cannot be ended; then nothing is changed.
        """
        with self._lock:
            if self._sampler is None or self._current is None:
                return
            second, heard = self._second(), self._current.heard
            if heard is not None and second - heard > rejoin_seconds:
                log.warning("was silent for long; goes on under another name", model=self.model, gateway=self.gateway)
                self._end()
                self._open(self._second())
                return
            self._sampler.idle(second)
            self._close_seconds(self._sampler, self._current.spool, second)

    def unparked(self, places: Sequence[str]) -> None:
        """Write down that nobody will be asked about these records. Raises DemurError where that cannot be."""
        rows = []
        for second, gateway, counter in map(place_of, places):
            rows.append(row_entry(UnparkedRow(second=second, gateway=gateway, counter=counter)))
        with self._lock:
            if self._current is None:
                raise UnavailableError("nothing is recorded now")
            self._current.spool.append(rows)

    def close(self) -> None:
        """End in good order: nothing is recorded any more. Raises DemurError where that cannot be written."""
        with self._lock:
            self._closed = True
            self._end()

    def drop(self, shipment: Shipment) -> None:
        """Forget a shipment that is done, and its spool."""
        with self._lock:
            self.shipments = tuple(each for each in self.shipments if each is not shipment)
        shipment.spool.remove()

    def _second(self) -> int:
        return max(self._clock.second(), self._first)

    def _ready(self, second: int, lost: Mapping[str, str]) -> int:
        """Return the second in which a batch is recorded; raises DemurError where nothing may be recorded now.

        That is known before anybody looks at what is asked.
        """
        if second < self._failed[0] + _FAILED_SECONDS:
            raise self._failed[1]
        if lost and self.gateway in lost and second >= self._renamed + _RENAME_SECONDS:
            why = lost[self.gateway]
            log.error("given up by the certifier; takes another name", model=self.model, gateway=self.gateway, why=why)
            self._renamed = second
            self._end()
            second = self._second()
        self._open(second)
        if self._current is not None:
            self._current.spool.check()
        return second

    def _open(self, second: int) -> None:
        if self._closed:
            raise UnavailableError("the gateway is stopping", retry_after_seconds=1.0)
        if self._current is not None:
            return
        sampler = Sampler(secrets.token_hex(_NAME_BYTES), second)
        about = About(model=self.model, gateway=sampler.gateway, second=second, boot=boot())
        spool = Spool.create(self._root, about, bytes_max=self._bytes_max)
        try:
            spool.append([row_entry(sampler.join)], spare=True)
        except DemurError:
            spool.remove()
            raise
        self._sampler, self._current = sampler, Shipment(spool)
        self.shipments = (*self.shipments, self._current)
        log.info("records evidence", model=self.model, gateway=sampler.gateway)

    def _end(self) -> None:
        if self._sampler is None or self._current is None:
            return
        rows = self._sampler.end()
        self._current.spool.append([row_entry(row) for row in rows], spare=True)
        self._current.ended = True
        self._first = rows[-1].second + 1
        self._sampler = self._current = None

    def _close_seconds(self, sampler: Sampler, spool: Spool, second: int) -> None:
        due = sampler.due(second)
        if not due:
            return
        try:
            spool.append([row_entry(row) for row in due], spare=True)
        except DemurError as error:
            log.warning("a second cannot be closed yet", model=self.model, error=error.message)
        else:
            sampler.wrote()

    def _write(self, second: int, entries: Sequence[Entry], seen: Seen | Counts) -> None:
        """Write a batch's entries, after what closes the seconds before."""
        sampler, current = self._sampler, self._current
        assert sampler is not None, "a turn that has no trouble has a sampler"
        assert current is not None, "and its spool"
        if entries:
            due = sampler.due(second)
            try:
                current.spool.append([*map(row_entry, due), *entries])
            except DemurError as error:
                self._failed = second, error
                raise
            sampler.wrote()
        else:
            self._close_seconds(sampler, current.spool, second)
        sampler.add(second, seen)

    def _keep(self, key: Key, recorded: Recorded) -> None:
        self._recorded[key] = recorded
        self._recorded.move_to_end(key)
        while len(self._recorded) > self._keys_max:
            self._recorded.popitem(last=False)


class Turn:
    """A batch's use of the recorder. All of it is in `second`. `trouble`: why nothing can be recorded."""

    __slots__ = ("_lost", "_recorder", "second", "trouble")

    def __init__(self, recorder: Recorder, lost: Mapping[str, str]) -> None:
        self.second = 0
        self.trouble: DemurError | None = None
        self._recorder = recorder
        self._lost = lost

    def __enter__(self) -> Self:
        recorder = self._recorder
        recorder._lock.acquire()  # noqa: SLF001 - a turn is a part of its recorder
        try:
            self.second = recorder._second()  # noqa: SLF001 - as above
            self.second = recorder._ready(self.second, self._lost)  # noqa: SLF001 - as above
        except DemurError as error:
            self.trouble = error
        except BaseException:
            recorder._lock.release()  # noqa: SLF001 - as above
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder._lock.release()  # noqa: SLF001 - as above

    def place(self) -> Place:
        """Return where the next sampled request stands."""
        sampler = self._recorder._sampler  # noqa: SLF001 - as above
        return (self.second, "", 0) if sampler is None else sampler.place(self.second)

    def recorded(self, key: Key) -> Recorded | None:
        """Return what was recorded under a key before."""
        return self._recorder._recorded.get(key)  # noqa: SLF001 - as above

    def write(self, entries: Sequence[Entry], seen: Seen | Counts, keys: Mapping[Key, Recorded]) -> None:
        """Put `entries` into the spool, in one write, and remember `keys`; raises DemurError, and nothing happened."""
        if self.trouble is not None:
            raise self.trouble
        self._recorder._write(self.second, entries, seen)  # noqa: SLF001 - as above
        for key, recorded in keys.items():
            self._recorder._keep(key, recorded)  # noqa: SLF001 - as above

    def count(self, seen: Seen | Counts) -> None:
        """Count what needs no record."""
        if self._recorder._sampler is not None:  # noqa: SLF001 - as above
            self._recorder._write(self.second, (), seen)  # noqa: SLF001 - as above


def row_entry(row: ClosingRow | JoinRow | UnparkedRow) -> Entry:
    """Return a row as it goes into a spool."""
    return Kind.ROW, msgspec.json.encode(row)
