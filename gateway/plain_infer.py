"""ModelInfer's plain questions, and the replies to them: bytes put together from a template."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from demur import kserve
from fallback.errors import InvalidError
from fallback.queue import Parked
from gateway import tensor
from gateway.question import Form, Question, Said
from gateway.quick import MARK, MARKED, TEMPLATES_MAX, Answered, QuickJob, varint
from gateway.request import Waiter
from gateway.rules import Decision
from gateway.transport import Call

# Fields of ModelInferRequest that a plain one may have; and tags of fields whose length follows.
_PLAIN: Final = frozenset({"model_name", "model_version", "id", "inputs", "outputs", "raw_input_contents"})
_ID_TAG: Final = b"\x1a"
_RAW_TAG: Final = b"\x32"
_DOUBLE: Final = struct.Struct("<d")


def _said(message: Any) -> Said | None:
    if any(field.name not in _PLAIN for field, _ in message.ListFields()):
        return None
    if len(message.inputs) != 1 or len(message.raw_input_contents) != 1:
        return None
    (asked,) = message.inputs
    if asked.parameters or asked.HasField("contents") or any(output.parameters for output in message.outputs):
        return None
    outputs = tuple(output.name for output in message.outputs)
    if len(set(outputs)) < len(outputs):
        return None
    return Said(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        input=asked.name,
        datatype=asked.datatype,
        shape=tuple(asked.shape),
        outputs=outputs,
        numbers=message.raw_input_contents[0],
    )


FORM: Final = Form(read=kserve.ModelInferRequest.FromString, said=_said, id_tag=_ID_TAG)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Template:
    """The replies to one kind of question, less what changes.

    What stands before the id where there is one; `head`, the confidence (8 bytes), then for each output of `names` what
    stands before it, and its bytes.
    """

    id_head: bytes
    head: bytes
    between: tuple[bytes, ...]
    names: tuple[str, ...]


def check_outputs(wanted: Iterable[str], there: Collection[str]) -> None:
    """Raise InvalidError where an output is asked for that is not there."""
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise InvalidError(f"outputs: expected some of {', '.join(there)}, got {unknown[0][:100]!r}")


class InferWording:
    """How ModelInfer answers. `waiter` is who does so on the general path."""

    one_row: Final = False

    def __init__(self, waiter: Callable[[Call, Question], Waiter]) -> None:
        self.waiter = waiter
        self._templates: dict[tuple[Any, ...], _Template] = {}

    def write(self, batch: Answered, job: QuickJob, at: int, first: int, template: _Template | None = None) -> bytes:
        """Return the reply to job number `at` of a batch, whose rows begin at `first`, from its template or another."""
        question = job.question
        found = template or batch.templates.get(question)
        if found is None:
            found = batch.templates[question] = self._template(batch, job)
        end = first + job.fit.rows
        parts = [found.head, batch.confidences[8 * at : 8 * at + 8]]
        for between, name in zip(found.between, found.names, strict=True):
            size, content = batch.contents[name]
            parts += (between, content[first * size : end * size])
        if question.id_length:
            parts[:0] = (found.id_head, question.id_of(job.call.payload))
        return b"".join(parts)

    def write_parked(
        self, batch: Answered, job: QuickJob, at: int, first: int, parked: Mapping[int, Parked]
    ) -> bytes | None:
        """Return the provisional reply to job number `at`, which names its deferrals; None: another kind is asked for.

        It is that of a job that is answered, with other worth, and what is said of the deferrals behind it.
        """
        kept = [parked[row] for row in sorted(parked)] if len(parked) > 1 else [*parked.values()]
        if batch.live.manifest.on_deferral != "provisional" or any(each.over for each in kept):
            return None
        waits = [each.expected_wait for each in kept if each.expected_wait is not None]
        more = _deferral(",".join([each.name for each in kept]), max(waits) if waits else None)
        return self.write(batch, job, at, first, self._template(batch, job, provisional=True)) + more

    def write_all(self, batch: Answered, jobs: Sequence[QuickJob], which: Sequence[int]) -> list[bytes] | None:
        """Return the replies to those jobs, which are alike, where they have no id and there is one output."""
        if jobs[0].question.id_length:
            return None
        found = self._template(batch, jobs[0])
        if len(found.names) != 1:
            return None
        head, between, confidences = found.head, found.between[0], batch.confidences
        size, content = batch.contents[found.names[0]]
        size *= jobs[0].fit.rows
        return [
            b"".join((head, confidences[8 * at : 8 * at + 8], between, content[at * size : at * size + size]))
            for at in which
        ]

    def _template(self, batch: Answered, job: QuickJob, *, provisional: bool = False) -> _Template:
        question, rows = job.question, job.fit.rows
        key = (batch.key, provisional, question.outputs, rows, question.id_length)
        found = self._templates.get(key)
        if found is None:
            found = _made(batch, question, rows, Decision.PROVISIONAL if provisional else batch.worth)
            self._templates = {**self._templates, key: found} if len(self._templates) < TEMPLATES_MAX else {key: found}
        return found


def _deferral(name: str, wait: float | None) -> bytes:
    """Return what is said of deferrals: their names, and how long until they have their outcomes, seconds."""
    head, between = _deferral_template(len(name), waits=wait is not None)
    return b"".join((head, name.encode(), between, b"" if wait is None else _DOUBLE.pack(wait)))


@lru_cache(maxsize=TEMPLATES_MAX)
def _deferral_template(length: int, *, waits: bool) -> tuple[bytes, bytes]:
    """Return what stands before a name of `length` ASCII characters, and between it and the wait, or the end."""
    said, wait = kserve.ModelInferResponse(), kserve.ModelInferResponse()
    name = "0" * length
    said.parameters["demur_deferral"].string_param = name
    head, _, between = said.SerializeToString().rpartition(name.encode())
    if waits:
        wait.parameters["demur_expected_wait"].double_param = MARK
        between += wait.SerializeToString().removesuffix(MARKED)
    return head, between


def _made(batch: Answered, question: Question, rows: int, worth: Decision) -> _Template:
    """Return a template. Messages of protobuf may be put together from pieces, and these may stand in any order."""
    names = question.outputs or tuple(batch.outputs)
    check_outputs(names, batch.outputs)  # once more: the version may have changed since
    reply = kserve.ModelInferResponse(model_name=batch.live.version.model, model_version=batch.live.version.version)
    for name in names:
        array = batch.outputs[name]
        reply.outputs.add(name=name, datatype=tensor.datatype_of(array), shape=(rows, *array.shape[1:]))
    reply.parameters["demur_decision"].string_param = worth.value
    if batch.certificate:
        reply.parameters["demur_certificate"].string_param = batch.certificate
    sure = kserve.ModelInferResponse()
    sure.parameters["demur_confidence"].double_param = MARK
    head, _, rest = (reply.SerializeToString() + sure.SerializeToString()).rpartition(MARKED)
    between = [_RAW_TAG + varint(rows * batch.contents[name][0]) for name in names]
    return _Template(
        id_head=_ID_TAG + varint(question.id_length),
        head=head,
        between=(rest + between[0], *between[1:]),
        names=names,
    )
