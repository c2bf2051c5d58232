"""A request with rows for a person, on its way from the thread that answers to where it is parked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

import numpy as np

from fallback.errors import DemurError
from fallback.queue import Parked
from gateway.intake import Prepared
from gateway.parking import Sampling
from gateway.quick import Answered, QuickJob
from gateway.request import Request, Result, row_key
from gateway.slip import Slip, slip

_FIRST: Final = (0,)


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
    """Job number `number` of a batch, whose rows begin at `first`."""

    batch: Answered
    job: QuickJob
    number: int
    first: int

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
        """How many bytes its request has: these are kept until it is parked."""
        if self._weight is None:
            if self.plain is not None:
                self._weight = len(self.plain.job.call.payload)
            else:
                request, prepared = self.asker.request, self.asker.prepared
                arrays = {id(array): array.nbytes for array in (*request.tensors.values(), *prepared.arrays.values())}
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
        alone = [(number, _FIRST, ()) for number in np.flatnonzero(deferred).tolist()]
        beside = [(number, (), _FIRST) for number in np.flatnonzero(audited).tolist()]
        found = [_declined(batch, jobs[number], number, number, *rows) for number, *rows in (*alone, *beside)]
        return np.flatnonzero(~deferred).tolist(), found
    answered: list[int] = []
    found = []
    first = 0
    for number, job in enumerate(jobs):
        rows = slice(first, first + job.rows)
        one, other = (tuple(np.flatnonzero(which[rows]).tolist()) for which in (deferred, audited))
        if not one:
            answered.append(number)
        if one or other:
            found.append(_declined(batch, job, number, first, one, other))
        first += job.rows
    return answered, found


def _declined(
    batch: Answered, job: QuickJob, number: int, first: int, deferred: tuple[int, ...], audited: tuple[int, ...]
) -> Declined:
    return Declined(asker=job, deferred=deferred, audited=audited, plain=Plain(batch, job, number, first))
