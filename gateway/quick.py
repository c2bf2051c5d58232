"""The short way of a plain request: known by its bytes, run with its likes, answered from a template.

What is plain is a ModelInfer or Predict of one tensor of numbers, with nothing asked beside it, to a model whose
answers are judged. Its numbers go from the message into the batch in one copy, the batch is judged as any other, and
each reply is a few pieces of bytes put together. What is parked of a row that goes to a person, by doubt or by audit
(`gateway.slip`), is what the general path would have parked, so that there is one behaviour and two speeds.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fallback.errors import DemurError, InvalidError
from fallback.queue import Parked
from gateway import tensor
from gateway.champion import Live
from gateway.intake import Intake, Prepared, prepare
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.question import Question
from gateway.request import Request, Result, Waiter, request_key
from gateway.rules import STRENGTH, Decision, Decisions, Wish
from gateway.tensor import Array
from gateway.transport import Call

# Stands in a template where the confidence goes: no bytes that a message would hold by chance.
MARKED: Final = b"demur\x00\xf1\x3f"
MARK: Final[float] = struct.unpack("<d", MARKED)[0]
# How many a service keeps.
TEMPLATES_MAX: Final = 256
# Of a varint's byte: that another one follows.
_MORE: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A question that a version takes: how many rows, of which type and shape, and what it may be run together with."""

    intake: Intake
    rows: int
    dtype: np.dtype[Any]
    row: tuple[int, ...]
    group: tuple[str, ...]


def fit(question: Question, live: Live, *, one_row: bool) -> Fit | None:
    """Return how a question fits a version; None where it does not, or where the general path has to look at it."""
    intake, outputs = live.intake, {spec.name for spec in live.model.signature.outputs}
    plain = live.judged and intake.batched and len(intake.inputs) == 1 and outputs.issuperset(question.outputs)
    if question.version or not plain or intake.padding is not None:
        return None
    dtype = tensor.DTYPES[question.datatype]
    request = Request(
        model=question.model,
        tensors={question.input: np.zeros(question.shape, dtype)},
        client="",
        request_key="",
        one_row=one_row,
    )
    try:
        prepared = prepare(request, intake, pixels_max=0)
    except InvalidError:
        return None
    row = prepared.arrays[question.input].shape[1:]
    if prepared.rows * int(np.prod(row)) * dtype.itemsize != question.end - question.start:
        return None
    return Fit(
        intake=intake,
        rows=prepared.rows,
        dtype=dtype,
        row=row,
        group=("plain", question.input, question.datatype, str(row)),
    )


class Wording(Protocol):
    """How a service answers. `one_row`: a request has one row, with or without an axis of rows."""

    @property
    def one_row(self) -> bool:
        """Whether a request is one row."""

    @property
    def waiter(self) -> Callable[[Call, Question], Waiter]:
        """Makes who answers a request the long way."""

    def write(self, batch: Answered, job: QuickJob, at: int, first: int) -> bytes:
        """Return the reply to job number `at` of a batch, whose rows begin at `first`."""

    def write_parked(
        self, batch: Answered, job: QuickJob, at: int, first: int, parked: Mapping[int, Parked]
    ) -> bytes | None:
        """Return the reply to one of which some rows are `parked`; None where the general path has to reply."""

    def write_all(self, batch: Answered, jobs: Sequence[QuickJob], which: Sequence[int]) -> list[bytes] | None:
        """Return the replies to those jobs of a batch that are alike; None where they are to be written one by one."""


