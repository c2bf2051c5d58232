"""The ledger: one row for every sampled request that has its outcome, in a Delta table, each exactly once.

Theory of operation. Outcomes come from each queue's stream in order, and come again after a crash. How far the ledger
is stands in the table itself: every commit carries, beside its rows, an application transaction of the queue (the
position of its last event) and one that counts rows. Delta applies rows and transactions together or not at all; it
does not skip a repeated transaction by itself, so `append` reads the version first, with the handle that it writes
with, drops what is not newer, and a writer that raced this one makes the commit fail instead of doubling rows. There
is one writer at a time, by a lock on a file; the check above holds even where that lock is not honoured. A commit is on
the disk, not only on its way there, before `append` returns: what it holds may then be trimmed from the stream.

A server that lost its history may count on from an earlier id, and nothing of it would ever be newer. `begin_history`
then starts a count of its own beside the old one; rows that the old one has already are known by their deferral.

What a row says of a person (attributes, comments, reviewers' names) is in the ledger for good; contents are not.

A stream id `<milliseconds>-<sequence>` becomes one number: milliseconds * 2^20 + sequence.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from fallback.answer import Answer
from fallback.deferral import Deferral, Review, Source
from fallback.errors import InvalidError, StateError
from fallback.queue import OutcomeEvent
from trainer.errors import disk
from trainer.labels import Told

FOLDER: Final = "ledger"
LOCK: Final = "ledger.lock"
_SEQUENCE_BITS: Final = 20
_ROWS: Final = "demur.rows"
_HISTORY: Final = "demur.history"
# Whoever reads has the files open in a moment; merging writes the same rows again, so files left over add up fast.
_VACUUM_HOURS: Final = 1
# Files from here on are left alone: merging into ever larger ones would write the whole ledger again and again.
_MERGED_BYTES: Final = 16 * 1024 * 1024
_CONFIGURATION: Final = {
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 1 days",
    # Of the other columns the log would keep copies of texts, and every look at it would read them all.
    "delta.dataSkippingStatsColumns": "row,position,deferral,model,create_time,outcome_time",
}
_time: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("deferral", pa.string(), nullable=False),
        pa.field("queue", pa.string(), nullable=False),
        pa.field("client", pa.string(), nullable=False),
        pa.field("request_key", pa.string()),
        pa.field("model", pa.string()),
        pa.field("version", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("prediction", pa.string()),
        pa.field("q", pa.float64()),
        pa.field("xi", pa.float64()),
        pa.field("place", pa.string()),
        pa.field("epoch", pa.string()),
        pa.field("certificate", pa.string()),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("audit", pa.bool_(), nullable=False),
        pa.field("blind", pa.bool_()),
        pa.field("reviews", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("reviewed", pa.bool_(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("subject_digest", pa.string(), nullable=False),
        pa.field("inputs_digest", pa.string(), nullable=False),
        pa.field("create_time", _time, nullable=False),
        pa.field("outcome_time", _time, nullable=False),
    ]
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What training reads of one row."""

    row: int
    model: str
    source: Source
    answer: Answer | None
    prediction: Answer | None
    reviewed: bool
    audit: bool
    q: float | None
    inputs_digest: str


# Looked at here, where no other thread can do the same: see `gateway.manifest`.
_KNOWN: Final = msgspec.json.Decoder(tuple[Row, Told, tuple[Review, ...]])


