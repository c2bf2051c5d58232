"""Knows a request again by its bytes: the same question with other numbers needs no parsing.

Theory of operation. Nearly all requests of a client differ in nothing but the numbers of their one tensor. So what one
of them says beside those (model, names, shapes) is kept with the bytes that say it, and another message that has the
same bytes in the same places, and so the same length, says the same: a parser that comes to the numbers has seen the
same bytes, and takes the same number of bytes for them. That the place is that of the numbers, and of nothing else, is
proved when a question is learnt: with the numbers' bytes inverted protobuf reads the same message with other numbers.

Everything else is read by protobuf. What is kept is bounded, and holds nothing of who asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from gateway import tensor

# Questions that are kept, how many of one length, and what one may weigh beside its numbers.
KEPT_MAX: Final = 256
ALIKE_MAX: Final = 8
HEADER_BYTES_MAX: Final = 2_048
_INVERTED: Final = bytes(255 - byte for byte in range(256))
# Text, and what not every byte is a value of, needs a closer look.
_LOOKED_AT: Final = frozenset({"BYTES", "BOOL"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What a message says beside its numbers. These lie in its bytes `start` to `end`, row-major, little-endian.

    `outputs` are the names of those asked for, all where there are none.
    """

    model: str
    version: str
    input: str
    datatype: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    prefix: bytes
    suffix: bytes
    start: int
    end: int


class Questions:
    """Those that were asked lately. Thread-safe: what is looked at is replaced whole, never changed."""

    __slots__ = ("_by_length", "_count")

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[Question, ...]] = {}
        self._count = 0

    def find(self, payload: bytes) -> Question | None:
        """Return the question that a message asks; None where it is not known."""
        for question in self._by_length.get(len(payload), ()):
            if payload.startswith(question.prefix) and payload.endswith(question.suffix):
                return question
        return None

    def keep(self, question: Question) -> None:
        """Know a question from now on; what was known goes where there is no room."""
        length = question.end + len(question.suffix)
        alike = self._by_length.get(length, ())
        if self._count >= KEPT_MAX or len(alike) >= ALIKE_MAX:
            self._by_length, self._count, alike = {}, 0, ()
        self._by_length[length] = (*alike, question)
        self._count += 1


def learn(payload: bytes, message: Any, read: Callable[[bytes], Any]) -> Question | None:
    """Return the question that a ModelInferRequest asks; None where one message of it does not tell of others.

    `message` is what `payload` reads as, and `read` reads it, raising DecodeError for what is none.
    """
    if not _plain(message):
        return None
    (raw,), (asked,) = message.raw_input_contents, message.inputs
    start = payload.rfind(raw)
    end = start + len(raw)
    if not raw or len(payload) - len(raw) > HEADER_BYTES_MAX:
        return None
    inverted = raw.translate(_INVERTED)
    try:
        other = read(payload[:start] + inverted + payload[end:])
    except DecodeError:
        return None
    if list(other.raw_input_contents) != [inverted]:
        return None
    other.raw_input_contents[0] = raw
    if other != message:
        return None
    return Question(
        model=message.model_name,
        version=message.model_version,
        input=asked.name,
        datatype=asked.datatype,
        shape=tuple(asked.shape),
        outputs=tuple(output.name for output in message.outputs),
        prefix=payload[:start],
        suffix=payload[end:],
        start=start,
        end=end,
    )


def _plain(message: Any) -> bool:
    """Whether nothing in it but the numbers of one tensor is likely to differ from one message to the next."""
    if message.id or message.parameters or len(message.inputs) != 1 or len(message.raw_input_contents) != 1:
        return False
    (asked,) = message.inputs
    beside = asked.parameters or asked.HasField("contents") or any(output.parameters for output in message.outputs)
    return not beside and asked.datatype in tensor.DTYPES and asked.datatype not in _LOOKED_AT
