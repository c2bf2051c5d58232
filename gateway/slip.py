"""What is parked of a row, put together from what was said of it; and the slip that says so in few bytes. Pure.

A plain request's row needs little to be parked: its numbers, who asked, and what was decided. That is its slip, which
the thread that answers writes in microseconds; all the rest is made of it elsewhere (`gateway.clerk`). What is the same
for all rows of a model stands in the `Terms`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from fallback.answer import Label, Subject, Task
from fallback.deferral import Draw, Parking, Prediction, SecondOpinion
from gateway import tensor
from gateway.request import Request
from gateway.rules import Decisions
from gateway.tensor import Array
from gateway.wire import serialise

# Elements of one tensor that a reviewer is shown where the client sent nothing to look at.
_SHOWN_ELEMENTS_MAX: Final = 1_000
# So many digits tell floats of 32 bits apart; between these all powers of ten that it takes are exact in 64 bits.
_MARK: Final = "values"
_SHOWN_TYPE: Final = "application/json"
_JSON: Final = msgspec.json.Encoder()
_DIGITS: Final = np.array([[6.0], [7.0], [8.0], [9.0]])
_EVEN_MIN: Final = 1e-12
_EVEN_MAX: Final = 1e6
# Of what is answered without a doubt nothing but the audit speaks for a person.
_AUDITED: Final = ("audit",)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a row, and why a person is to see it."""

    answer: Label
    confidence: float
    shown: float | None
    draw: Draw
    reasons: tuple[str, ...]
    audit: bool
    second_opinion: SecondOpinion | None = None


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What rows of one version, asked in one way, have in common; `row` is the shape of one."""

    model: str
    version: str
    queue: str
    labels: tuple[str, ...]
    task: Task
    input: str
    datatype: str
    row: tuple[int, ...]


class Slip(msgspec.Struct, frozen=True, array_like=True):
    """One row of a plain request: who asked, its numbers as they came, and what was decided.

    `q` and `xi` are its draw, `predicted` the number of the label.
    """

    client: str
    request_key: str
    numbers: memoryview
    predicted: int
    confidence: float
    shown: float | None
    q: float
    xi: float
    reasons: tuple[str, ...]
    audit: bool

    def parking(self, blank: Blank, values: list[Any] | None = None) -> Parking:
        """Return what is parked; `values` are its numbers as they are shown, where they were made before."""
        terms, (head, tail) = blank.terms, blank.subject
        if tail and values is None:
            (values,) = readable(terms, (self,))
        return Parking(
            queue=terms.queue,
            client=self.client,
            # Without a key nobody asks whether it is another input.
            idempotency_key="",
            input_digest="",
            task=terms.task,
            subject=head if values is None else b"".join((head, _JSON.encode(values), tail)),
            media_type=_SHOWN_TYPE,
            attributes={},
            inputs=b"".join((blank.inputs, self.numbers)),
            prediction=Prediction(
                model=terms.model,
                version=terms.version,
                answer=Label(terms.labels[self.predicted]),
                confidence=self.confidence,
                shown=self.shown,
            ),
            draw=Draw(request_key=self.request_key, q=self.q, xi=self.xi),
            reasons=self.reasons,
            audit=self.audit,
        )


class Blank(NamedTuple):
    """What is made of terms once for all their rows: the contents of each, less its own numbers.

    `inputs` stands before the numbers; `subject` before and after them as they are shown, or is all of it.
    """

    terms: Terms
    inputs: bytes
    subject: tuple[bytes, bytes]

    @classmethod
    def of(cls, terms: Terms) -> Self:
        """Return that of `terms`."""
        array = np.zeros((1, *terms.row), tensor.DTYPES[terms.datatype])
        inputs = {terms.input: array}
        whole = serialise(inputs)
        if array.size > _SHOWN_ELEMENTS_MAX:
            subject = shown(inputs).content, b""
        else:
            head, _, tail = shown(inputs, {terms.input: [_MARK]}).content.rpartition(_JSON.encode(_MARK))
            subject = head, tail
        return cls(terms, whole[: len(whole) - array.nbytes], subject)


def readable(terms: Terms, slips: Sequence[Slip]) -> Sequence[list[Any] | None]:
    """Return the numbers of rows as they are shown, made for all at once; None for each where they are too many."""
    if math.prod(terms.row) > _SHOWN_ELEMENTS_MAX:
        return [None] * len(slips)
    content = b"".join([slip.numbers for slip in slips])
    rows = np.frombuffer(content, tensor.DTYPES[terms.datatype]).reshape(len(slips), *terms.row)
    found: list[list[Any]] = _readable(rows).tolist()
    return found


def slip(
    decisions: Decisions, place: int, *, client: str, request_key: str, numbers: memoryview, predicted: int
) -> Slip:
    """Return the slip of the row at `place` of a batch, which stands in `numbers`."""
    audit = bool(decisions.audited[place])
    return Slip(
        client,
        request_key,
        numbers,
        predicted,
        float(decisions.confidence[place]),
        None if decisions.shown is None else float(decisions.shown[place]),
        decisions.share if audit else 1.0,
        float(decisions.draws[place]),
        reasons(decisions, place),
        audit,
    )


def reasons(decisions: Decisions, place: int) -> tuple[str, ...]:
    """Return the names of the rules for which a person is to see a row."""
    if decisions.audited[place] and not decisions.unreviewed[place]:
        return _AUDITED
    return decisions.reasons(place)


def assembled(
    request: Request,
    said: Said,
    *,
    subject: Subject,
    inputs: Mapping[str, Array],
    digest: str,
    key: str,
    queue: str,
    task: Task,
    version: str,
) -> Parking:
    """Return what is parked of one row, `inputs` as the model has it; `digest` tells it from another under its key."""
    return Parking(
        queue=queue,
        client=request.client,
        idempotency_key=key,
        input_digest=digest,
        task=task,
        subject=subject.content,
        media_type=subject.media_type,
        attributes={**subject.attributes, **request.attributes},
        inputs=serialise(inputs),
        prediction=Prediction(
            model=request.model, version=version, answer=said.answer, confidence=said.confidence, shown=said.shown
        ),
        draw=said.draw,
        reasons=said.reasons,
        audit=said.audit,
        callback=request.callback,
        priority=request.priority,
        review_seconds=request.review_seconds,
        on_expiry=request.on_expiry,
        tier=request.tier,
        excluded_reviewers=request.excluded_reviewers,
        second_opinion=said.second_opinion,
    )


def digest(model: str, tensors: Mapping[str, Array], subject: Subject | None) -> str:
    """Return the sha256 (hex) that tells a retry from another input: over the model, the tensors, the subject."""
    found = hashlib.sha256()

    def add(part: bytes) -> None:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)

    add(model.encode())
    for name in sorted(tensors):
        array = tensors[name]
        add(name.encode())
        add(f"{tensor.datatype_of(array)}{list(array.shape)}".encode())
        add(tensor.encode(array))
    if subject is not None:
        add(b"subject")
        add(subject.media_type.encode())
        add(subject.content)
    return found.hexdigest()


def _readable(array: Array) -> Array:
    """Return small floats as the shortest number that means them: 0.1, not 0.10000000149011612.

    The same as their texts read as numbers, for all of 32 bits at once: the first number of digits that means the same.
    """
    if array.dtype != np.float32:
        return array.astype(np.str_).astype(np.float64) if array.dtype == np.float16 else array
    size = np.abs(array)
    even = (size > _EVEN_MIN) & (size < _EVEN_MAX)
    with np.errstate(invalid="ignore"):
        found = array.astype(np.float64)
    if not even.all():
        odd = ~(even | (size == 0))
        found[odd] = array[odd].astype(np.str_).astype(np.float64)
    given, wide = array[even], found[even]
    first = -np.floor(np.log10(size[even].astype(np.float64)))
    up = 10.0 ** (first + _DIGITS - 1)
    numbers = np.rint(wide * up) / up
    same = numbers.astype(np.float32) == given
    same[-1] = True
    found[even] = numbers[same.argmax(axis=0), np.arange(len(given))]
    return found


def shown(inputs: Mapping[str, Array], values: Mapping[str, list[Any]] = MappingProxyType({})) -> Subject:
    """Return a view of tensors for a client that sent nothing to look at: JSON with what there is of each, in full
    where it is small. `values` are those that were made readable before.
    """  # noqa: D205 - one sentence needs two lines
    view: dict[str, Any] = {}
    for name, array in inputs.items():
        facts: dict[str, Any] = {"datatype": tensor.datatype_of(array), "shape": list(array.shape)}
        if array.size <= _SHOWN_ELEMENTS_MAX:
            facts["values"] = values[name] if name in values else _readable(array).tolist()
        view[name] = facts
    return Subject(content=msgspec.json.encode(view), media_type=_SHOWN_TYPE)