class QuickJob:
    """A plain request under way. Ends in one reply, `answer` or `fail`."""

    __slots__ = (
        "_key",
        "_metrics",
        "_prepared",
        "_request",
        "call",
        "client",
        "fit",
        "question",
        "since",
        "until",
        "wording",
    )

    level: Final = 0
    timeout_us: Final = 0
    pinned: Final = None
    digest: Final = ""
    wish: Final = Wish.NONE
    repeats: Final = False
    earlier: Final[frozenset[int]] = frozenset()

    def __init__(
        self,
        call: Call,
        question: Question,
        fit_: Fit,
        client: str,
        wording: Wording,
        metrics: Metrics,
    ) -> None:
        self.call = call
        self.question = question
        self.fit = fit_
        self.since = time.monotonic()
        self.until = math.inf
        self.client = client
        self.wording = wording
        self._metrics = metrics
        self._key = ""
        # Made only where the general path asks for them; the rows may turn out to be none that a model takes.
        self._request: Request | None = None
        self._prepared: Prepared | None = None

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch."""
        return self.fit.rows

    @property
    def group(self) -> tuple[str, ...]:
        """What it may be run together with."""
        return self.fit.group

    @property
    def deadline(self) -> float | None:
        """When its caller stops waiting, by time.monotonic()."""
        return self.call.deadline

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self.call.cancelled

    @property
    def key(self) -> str:
        """What names it for the audit's draw."""
        if not self._key:
            self._key = request_key(self.client, "")
        return self._key

    @property
    def name(self) -> str:
        """What its client calls it; empty for nothing."""
        question = self.question
        return question.id_of(self.call.payload).decode() if question.id_end > question.id_start else ""

    @property
    def numbers(self) -> memoryview:
        """Its rows as they came."""
        return memoryview(self.call.payload)[self.question.start : self.question.end]

    @property
    def request(self) -> Request:
        """What was asked, as the general path has it."""
        if self._request is None:
            question = self.question
            self._request = Request(
                model=question.model,
                tensors={question.input: np.frombuffer(self.numbers, self.fit.dtype).reshape(question.shape)},
                client=self.client,
                request_key=self.key,
                one_row=self.wording.one_row,
                deadline=self.call.deadline,
            )
        return self._request

    @property
    def prepared(self) -> Prepared:
        """Its rows, as the general path has them."""
        if self._prepared is None:
            self._prepared = prepare(self.request, self.fit.intake, pixels_max=0)
        return self._prepared

    @property
    def waiter(self) -> Waiter:
        """Who is told on the general path."""
        return self.wording.waiter(self.call, self.question)

    def answer(self, result: Result) -> None:
        """Reply as the general path does."""
        worth = max((result.decision(row) for row in range(result.rows)), key=STRENGTH.__getitem__)
        self._metrics.requests.labels(result.model, worth.value, "OK").inc()
        waiter = self.waiter
        try:
            waiter.answer(result)
        except Exception as error:  # noqa: BLE001 - one caller's trouble is its own: the others' replies go on
            waiter.fail(told(error, model=result.model))

    def answer_from(self, batch: Answered, at: int, first: int) -> None:
        """Reply as number `at` of a batch, whose rows begin at `first`."""
        try:
            self.call.reply(self.wording.write(batch, self, at, first))
        except Exception as error:  # noqa: BLE001 - as above
            self.call.fail(told(error, model=self.question.model))

    def answer_parked(self, batch: Answered, at: int, first: int, parked: Mapping[int, Parked]) -> bool:
        """Reply as number `at` of a batch of which some rows are `parked`; False where the general path has to."""
        reply = self.wording.write_parked(batch, self, at, first, parked)
        if reply is None:
            return False
        self._metrics.requests.labels(self.question.model, Decision.DEFERRED.value, "OK").inc()
        self.call.reply(reply)
        return True

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self._metrics.requests.labels(self.question.model, "", error.code.name).inc()
        self.call.fail(error)


def alike(jobs: Sequence[QuickJob]) -> bool:
    """Whether all ask the same question, with other numbers: then they have one Fit, and one Wording."""
    fit_ = jobs[0].fit
    return not [job for job in jobs if job.fit is not fit_]


