"""Knows a request again by its bytes: the same question with other numbers needs no parsing.

Theory of operation. Nearly all requests of a client differ in nothing but the numbers of their one tensor, and perhaps
in an id. So what one of them says beside those (model, names, shapes) is kept with the bytes that say it, and another
message that has the same bytes in the same places, and so the same length, says the same: a parser that comes to the
numbers has seen the same bytes, and takes the same number of bytes for them. That these places are those of the
numbers and of the id, and of nothing else, is proved when a question is learnt: with all bytes there changed, protobuf
reads the same message with those numbers and that id.

Everything else is read by protobuf. What is kept is bounded, the oldest goes first, and it holds nothing of who asked.
A few of one length are looked through one by one, which is quickest; of many those that begin as the message does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from fallback.errors import InvalidError
from gateway import tensor

# Questions that are kept, how many of one length with one beginning, and what one may weigh beside its numbers.
KEPT_MAX: Final = 256
ALIKE_MAX: Final = 8
# Of one length: so many are looked through one by one, and beginnings of so many lengths are told apart.
_FEW_MAX: Final = 8
_BEGINNINGS_MAX: Final = 8
HEADER_BYTES_MAX: Final = 2_048
# To learn one takes a few copies of all of it, during which nobody else has the interpreter.
LEARNT_BYTES_MAX: Final = 8 * 1024 * 1024
# Its length is then one byte of the message.
ID_BYTES_MAX: Final = 127
_INVERTED: Final = bytes(255 - byte for byte in range(256))
# Every character of ASCII for another one: an id stays text of the same length.
_OTHER_TEXT: Final = bytes(byte ^ 1 for byte in range(256))
# Text, and what not every byte is a value of, needs a closer look.
_LOOKED_AT: Final = frozenset({"BYTES", "BOOL"})


class Said(NamedTuple):
    """What a plain message says. `numbers` are row-major and little-endian; `outputs` those asked for, none: all."""

    model: str
    version: str
    id: str
    input: str
    datatype: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    numbers: bytes


class Form(NamedTuple):
    """A kind of message that asks plain questions.

    `read` raises DecodeError for what is none; `said` gives None where a message says more than what is plain. An id
    stands behind `id_tag`.
    """

    read: Callable[[bytes], Any]
    said: Callable[[Any], Said | None]
    id_tag: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What a message says beside its numbers, its bytes `start` to `end`, and its id, `id_start` to `id_end`.

    `prefix`, `middle` and `suffix` are the bytes around these two; where there is no id nothing stands between.
    """

    model: str
    version: str
    input: str
    datatype: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    prefix: bytes
    middle: bytes
    middle_start: int
    suffix: bytes
    start: int
    end: int
    id_start: int
    id_end: int

    @property
    def id_length(self) -> int:
        """How long its ids are, bytes; 0 for none."""
        return self.id_end - self.id_start

    def id_of(self, payload: bytes) -> bytes:
        """Return the id of a message that asks this."""
        return payload[self.id_start : self.id_end]


