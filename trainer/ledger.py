"""The ledger: one row for every sampled request that has its outcome, in a Delta table, each exactly once.

Theory of operation. Outcomes come from each queue's stream in order, and come again after a crash. How far the ledger
is stands in the table itself: every commit carries, beside its rows, an application transaction of the queue (the
position of its last event) and one that counts rows. Delta applies rows and transactions together or not at all; it
does not skip a repeated transaction by itself, so `append` reads the version first, with the handle that it writes
with, drops what is not newer, and a writer that raced this one makes the commit fail instead of doubling rows. There
is one writer at a time, by a lock on a file; the check above holds even where that lock is not honoured.

A stream id `<milliseconds>-<sequence>` becomes one number: milliseconds * 2^20 + sequence.
"""

from __future__ import annotations

import fcntl
import os
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
from deltalake.exceptions import DeltaError

from fallback.answer import Answer
from fallback.deferral import Deferral, Source
from fallback.errors import InvalidError, StateError, UnavailableError
from fallback.queue import OutcomeEvent

FOLDER: Final = "ledger"
LOCK: Final = "ledger.lock"
_SEQUENCE_BITS: Final = 20
_ROWS: Final = "demur.rows"
_VACUUM_HOURS: Final = 168
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


class Ledger:
    """The Delta table in one folder. Reading needs no lock; `append` belongs to whoever holds `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cursor(self, queue: str) -> str:
        """Return the stream id of the last outcome of `queue` that is in the table, "0" for none."""
        table = self._table()
        position = None if table is None else table.transaction_version(_app(queue))
        return "0" if position is None else cursor_of(position)

    def append(self, queue: str, events: Sequence[OutcomeEvent]) -> int:
        """Add those of `events` (in the stream's order) that are not in yet, in one commit; returns how many.

        Raises UnavailableError where another writer came first or the disk refuses.
        """
        if not events:
            return 0
        table = self._table() or DeltaTable.create(self.folder, schema=SCHEMA, mode="ignore", name="ledger")
        done = table.transaction_version(_app(queue))
        known = -1 if done is None else done
        fresh = [event for event in events if position_of(event.cursor) > known]
        if not fresh:
            return 0
        last = table.transaction_version(_ROWS) or 0
        rows = [record(event, last + number) for number, event in enumerate(fresh, start=1)]
        commit = CommitProperties(
            app_transactions=[
                Transaction(_app(queue), position_of(fresh[-1].cursor)),
                Transaction(_ROWS, last + len(rows)),
            ],
        )
        try:
            write_deltalake(table, pa.Table.from_pylist(rows, SCHEMA), mode="append", commit_properties=commit)
        except (DeltaError, OSError) as error:
            raise UnavailableError(f"the ledger {self.folder} could not be written: {error}") from error
        return len(rows)

    def last_row(self) -> int:
        """Return the number of the newest row, 0 for none; rows are numbered from 1 on without gaps."""
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

    def all(self) -> list[dict[str, Any]]:
        """Return every row with every column, oldest first: for reports and small ledgers."""
        return list(self._read(SCHEMA.names, None).sort_by("row").to_pylist())

    def tidy(self, *, files_max: int) -> bool:
        """Merge small files once there are more than `files_max`, and remove what no reader of a week ago needs."""
        table = self._table()
        if table is None or len(table.file_uris()) <= files_max:
            return False
        try:
            table.optimize.compact()
            table.vacuum(retention_hours=_VACUUM_HOURS, dry_run=False)
        except (DeltaError, OSError) as error:
            raise UnavailableError(f"the ledger {self.folder} could not be tidied: {error}") from error
        return True

    def _table(self) -> DeltaTable | None:
        if not DeltaTable.is_deltatable(str(self.folder)):
            return None
        return DeltaTable(self.folder)

    def _read(self, fields: list[str], chosen: Any) -> Any:
        table = self._table()
        if table is None:
            return SCHEMA.empty_table().select(fields)
        return table.to_pyarrow_dataset().to_table(columns=fields, filter=chosen)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` for as long as the block runs; raises StateError while another process holds it."""
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


def _app(queue: str) -> str:
    return f"demur.outcomes/{queue}"