class Ledger:
    """The Delta table in one folder. Reading needs no lock; `append` belongs to whoever holds `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # One for the cursors, asked for again and again: bringing it up to date costs a tenth of opening another.
        self._glance: DeltaTable | None = None
        self._glancing = threading.Lock()

    def cursor(self, queue: str) -> str:
        """Return the stream id of the last outcome of `queue` that is in the table, "0" for none."""
        with self._glancing, disk(self.folder):
            if self._glance is None:
                self._glance = self._table()
            else:
                self._glance.update_incremental()
            table = self._glance
            position = None if table is None else table.transaction_version(_app(queue, _history(table, queue)))
        return "0" if position is None else cursor_of(position)

    def begin_history(self, queue: str) -> None:
        """Count the outcomes of `queue` anew: its stream was lost, and goes on from an id before the cursor."""
        with disk(self.folder):
            table = self._table()
            if table is not None:
                begun = Transaction(f"{_HISTORY}/{queue}", _history(table, queue) + 1)
                commit = CommitProperties(app_transactions=[begun])
                table.create_write_transaction([], mode="append", schema=table.schema(), commit_properties=commit)

    def append(self, queue: str, events: Sequence[OutcomeEvent]) -> int:
        """Add those of `events` (in the stream's order) that are not in yet, in one commit; returns how many.

        Raises UnavailableError where another writer came first or the disk refuses.
        """
        if not events:
            return 0
        with disk(self.folder):
            table = self._table() or self._create()
            history = _history(table, queue)
            done = table.transaction_version(_app(queue, history))
            known = -1 if done is None else done
            fresh = [event for event in events if position_of(event.cursor) > known]
            place = Transaction(_app(queue, history), max(known, position_of(events[-1].cursor)))
            if history:
                fresh = self._unknown(table, queue, history, fresh)
            if place.version == known:
                return 0
            last = table.transaction_version(_ROWS) or 0
            rows = [record(event, last + number) for number, event in enumerate(fresh, start=1)]
            commit = CommitProperties(app_transactions=[place, Transaction(_ROWS, last + len(rows))])
            # A table of before a column came gets it with the first row that has it.
            write_deltalake(
                table,
                pa.Table.from_pylist(rows, SCHEMA),
                mode="append",
                schema_mode="merge",
                commit_properties=commit,
            )
            self._sync(table)
        return len(rows)

    def last_row(self) -> int:
        """Return the number of the newest row, 0 for none; rows are numbered from 1 on without gaps."""
        with disk(self.folder):
            table = self._table()
            return 0 if table is None else table.transaction_version(_ROWS) or 0

    def rows(self, model: str, *, after: int = 0, limit: int | None = None) -> list[Row]:
        """Return the rows of predictions by `model` after row `after`, oldest first; the newest `limit` of them."""
        chosen = (ds.field("model") == model) & (ds.field("row") > after)
        if limit is not None:
            # Numbers first: the other columns are read only of the rows that are wanted.
            numbers = self._read(["row"], chosen)["row"].to_numpy()
            if len(numbers) > limit:
                chosen &= ds.field("row") >= int(np.partition(numbers, -limit)[-limit])
        table = self._read(list(Row.__struct_fields__), chosen).sort_by("row")
        return [_row(values) for values in table.to_pylist()]

    def told(self, model: str, *, after: int) -> list[Told]:
        """Return what is known of the sampled requests of `model` after row `after`, oldest first."""
        chosen = (ds.field("model") == model) & (ds.field("row") > after) & ds.field("place").is_valid()
        table = self._read(["row", "place", "epoch", "source", "reviews"], chosen).sort_by("row")
        return [_told(values) for values in table.to_pylist()]

    def all(self) -> list[dict[str, Any]]:
        """Return every row with every column, oldest first: for reports and small ledgers."""
        return list(self._read(SCHEMA.names, None).sort_by("row").to_pylist())

    def tidy(self, *, files_max: int) -> bool:
        """Merge small files once there are more than `files_max`, and remove what no reader needs any more."""
        with disk(self.folder):
            table = self._table()
            if table is None:
                return False
            sizes = pa.table(table.get_add_actions(flatten=True)).column("size_bytes").to_pylist()
            if sum(size < _MERGED_BYTES for size in sizes) <= files_max:
                return False
            table.optimize.compact(target_size=_MERGED_BYTES)
            table.vacuum(retention_hours=_VACUUM_HOURS, dry_run=False, enforce_retention_duration=False)
        return True

    def _table(self) -> DeltaTable | None:
        if not DeltaTable.is_deltatable(str(self.folder)):
            return None
        return DeltaTable(self.folder)

    def _create(self) -> DeltaTable:
        return DeltaTable.create(self.folder, schema=SCHEMA, mode="ignore", name="ledger", configuration=_CONFIGURATION)

    def _read(self, fields: list[str], chosen: Any) -> Any:
        with disk(self.folder):
            table = self._table()
            if table is None:
                return SCHEMA.empty_table().select(fields)
            found = table.to_pyarrow_dataset()
            if any(name not in found.schema.names for name in fields):
                # Nothing was written since these columns came.
                return SCHEMA.empty_table().select(fields) if chosen is not None else found.to_table()
            return found.to_table(columns=fields, filter=chosen)

    def _unknown(
        self, table: DeltaTable, queue: str, history: int, events: Sequence[OutcomeEvent]
    ) -> list[OutcomeEvent]:
        """Leave out what an earlier history of the stream brought; later than that there is nothing to compare."""
        ends = [table.transaction_version(_app(queue, number)) or 0 for number in range(history)]
        names = [event.deferral.name for event in events if position_of(event.cursor) <= max(ends)]
        if not names:
            return list(events)
        found = table.to_pyarrow_dataset().to_table(columns=["deferral"], filter=ds.field("deferral").isin(names))
        known = set(found["deferral"].to_pylist())
        return [event for event in events if event.deferral.name not in known]

    def _sync(self, table: DeltaTable) -> None:
        """Wait until the newest commit and its file are on the disk, which Delta itself leaves to the system."""
        log = self.folder / "_delta_log"
        commit = log / f"{table.version():020d}.json"
        written = [msgspec.json.decode(line) for line in commit.read_bytes().splitlines()]
        files = [self.folder / action["add"]["path"] for action in written if "add" in action]
        for path in (*files, self.folder, commit, log):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` for as long as the block runs; raises StateError while another process holds it."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{path}: another trainer holds it; one at a time writes here") from error
        yield
    finally:
        os.close(handle)


def position_of(cursor: str) -> int:
    """Return a stream id as one number that rises as the ids do; raises InvalidError for what is no stream id."""
    milliseconds, dash, sequence = cursor.partition("-")
    if not dash or not milliseconds.isdecimal() or not sequence.isdecimal():
        raise InvalidError(f"cursor: expected <milliseconds>-<sequence>, got {cursor[:100]!r}")
    if int(sequence) >> _SEQUENCE_BITS or int(milliseconds) >> (63 - _SEQUENCE_BITS):
        raise InvalidError(f"cursor: expected a sequence below 2^{_SEQUENCE_BITS}, got {cursor[:100]!r}")
    return int(milliseconds) << _SEQUENCE_BITS | int(sequence)


def cursor_of(position: int) -> str:
    """Return the stream id of a position."""
    return f"{position >> _SEQUENCE_BITS}-{position & ((1 << _SEQUENCE_BITS) - 1)}"


def record(event: OutcomeEvent, row: int) -> dict[str, Any]:
    """Return one row as the schema has it; raises InvalidError for a deferral without an outcome."""
    deferral = event.deferral
    outcome = deferral.outcome
    if outcome is None:
        raise InvalidError(f"{deferral.name}: expected an outcome, got a deferral that is {deferral.state.value}")
    prediction, draw = deferral.prediction, deferral.draw
    return {
        "row": row,
        "position": position_of(event.cursor),
        "deferral": deferral.name,
        "queue": deferral.queue,
        "client": deferral.client,
        "request_key": draw.request_key if draw else None,
        "model": prediction.model if prediction else None,
        "version": prediction.version if prediction else None,
        "confidence": prediction.confidence if prediction else None,
        "prediction": _json(prediction.answer) if prediction else None,
        "q": draw.q if draw else None,
        "xi": draw.xi if draw else None,
        "place": (draw.place or None) if draw else None,
        "epoch": (draw.epoch or None) if draw else None,
        "certificate": (draw.certificate or None) if draw else None,
        "reasons": list(deferral.reasons),
        "audit": deferral.audit,
        "blind": _blind(deferral),
        "reviews": _json(deferral.reviews),
        "source": outcome.source.value,
        "answer": None if outcome.answer is None else _json(outcome.answer),
        "reviewed": outcome.reviewed,
        "attributes": _json(deferral.attributes),
        "media_type": deferral.media_type,
        "subject_digest": deferral.subject_digest,
        "inputs_digest": deferral.inputs_digest,
        "create_time": datetime.fromtimestamp(deferral.create_time, UTC),
        "outcome_time": datetime.fromtimestamp(outcome.create_time, UTC),
    }


def _blind(deferral: Deferral) -> bool | None:
    """Return whether every review was blind; None where nobody reviewed."""
    return all(review.blind for review in deferral.reviews) if deferral.reviews else None


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _row(values: dict[str, Any]) -> Row:
    for field in ("answer", "prediction"):
        if values[field] is not None:
            values[field] = msgspec.json.decode(values[field])
    return msgspec.convert(values, Row)


def _told(values: dict[str, Any]) -> Told:
    values["reviews"] = msgspec.json.decode(values["reviews"], type=tuple[Review, ...])
    return msgspec.convert(values, Told)


def _history(table: DeltaTable, queue: str) -> int:
    return table.transaction_version(f"{_HISTORY}/{queue}") or 0


def _app(queue: str, history: int) -> str:
    # No queue's name holds a "#".
    return f"demur.outcomes/{queue}" + (f"#{history}" if history else "")
