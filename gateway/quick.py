"""The short way of a plain request: known by its bytes, run with its likes, answered from a template.

What is plain is a ModelInfer of one tensor of numbers, with nothing asked beside it, to a model whose answers are
judged. Its numbers go from the message into the batch in one copy, the batch is judged as any other, and each reply is
a few pieces of bytes put together. A row that goes to a person, by doubt or by audit, takes the long way from there: it
is made into what the general path would have made of it, so that there is one behaviour and two speeds.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from demur import kserve
from fallback.errors import DemurError, InvalidError
from gateway import tensor
from gateway.champion import Live
from gateway.intake import Intake, Prepared, prepare
from gateway.metrics import Metrics
from gateway.policy import STRENGTH, Decision, Decisions, Wish
from gateway.question import Question
from gateway.request import Request, Result, Waiter, request_key
from gateway.tensor import Array
from gateway.transport import Call

# Stands in a template where the confidence goes: no number that a message would hold by chance.
_MARK: Final = struct.unpack("<d", b"demur\x00\xf1\x3f")[0]
_DOUBLE: Final = struct.Struct("<d")
# raw_output_contents, by its length.
_RAW_TAG: Final = b"\x32"
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


def fit(question: Question, live: Live) -> Fit | None:
    """Return how a question fits a version; None where it does not, or where the general path has to look at it."""
    intake, outputs = live.intake, {spec.name for spec in live.model.signature.outputs}
    plain = live.judged and intake.batched and len(intake.inputs) == 1 and outputs.issuperset(question.outputs)
    if question.version or not plain:
        return None
    dtype = tensor.DTYPES[question.datatype]
    request = Request(
        model=question.model,
        tensors={question.input: np.zeros(question.shape, dtype)},
        client="",
        request_key="",
    )
    try:
        prepared = prepare(request, intake, pixels_max=0)
    except InvalidError:
        return None
    row = question.shape[1:]
    if prepared.rows * int(np.prod(row)) * dtype.itemsize != question.end - question.start:
        return None
    return Fit(intake=intake, rows=prepared.rows, dtype=dtype, row=row, group=("plain", str(row)))


# Makes who answers a request the long way, from its call and the outputs asked for.
Waiters = Callable[[Call, Sequence[str]], Waiter]


class QuickJob:
    """A plain request under way. Ends in one reply, `answer` or `fail`."""

    __slots__ = ("_client", "_key", "_metrics", "_waiters", "call", "fit", "question", "since")

    deadline: Final = None  # its transport keeps it, and says `cancelled`
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
        waiters: Waiters,
        metrics: Metrics,
    ) -> None:
        self.call = call
        self.question = question
        self.fit = fit_
        self.since = time.monotonic()
        self._client = client
        self._waiters = waiters
        self._metrics = metrics
        self._key = ""

    @property
    def rows(self) -> int:
        """How many rows it adds to a batch."""
        return self.fit.rows

    @property
    def group(self) -> tuple[str, ...]:
        """What it may be run together with."""
        return self.fit.group

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self.call.cancelled

    @property
    def key(self) -> str:
        """What names it for the audit's draw."""
        if not self._key:
            self._key = request_key(self._client, "")
        return self._key

    @property
    def numbers(self) -> memoryview:
        """Its rows as they came."""
        return memoryview(self.call.payload)[self.question.start : self.question.end]

    @property
    def request(self) -> Request:
        """What was asked, as the general path has it."""
        question = self.question
        array = np.frombuffer(self.numbers, self.fit.dtype).reshape(question.shape)
        return Request(
            model=question.model,
            tensors={question.input: array},
            client=self._client,
            request_key=self.key,
            deadline=self.call.deadline,
        )

    @property
    def prepared(self) -> Prepared:
        """Its rows, as the general path has them."""
        return prepare(self.request, self.fit.intake, pixels_max=0)

    @property
    def waiter(self) -> Waiter:
        """Who is told on the general path."""
        return self._waiters(self.call, self.question.outputs)

    def answer(self, result: Result) -> None:
        """Reply as the general path does."""
        worth = max((result.decision(row) for row in range(result.rows)), key=STRENGTH.__getitem__)
        self._metrics.requests.labels(result.model, worth.value, "OK").inc()
        self.waiter.answer(result)

    def fail(self, error: DemurError) -> None:
        """Refuse."""
        self._metrics.requests.labels(self.question.model, "", error.code.name).inc()
        self.call.fail(error)


