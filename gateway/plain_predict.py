"""Predict's plain questions, and the replies to them: bytes put together from a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from fallback import wire
from fallback.answer import Label
from fallback.deferral import Prediction
from fallback.queue import Parked
from gateway import tensor
from gateway.question import Form, Question, Said
from gateway.quick import MARK, MARKED, TEMPLATES_MAX, Answered, QuickJob, varint
from gateway.request import Waiter
from gateway.transport import Call
from gateway.verdict import Verdict

# Fields of PredictRequest that a plain one may have; and tags of fields whose length follows.
_PLAIN: Final = frozenset({"model", "version", "inputs"})
_OUTPUTS_TAG: Final = b"\x1a"
_RAW_TAG: Final = b"\x22"
_RULES_TAG: Final = b"\x2a"
_QUEUE_TAG: Final = b"\x32"
_COMPUTE_TAG: Final = b"\x3a"


def _said(message: pb.PredictRequest) -> Said | None:
    if any(field.name not in _PLAIN for field, _ in message.ListFields()) or len(message.inputs) != 1:
        return None
    (asked,) = message.inputs
    return Said(
        model=message.model,
        version=message.version,
        id="",
        input=asked.name,
        datatype=asked.datatype,
        shape=tuple(asked.shape),
        outputs=(),
        numbers=asked.raw,
    )


FORM: Final = Form(read=pb.PredictRequest.FromString, said=_said)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Template:
    """The replies that predict one label, less what changes.

    `head`, the confidence (8 bytes), then for each output of `names` what stands before it, and its bytes.
    """

    head: bytes
    between: tuple[bytes, ...]
    names: tuple[str, ...]


class PredictWording:
    """How Predict answers. `waiter` is who does so on the general path."""

    one_row: Final = True

    def __init__(self, waiter: Callable[[Call, Question], Waiter]) -> None:
        self.waiter = waiter
        self._templates: dict[tuple[Any, ...], _Template] = {}

    def write(self, batch: Answered, job: QuickJob, at: int, first: int) -> bytes:
        """Return the reply to job number `at` of a batch, whose row is `first`."""
        predicted = int(batch.decisions.predicted[first])
        found = batch.templates.get(predicted)
        if found is None:
            found = batch.templates[predicted] = self._template(batch, predicted)
        parts = [found.head, batch.confidences[8 * at : 8 * at + 8]]
        for between, name in zip(found.between, found.names, strict=True):
            size, content = batch.contents[name]
            parts += (between, content[first * size : (first + 1) * size])
        parts += [_rule(verdict) for verdict in batch.decisions.verdicts(first)]
        parts += (_QUEUE_TAG, _duration(_micros(batch.start - job.since)))
        parts += (_COMPUTE_TAG, _duration(_micros(batch.compute_seconds)))
        return b"".join(parts)

    def write_parked(
        self, _batch: Answered, _job: QuickJob, _at: int, _first: int, _parked: Mapping[int, Parked]
    ) -> bytes | None:
        """Return nothing: a deferral's reply is its own, and the general path writes it."""
        return None

    def write_all(self, batch: Answered, jobs: Sequence[QuickJob], which: Sequence[int]) -> None:
        """Return None: each reply has words of its own."""
        del batch, jobs, which

    def _template(self, batch: Answered, predicted: int) -> _Template:
        key = (*batch.key, predicted)
        found = self._templates.get(key)
        if found is None:
            found = _made(batch, predicted)
            self._templates = {**self._templates, key: found} if len(self._templates) < TEMPLATES_MAX else {key: found}
        return found


def _made(batch: Answered, predicted: int) -> _Template:
    """Return a template. Messages of protobuf may be put together from pieces, and these may stand in any order."""
    live = batch.live
    answer = Label(live.manifest.labels[predicted])
    sure = Prediction(model=live.version.model, version=live.version.version, answer=answer, confidence=MARK)
    reply = pb.PredictResponse(
        decision=batch.worth.name, prediction=wire.prediction_to_wire(sure), certificate=batch.certificate
    )
    head, _, rest = reply.SerializeToString().partition(MARKED)
    between = []
    for name, array in batch.outputs.items():
        shape, size = (1, *array.shape[1:]), batch.contents[name][0]
        described = types_pb2.Tensor(name=name, datatype=tensor.datatype_of(array), shape=shape).SerializeToString()
        described += _RAW_TAG + varint(size)
        between.append(_OUTPUTS_TAG + varint(len(described) + size) + described)
    return _Template(head=head, between=(rest + between[0], *between[1:]), names=tuple(batch.outputs))


@lru_cache(maxsize=4_096)
def _rule(verdict: Verdict) -> bytes:
    said = pb.RuleVerdict(rule=verdict.rule, defers=verdict.defers, evaluation=verdict.evaluation).SerializeToString()
    return _RULES_TAG + varint(len(said)) + said


def _micros(seconds: float) -> int:
    return round(max(0.0, seconds) * 1e6)


@lru_cache(maxsize=4_096)
def _duration(micros: int) -> bytes:
    """Return a Duration behind its length."""
    said = wire.duration_to_wire(micros / 1e6).SerializeToString()
    return varint(len(said)) + said
