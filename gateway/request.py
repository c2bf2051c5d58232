"""What a client asks and what it gets, as values: no wire, no grpc, no Redis."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from fallback.answer import Subject
from fallback.deferral import Callback, OnExpiry
from fallback.errors import DemurError
from gateway.rules import Decision, Decisions, Wish
from gateway.tensor import Array
from gateway.verdict import Verdict

_PROCESS: Final = os.urandom(8).hex()
_NUMBERS: Final = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One question to a model. Either `tensors`, or a `subject` that the model's preprocessing reads, or both.

    `client` comes from the edge's credentials. `request_key` names the request for the audit's draw: the client and
    its idempotency key, or an id made here; `id` is what the client calls it otherwise, empty for nothing. `one_row`:
    the tensors are one row, with or without an axis of rows.
    `deadline` by time.monotonic(). `review_seconds` None: the queue's setting. `tier` is that of reviewers to begin at,
    empty for the first; `excluded_reviewers` are never asked. `level` is the priority level that it waits for a
    run at, `timeout_us` how long at most, microseconds; 0 for what the model says.
    """

    model: str
    version: str = ""
    tensors: Mapping[str, Array] = field(default_factory=dict)
    subject: Subject | None = None
    client: str
    idempotency_key: str = ""
    request_key: str
    id: str = ""
    one_row: bool = False
    callback: Callback | None = None
    priority: int = 0
    review_seconds: float | None = None
    on_expiry: OnExpiry | None = None
    wish: Wish = Wish.NONE
    attributes: Mapping[str, str] = field(default_factory=dict)
    tier: str = ""
    excluded_reviewers: tuple[str, ...] = ()
    deadline: float | None = None
    level: int = 0
    timeout_us: int = 0

    @property
    def said(self) -> Mapping[str, str]:
        """What the client said of it: its attributes, and those of its subject."""
        return self.attributes if self.subject is None else {**self.subject.attributes, **self.attributes}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What came of one request: its rows of every output, and what each row is worth.

    `first` is the row of the batch, and so of `decisions`, that this request's rows begin at. `decisions` is None
    where nothing judges the model. `deferrals` maps this request's deferred rows to their names. `unparked`: rows
    that should have gone to a person and could not, answered all the same because the operator chose so. `notes`: what
    is to be said of single rows beside the policy's rules. `expected_waits`: of deferred rows, seconds, where known.
    """

    model: str
    version: str
    labels: tuple[str, ...]
    outputs: Mapping[str, Array]
    rows: int
    first: int = 0
    decisions: Decisions | None = None
    judged: bool = False
    answer_output: str = ""
    on_deferral: str = ""
    deferrals: Mapping[int, str] = field(default_factory=dict)
    unparked: bool = False
    notes: Mapping[int, Verdict] = field(default_factory=dict)
    expected_waits: Mapping[int, float] = field(default_factory=dict)
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0

    def kept(self) -> Result:
        """Return it with copies of its outputs, for who keeps it beyond its batch (see `Model.run`)."""
        return replace(self, outputs={name: array.copy() for name, array in self.outputs.items()})

    def decision(self, row: int) -> Decision:
        """Return what one of this request's rows is worth."""
        if self.decisions is None or not self.judged:
            return Decision.UNREVIEWED
        found = self.decisions.decision(self.first + row)
        unparked = self.unparked and found is Decision.DEFERRED and row not in self.deferrals
        return Decision.UNREVIEWED if unparked else found

    def confidence(self, row: int) -> float | None:
        """Return how sure the model is of one row, in [0, 1]; None where it cannot say."""
        return None if self.decisions is None else float(self.decisions.confidence[self.first + row])

    def label(self, row: int) -> str:
        """Return the predicted label of one row; empty where the model has none."""
        return "" if self.decisions is None else self.labels[self.decisions.predicted[self.first + row]]

    @property
    def certificate(self) -> str:
        """Return the name of the certificate that was in force; empty where there was none."""
        return self.decisions.certificate if self.decisions is not None and self.judged else ""

    def verdicts(self, row: int) -> tuple[Verdict, ...]:
        """Return what every rule said of one row."""
        if self.decisions is None or not self.judged:
            return ()
        said = self.decisions.verdicts(self.first + row)
        return (*said, self.notes[row]) if row in self.notes else said


class Waiter(Protocol):
    """Who waits for a Result. Exactly one of `answer` and `fail` counts, the first; called from any thread."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def answer(self, result: Result) -> None:
        """Give the result; called on the slow loop where it has deferrals."""

    def fail(self, error: DemurError) -> None:
        """Refuse."""


def request_key(client: str, idempotency_key: str) -> str:
    """Return what a retry has in common with the first try; unique where the client gave no key.

    A client's name has no line feed, so no two pairs give the same key.
    """
    return f"{client}\n{idempotency_key or f'{_PROCESS}-{next(_NUMBERS)}'}"


def row_key(key: str, row: int, rows: int) -> str:
    """Return the key of one row; a request of one row has the request's own."""
    return f"{key}#{row}" if rows > 1 else key