class Questions:
    """Those that were asked lately in one form. Thread-safe: what is looked at is replaced whole, never changed."""

    __slots__ = ("_few", "_form", "_kept", "_learning", "_many")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._learning = Lock()
        # All, the oldest first, each with its length.
        self._kept: dict[Question, int] = {}
        # By length, where there are few of it; and where there are many, by the length of their prefix and by that.
        self._few: dict[int, tuple[Question, ...]] = {}
        self._many: dict[int, dict[int, dict[bytes, tuple[Question, ...]]]] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._kept)

    def find(self, payload: bytes) -> Question | None:
        """Return the question that a message asks; None where it is not known."""
        for question in self._few.get(len(payload)) or self._likely(payload):
            if payload.startswith(question.prefix) and payload.endswith(question.suffix):
                if question.id_start == question.id_end:
                    return question
                # Text of ASCII alone is text whatever it says.
                if payload.startswith(question.middle, question.middle_start) and question.id_of(payload).isascii():
                    return question
        return None

    def _likely(self, payload: bytes) -> Sequence[Question]:
        """Return those that begin as a message does, where there are many of its length."""
        many = self._many.get(len(payload))
        if many is None:
            return ()
        return [each for start, found in many.items() for each in found.get(payload[:start], ())]

    def learn(self, payload: bytes, message: Any) -> None:
        """Know from now on what `payload`, which reads as `message`, asks, if one message tells of others.

        The oldest is forgotten where there is no room.
        """
        question = learnt(payload, message, self._form) if len(payload) <= LEARNT_BYTES_MAX else None
        if question is None:
            return
        with self._learning:
            self._kept[question] = len(payload)
            if len(self._kept) > KEPT_MAX:
                self._place(self._kept.pop(next(iter(self._kept))))
            self._place(len(payload))

    def _place(self, length: int) -> None:
        """Have those of a length found that are kept, and forget those of them that are too many, the oldest first."""
        questions = [question for question, its in self._kept.items() if its == length]
        few = {its: found for its, found in self._few.items() if its != length}
        many = {its: found for its, found in self._many.items() if its != length}
        if len(questions) > _FEW_MAX:
            many[length] = beginnings = dict[int, dict[bytes, tuple[Question, ...]]]()
            for question in reversed(questions):
                start = len(question.prefix)
                known = beginnings.get(start, {}).get(question.prefix, ())
                if len(known) >= ALIKE_MAX or (start not in beginnings and len(beginnings) >= _BEGINNINGS_MAX):
                    del self._kept[question]
                else:
                    beginnings.setdefault(start, {})[question.prefix] = (*known, question)
        elif questions:
            few[length] = tuple(questions)
        # In this order one that goes from one to the other is found meanwhile.
        self._many, self._few = many, few


def learnt(payload: bytes, message: Any, form: Form) -> Question | None:
    """Return the question that a message asks; None where one message of it does not tell of others."""
    said = form.said(message)
    if said is None or not said.numbers or said.datatype not in tensor.DTYPES or said.datatype in _LOOKED_AT:
        return None
    if not _fits(said):
        return None
    id_, numbers = said.id.encode(), said.numbers
    if len(id_) > ID_BYTES_MAX or not id_.isascii() or len(payload) - len(numbers) > HEADER_BYTES_MAX:
        return None
    start = payload.find(numbers)
    end = start + len(numbers)
    id_end = _end_of(form.id_tag + bytes([len(id_)]) + id_, payload, start, end) if id_ else end
    id_start = id_end - len(id_)
    if start < 0 or id_start < 0:
        return None
    other = bytearray(payload)
    other[start:end] = numbers.translate(_INVERTED)
    other[id_start:id_end] = id_.translate(_OTHER_TEXT)
    if not _reads(bytes(other), form, said):
        return None
    first, second = sorted(((start, end), (id_start, id_end)))
    return Question(
        model=said.model,
        version=said.version,
        input=said.input,
        datatype=said.datatype,
        shape=said.shape,
        outputs=said.outputs,
        prefix=payload[: first[0]],
        middle=payload[first[1] : second[0]],
        middle_start=first[1],
        suffix=payload[second[1] :],
        start=start,
        end=end,
        id_start=id_start,
        id_end=id_end,
    )


def _fits(said: Said) -> bool:
    """Whether the numbers are as many as the shape says: what is made of a question is no larger than its message."""
    try:
        count = tensor.elements(said.shape, field="shape")
    except InvalidError:
        return False
    return count * tensor.DTYPES[said.datatype].itemsize == len(said.numbers)


def _end_of(field: bytes, payload: bytes, start: int, end: int) -> int:
    """Return where a field ends that stands before `start` or after `end`; -1 where it does not."""
    found = payload.find(field, 0, start)
    if found < 0:
        found = payload.find(field, end)
    return found + len(field) if found >= 0 else -1


def _reads(other: bytes, form: Form, said: Said) -> bool:
    """Whether `other` reads as `said`, but with all bytes of the numbers and of the id changed."""
    try:
        found = form.said(form.read(other))
    except DecodeError:
        return False
    return found == said._replace(
        numbers=said.numbers.translate(_INVERTED),
        id=said.id.encode().translate(_OTHER_TEXT).decode(),
    )