def joined(jobs: Sequence[QuickJob]) -> dict[str, Array]:
    """Return the rows of all jobs, which fit together, as one array: the one copy on the way in."""
    first = jobs[0]
    content = b"".join([job.numbers for job in jobs])
    return {first.question.input: np.frombuffer(content, first.fit.dtype).reshape(-1, *first.fit.row)}


def with_nan(array: Array, jobs: Sequence[QuickJob]) -> list[QuickJob]:
    """Return the jobs whose rows hold NaN where none may be."""
    if array.dtype.kind != "f" or not jobs[0].fit.intake.forbid_nan:
        return []
    bad: NDArray[np.bool_] = np.isnan(array)
    if not bad.any():
        return []
    rows = np.asarray(bad.reshape(len(bad), -1).any(axis=1))
    ends = np.cumsum([job.rows for job in jobs])
    return [job for job, end in zip(jobs, ends, strict=True) if rows[end - job.rows : end].any()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Template:
    """The replies to one kind of question, less what changes.

    `head`, the confidence (8 bytes), then for each output of `names` what stands before it, and its bytes.
    """

    head: bytes
    between: tuple[bytes, ...]
    names: tuple[str, ...]


def template(
    live: Live, outputs: Mapping[str, Array], names: Sequence[str], rows: int, worth: Decision, certificate: str
) -> Template:
    """Return the template of replies with `rows` rows of `outputs`: of those in `names`, or of all.

    Messages of protobuf may be put together from pieces: fields of a message may stand in any order.
    """
    wanted = tuple(names) or tuple(outputs)
    reply = kserve.ModelInferResponse(model_name=live.version.model, model_version=live.version.version)
    for name in wanted:
        array = outputs[name]
        reply.outputs.add(name=name, datatype=tensor.datatype_of(array), shape=(rows, *array.shape[1:]))
    reply.parameters["demur_decision"].string_param = worth.value
    if certificate:
        reply.parameters["demur_certificate"].string_param = certificate
    sure = kserve.ModelInferResponse()
    sure.parameters["demur_confidence"].double_param = _MARK
    head, _, rest = (reply.SerializeToString() + sure.SerializeToString()).rpartition(_DOUBLE.pack(_MARK))
    between = [_RAW_TAG + _varint(rows * outputs[name][:1].nbytes) for name in wanted]
    return Template(head=head, between=(rest + between[0], *between[1:]), names=wanted)


class Replies:
    """Writes the replies of one batch."""

    __slots__ = ("_confidences", "_outputs")

    def __init__(self, decisions: Decisions, jobs: Sequence[QuickJob], outputs: Mapping[str, Array]) -> None:
        self._confidences = lowest(decisions, jobs).astype("<f8").tobytes()
        self._outputs = {name: (array[:1].nbytes, array.tobytes()) for name, array in outputs.items()}

    def write(self, found: Template, at: int, first: int, rows: int) -> bytes:
        """Return the reply of job number `at`, whose `rows` rows begin at `first`."""
        confidence = self._confidences[8 * at : 8 * at + 8]
        if len(found.names) == 1:
            size, content = self._outputs[found.names[0]]
            return b"".join((found.head, confidence, found.between[0], content[first * size : (first + rows) * size]))
        parts = [found.head, confidence]
        for between, name in zip(found.between, found.names, strict=True):
            size, content = self._outputs[name]
            parts += (between, content[first * size : (first + rows) * size])
        return b"".join(parts)


def _varint(number: int) -> bytes:
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
    firsts = np.cumsum([0, *(job.rows for job in jobs[:-1])])
    found: NDArray[np.float64] = np.minimum.reduceat(decisions.confidence, firsts)
    return found