def answer_all(batch: Answered, jobs: Sequence[QuickJob], which: Sequence[int]) -> None:
    """Reply to those jobs of a batch."""
    replies = None
    if alike(jobs):
        try:
            replies = jobs[0].wording.write_all(batch, jobs, which)
        except DemurError:
            replies = None  # what is wrong with one is told to that one, below
    if replies is None:
        firsts = [0, *accumulate(job.rows for job in jobs)]
        for at in which:
            jobs[at].answer_from(batch, at, firsts[at])
        return
    for at, reply in zip(which, replies, strict=True):
        try:
            jobs[at].call.reply(reply)
        except Exception as error:  # noqa: BLE001 - one caller's trouble is its own: the others' replies go on
            jobs[at].call.fail(told(error, model=jobs[at].question.model))


class Answered:
    """A batch whose requests are answered: what their replies are made of.

    `confidences` has 8 bytes for each job's lowest, `contents` each output's bytes a row and of all rows. `key` is what
    templates depend on; `templates` are those in use here. None of the run's outputs is kept (see `Model.run`): a
    row may wait for a person long after the version was replaced.
    """

    __slots__ = (
        "_types",
        "certificate",
        "compute_seconds",
        "confidences",
        "contents",
        "decisions",
        "key",
        "live",
        "start",
        "templates",
        "worth",
    )

    def __init__(
        self,
        live: Live,
        decisions: Decisions,
        jobs: Sequence[QuickJob],
        outputs: Mapping[str, Array],
        *,
        start: float,
        compute_seconds: float,
    ) -> None:
        self.live = live
        self.decisions = decisions
        self.start = start
        self.compute_seconds = compute_seconds
        self.worth = Decision.UNCERTIFIED if decisions.uncertified else Decision.ANSWERED
        self.certificate = decisions.certificate
        self.confidences = lowest(decisions, jobs).tobytes()
        self.contents = {name: (array.nbytes // len(array), tensor.encode(array)) for name, array in outputs.items()}
        self._types = tuple([(array.dtype, array.shape[1:]) for array in outputs.values()])
        self.key = (live.version.model, live.version.version, decisions.uncertified, self.certificate, self._types)
        self.templates: dict[Any, Any] = {}

    @property
    def weight(self) -> int:
        """How many bytes it keeps of the model's outputs."""
        return sum([len(content) for _, content in self.contents.values()])

    @property
    def outputs(self) -> dict[str, Array]:
        """All rows of each output, made of `contents`; read-only."""
        rows, found = len(self.decisions.confidence), {}
        for (name, (_, content)), (dtype, row) in zip(self.contents.items(), self._types, strict=True):
            datatype = tensor.datatype_of(np.empty(0, dtype))
            found[name] = tensor.decode(content, datatype, (rows, *row), field=name)
        return found

    def result(self, job: QuickJob, first: int) -> Result:
        """Return what came of a job whose rows begin at `first`, as the general path has it."""
        manifest, rows = self.live.manifest, slice(first, first + job.rows)
        return Result(
            model=self.live.version.model,
            version=self.live.version.version,
            labels=manifest.labels,
            outputs={name: array[rows] for name, array in self.outputs.items()},
            rows=job.rows,
            first=first,
            decisions=self.decisions,
            judged=True,
            answer_output=manifest.output.tensor,
            on_deferral=manifest.on_deferral or "",
            queue_seconds=self.start - job.since,
            compute_seconds=self.compute_seconds,
        )


def varint(number: int) -> bytes:
    """Return a number >= 0 as protobuf writes it."""
    found = bytearray()
    while number >= _MORE:
        found.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    found.append(number)
    return bytes(found)


def lowest(decisions: Decisions, jobs: Sequence[QuickJob]) -> NDArray[np.float64]:
    """Return each job's lowest confidence."""
    if len(decisions.confidence) == len(jobs):
        return decisions.confidence
    firsts = np.cumsum([0, *[job.rows for job in jobs[:-1]]])
    found: NDArray[np.float64] = np.minimum.reduceat(decisions.confidence, firsts)
    return found
