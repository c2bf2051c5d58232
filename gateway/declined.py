"""A request with rows for a person, on its way from the thread that answers to where it is parked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from fallback.errors import DemurError
from fallback.queue import Parked
from gateway.intake import Prepared
from gateway.parking import Sampling
from gateway.quick import Answered, QuickJob
from gateway.request import Request, Result, row_key
from gateway.slip import Slip, slip
from gateway.tensor import Array

_FIRST: Final = (0,)

# A job's number, its first row, which of its rows are deferred and which audited.
_Found: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...]]


class Asker(Protocol):
    """Who asked: a request under way."""

    @property
    def request(self) -> Request:
        """What was asked."""

    @property
    def prepared(self) -> Prepared:
        """Its rows."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""

    def answer(self, result: Result) -> None:
        """Give the result."""

    def fail(self, error: DemurError) -> None:
        """Refuse."""


class Plain(NamedTuple):
    """Job number `number` of a batch, whose rows begin at `first`; `kept`: its share of the bytes that this keeps."""

    batch: Answered
    job: QuickJob
    number: int
    first: int
    kept: int = 0

    def slips(self, rows: Sequence[int]) -> tuple[Slip, ...]:
        """Return those of its rows."""
        job, batch, first = self.job, self.batch, self.first
        numbers, size = job.numbers, len(job.numbers) // job.rows
        return tuple(
            [
                slip(
                    batch.decisions,
                    first + row,
                    client=job.client,
                    request_key=row_key(job.key, row, job.rows),
                    numbers=numbers[row * size : (row + 1) * size],
                    predicted=int(batch.decisions.predicted[first + row]),
                )
                for row in rows
            ]
        )

    def answer(self, parked: Mapping[int, Parked]) -> bool:
        """Reply from a template, its rows `parked`; False where the general path has to."""
        return self.job.answer_parked(self.batch, self.number, self.first, parked)


class Declined:
    """A request with rows for a person: `deferred` before it is answered, `audited` beside its answer.

    `samplings`: how rows were recorded whose model is under certification. Their audits are not here: these are parked
    from the spool (`gateway.shipping`). A `plain` request's result is made when it is asked for, of another's a copy is
    kept. `ids`: what its rows are called in the queue, where somebody may have parked them before.
    """

    __slots__ = ("_result", "_weight", "asker", "audited", "deferred", "ids", "plain", "samplings", "since")

    def __init__(
        self,
        *,
        asker: Asker,
        deferred: tuple[int, ...],
        audited: tuple[int, ...],
        result: Result | None = None,
        samplings: Mapping[int, Sampling] = MappingProxyType({}),
        plain: Plain | None = None,
    ) -> None:
        self.asker = asker
        self.deferred = deferred
        self.audited = audited
        self.samplings = samplings
        self.plain = plain
        self.ids: Sequence[str] = ()
        self.since = time.monotonic()
        self._result = None if result is None else result.kept()
        self._weight: int | None = None

    @property
    def rows(self) -> int:
        """How many rows are to be parked."""
        return len(self.deferred) + len(self.audited)

    @property
    def weight(self) -> int:
        """How many bytes are kept until it is parked: of its request, and of what the model made of it."""
        if self._weight is None:
            if self.plain is not None:
                self._weight = len(self.plain.job.call.payload) + self.plain.kept
            else:
                request, outputs = self.asker.request, {} if self._result is None else self._result.outputs
                kept = (*request.tensors.values(), *self.asker.prepared.arrays.values(), *outputs.values())
                arrays = {id(array): _bytes_of(array) for array in kept}
                self._weight = sum(arrays.values()) + (0 if request.subject is None else len(request.subject.content))
        return self._weight

    @property
    def result(self) -> Result:
        """What came of it."""
        if self._result is None:
            assert self.plain is not None, "who has no result is a plain request"
            self._result = self.plain.batch.result(self.plain.job, self.plain.first)
        return self._result

    @property
    def model(self) -> str:
        """Which model was asked."""
        return self.asker.request.model if self.plain is None else self.plain.job.question.model


def parted(batch: Answered, jobs: Sequence[QuickJob]) -> tuple[list[int], list[Declined]]:
    """Return the numbers of a batch's jobs that are answered, and what goes to people.

    One of which rows are only audited is both: it is answered, and people look at it too.
    """
    deferred, audited = batch.decisions.deferred, batch.decisions.audited
    if len(jobs) == len(deferred):
        alone = [(number, number, _FIRST, ()) for number in np.flatnonzero(deferred).tolist()]
        beside = [(number, number, (), _FIRST) for number in np.flatnonzero(audited).tolist()]
        return np.flatnonzero(~deferred).tolist(), _declined(batch, jobs, [*alone, *beside])
    answered: list[int] = []
    found: list[_Found] = []
    first = 0
    for number, job in enumerate(jobs):
        rows = slice(first, first + job.rows)
        one, other = (tuple(np.flatnonzero(which[rows]).tolist()) for which in (deferred, audited))
        if not one:
            answered.append(number)
        if one or other:
            found.append((number, first, one, other))
        first += job.rows
    return answered, _declined(batch, jobs, found)


def _declined(batch: Answered, jobs: Sequence[QuickJob], found: Sequence[_Found]) -> list[Declined]:
    if not found:
        return []
    kept = batch.weight // len(found)
    return [
        Declined(asker=jobs[number], deferred=one, audited=other, plain=Plain(batch, jobs[number], number, first, kept))
        for number, first, one, other in found
    ]


def _bytes_of(array: Array) -> int:
    """Return how many bytes an array keeps, those of its texts included."""
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype.hasobject else 0)
