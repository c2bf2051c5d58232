"""What is known by its bytes says what protobuf reads in it, whatever else is sent."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from demur import kserve
from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from gateway import plain_infer, plain_predict, tensor
from gateway.question import ALIKE_MAX, HEADER_BYTES_MAX, KEPT_MAX, Form, Question, Questions, Said
from gateway.quick import varint

# What is sent in all, for both kinds of messages: a hundred thousand and more, of which so many are known again.
HEADS = 5_000
LIKES = 80
UNKNOWN_LIKES = 15
KNOWN_SHARE_MIN = 0.2
DATATYPES = ("FP32", "FP32", "FP32", "FP32", "INT64", "FP64", "UINT8", "BYTES", "BOOL", "what")
NAMES = ("", "x", "tiny", "a model", "\u00e9t\u00e9")


def field(number: int, content: bytes, *, length: bytes | None = None) -> bytes:
    """A field whose length follows its tag."""
    return varint(number << 3 | 2) + (varint(len(content)) if length is None else length) + content


def hostile(draw: random.Random) -> bytes:
    """Bytes that a client of ours would not write: some are a message all the same."""
    number, some = draw.randrange(1, 20), draw.randbytes(draw.randrange(6))
    return draw.choice(
        (
            field(number, some),
            varint(number << 3) + varint(draw.getrandbits(draw.randrange(64))),
            varint(number << 3 | 5) + b"\0\1\2\3",
            varint(number << 3 | 3) + field(2, some) + varint(number << 3 | 4),
            varint(number << 3 | 3) * draw.randrange(1, 120),
            varint(number << 3 | 4),
            field(number, some, length=b"\x80" * draw.randrange(1, 11) + b"\0"),
            field(number, some, length=b"\xff\xff\xff\xff\x0f"),
            field(number, some, length=b"\xff" * 9 + b"\x01"),
            field(draw.randrange(1, 4), b"\xc3\x28"),
            b"\0" + some,
        )
    )


def shape_of(draw: random.Random, numbers: bytes, datatype: str) -> list[int]:
    """A shape of so many numbers, as a rule."""
    if draw.random() < 0.1:
        return draw.choice(([1, 64], [-1, 2], [2**40, 3], [0, 2**62], []))
    return [1, len(numbers) // (tensor.DTYPES[datatype].itemsize if datatype in tensor.DTYPES else 4)]


def infer_pieces(draw: random.Random) -> list[bytes]:
    """The fields of a ModelInferRequest, more or less as they should be."""
    message = kserve.ModelInferRequest(
        model_name=draw.choice(NAMES), id=draw.choice(("", "", "7", "x-00012", "x", "é"))
    )
    for _ in range(draw.choice((1,) * 10 + (0, 2))):
        numbers, datatype = draw.randbytes(draw.choice((0, 8, 16, 16, 256))), draw.choice(DATATYPES)
        message.inputs.add(name=draw.choice(NAMES), datatype=datatype, shape=shape_of(draw, numbers, datatype))
        message.raw_input_contents.append(numbers)
    if draw.random() < 0.2:
        message.outputs.add(name=draw.choice(NAMES))
    if draw.random() < 0.1:
        message.parameters["demur_priority"].int64_param = draw.randrange(10)
    if draw.random() < 0.05:
        message.inputs.add(name="x").contents.fp32_contents.append(1.5)
    return split(message)


def predict_pieces(draw: random.Random) -> list[bytes]:
    """The fields of a PredictRequest, more or less as they should be."""
    message = pb.PredictRequest(model=draw.choice(NAMES))
    for _ in range(draw.choice((1,) * 10 + (0, 2))):
        numbers, datatype = draw.randbytes(draw.choice((0, 8, 16, 16, 256))), draw.choice(DATATYPES)
        shape = shape_of(draw, numbers, datatype)
        message.inputs.add(name=draw.choice(NAMES), datatype=datatype, shape=shape, raw=numbers)
    if draw.random() < 0.1:
        message.idempotency_key = "again"
    if draw.random() < 0.1:
        # The later raw of a tensor is the one that counts.
        tensor = types_pb2.Tensor(name="x", datatype="FP32", raw=b"once").SerializeToString()
        return [*split(message), field(3, tensor + field(4, draw.choice((b"more", b"once", b""))))]
    return split(message)


def split(message: Any) -> list[bytes]:
    """A message's fields, one by one; together they are the message, in whatever order."""
    pieces = []
    for described, value in message.ListFields():
        for each in value if described.is_repeated and not isinstance(value, dict) else [value]:
            part = type(message)()
            if not described.is_repeated:
                part.MergeFrom(message)
                for other, _ in message.ListFields():
                    if other.name != described.name:
                        part.ClearField(other.name)
            elif hasattr(value, "items"):
                getattr(part, described.name)[each].CopyFrom(value[each])
            else:
                getattr(part, described.name).append(each)
            pieces.append(part.SerializeToString())
    return pieces


def headed(draw: random.Random, pieces: list[bytes]) -> bytes:
    """A message of these pieces: as it should be, in another order, with some of them twice, or with worse between."""
    if draw.random() < 0.3:
        draw.shuffle(pieces)
    if draw.random() < 0.2 and pieces:
        pieces.insert(draw.randrange(len(pieces) + 1), draw.choice(pieces))
    if draw.random() < 0.3:
        pieces.insert(draw.randrange(len(pieces) + 1), hostile(draw))
    return b"".join(pieces)


def alike(draw: random.Random, payload: bytes, question: Question | None) -> bytes:
    """A message like this one: with other numbers, another id, or spoilt."""
    changed = bytearray(payload)
    if not payload:
        return hostile(draw)
    match draw.randrange(8):
        case 0 | 1 | 2 if question is not None:
            changed[question.start : question.end] = draw.randbytes(question.end - question.start)
            if question.id_length:
                id_ = draw.choice((b"0123456789abcdef", b"\0\x7f \n" * 3, b"\xc3\xa9\xc3\x28abcdefgh"))
                changed[question.id_start : question.id_end] = id_[: question.id_length]
        case 0 | 1 | 2 | 3:
            # Of its last bytes some, or all.
            count = draw.choice((1, 2, 4, 4, 16, 16, 256, 300))
            changed[-count:] = draw.randbytes(min(count, len(payload)))
        case 4:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        case 5:
            at = draw.randrange(len(changed))
            changed[at : at + draw.randrange(9)] = draw.randbytes(draw.randrange(9))
        case 6:
            del changed[draw.randrange(len(changed)) :]
        case _:
            changed += hostile(draw)
    return bytes(changed)


def parsed(form: Form, payload: bytes) -> Any:
    try:
        return form.read(payload)
    except DecodeError:
        return None


def check(form: Form, questions: Questions, payload: bytes) -> bool:
    """Whether a message is known, and if it is, that protobuf reads the same in it."""
    question = questions.find(payload)
    if question is None:
        return False
    message = parsed(form, payload)
    assert message is not None, "protobuf does not take it"
    assert form.said(message) == Said(
        model=question.model,
        version=question.version,
        id=question.id_of(payload).decode(),
        input=question.input,
        datatype=question.datatype,
        shape=question.shape,
        outputs=question.outputs,
        numbers=payload[question.start : question.end],
    )
    count = tensor.elements(question.shape, field="shape")
    assert count * tensor.DTYPES[question.datatype].itemsize == question.end - question.start
    return True


FORMS = [(plain_infer.FORM, infer_pieces), (plain_predict.FORM, predict_pieces)]


@pytest.mark.parametrize(("form", "pieces"), FORMS, ids=["infer", "predict"])
def test_what_is_known_by_its_bytes_is_what_protobuf_reads(
    form: Form, pieces: Callable[[random.Random], list[bytes]]
) -> None:
    """Of some hundred thousand random and hostile messages none is taken for a question that it does not ask."""
    draw, sent, known = random.Random(20_261_126), 0, 0
    for _ in range(HEADS):
        questions = Questions(form)
        payload = headed(draw, pieces(draw))
        message = parsed(form, payload)
        if message is not None:
            questions.learn(payload, message)
        question = questions.find(payload)
        for _ in range(LIKES if question else UNKNOWN_LIKES):
            known += check(form, questions, alike(draw, payload, question))
            sent += 1
    assert sent >= 100_000
    assert known >= KNOWN_SHARE_MIN * sent


def asked(numbers: bytes, id_: str = "", **fields: Any) -> bytes:
    message = kserve.ModelInferRequest(model_name="m", id=id_, raw_input_contents=[numbers], **fields)
    message.inputs.add(name="x", datatype="FP32", shape=[1, len(numbers) // 4])
    content: bytes = message.SerializeToString()
    return content


def learning(payload: bytes) -> Questions:
    questions = Questions(plain_infer.FORM)
    questions.learn(payload, plain_infer.FORM.read(payload))
    return questions


@given(
    st.integers(1, 16).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count)),
    st.text(max_size=8),
    st.data(),
)
def test_a_message_with_other_numbers_and_another_id_is_known(numbers: bytes, id_: str, data: st.DataObject) -> None:
    """Whatever the numbers and the id are, the next message that says the same beside them is known or read anew."""
    questions = learning(asked(numbers, id_))
    size = len(id_.encode())
    other = asked(data.draw(st.binary(min_size=len(numbers), max_size=len(numbers))), "a" * size)
    known = check(plain_infer.FORM, questions, other)
    if id_.isascii() and len(set(numbers)) > 1:
        assert known


@pytest.mark.parametrize(
    "other",
    [
        asked(b"1234", "id-1", model_version="2"),
        asked(b"12345678", "id-1"),
        asked(b"1234", "id-10"),
        asked(b"1234", "id-é"),
        asked(b"1234", "id-1") + field(9, b"x"),
    ],
    ids=["version", "length", "longer id", "id beyond ASCII", "a field more"],
)
def test_another_question_is_not_taken_for_the_one_that_is_known(other: bytes) -> None:
    """A message that says more, or something else, is read by protobuf."""
    assert learning(asked(b"abcd", "id-0")).find(other) is None


@pytest.mark.parametrize("shape", [[1, 2**29], [-1, 3], [2**40, 3], [2**62, 0], [1, 2], [3] * 40, []])
def test_one_whose_numbers_are_not_as_many_as_its_shape_says_is_never_known(shape: list[int]) -> None:
    """What is made of a question is as large as its shape says, and nobody has looked at that yet."""
    message = kserve.ModelInferRequest.FromString(asked(b"abcdefghijkl"))
    message.inputs[0].shape[:] = shape
    payload = message.SerializeToString()
    assert learning(payload).find(payload) is None


def test_one_with_parameters_is_never_known() -> None:
    """What may say something else each time is read each time."""
    message = kserve.ModelInferRequest.FromString(asked(b"abcd"))
    message.parameters["demur_priority"].int64_param = 3
    payload = message.SerializeToString()
    assert learning(payload).find(payload) is None


def test_a_header_beyond_the_limit_is_not_kept() -> None:
    """What is kept is bounded in size."""
    payload = asked(b"abcd") + field(99, bytes(HEADER_BYTES_MAX))
    assert learning(payload).find(payload) is None


def test_what_is_kept_is_bounded_in_number() -> None:
    """Ever new questions push the old ones out, and the newest is known."""
    questions = Questions(plain_infer.FORM)
    for number in range(3 * KEPT_MAX):
        payload = asked(b"abcd") + field(99, bytes(number % 50) + str(number).encode())
        questions.learn(payload, plain_infer.FORM.read(payload))
        assert questions.find(payload) is not None
        assert len(questions) <= KEPT_MAX


def learnt_of(questions: Questions, payload: bytes) -> None:
    """Learnt as a service does: what is not known."""
    if questions.find(payload) is None:
        questions.learn(payload, plain_infer.FORM.read(payload))


@pytest.mark.parametrize("id_", ["", "id-1"])
def test_many_kinds_of_one_length_are_known_at_a_time(id_: str) -> None:
    """As many as are kept at all: models that are asked in turn are each known, by other numbers too."""
    questions = Questions(plain_infer.FORM)
    models = [f"model-{number:03}" for number in range(KEPT_MAX)]
    for model in models:
        learnt_of(questions, named(model, b"abcd", id_))
    for model in models:
        question = questions.find(named(model, b"1234", id_.replace("1", "2")))
        assert question is not None
        assert question.model == model
    assert questions.find(named("model-999", b"1234", id_)) is None


def named(model: str, numbers: bytes, id_: str = "", **fields: Any) -> bytes:
    message = kserve.ModelInferRequest.FromString(asked(numbers, id_, **fields))
    message.model_name = model
    content: bytes = message.SerializeToString()
    return content


def test_kinds_that_are_too_much_alike_push_out_the_oldest_of_their_like_alone() -> None:
    """Those that differ in what comes after the numbers; others of their length, and all of other lengths, stay."""
    questions = Questions(plain_infer.FORM)
    others = [named(f"model-{number:03}", b"abcdef78") for number in range(9)] + [asked(b"abcd", "an-id")]
    for payload in others:
        learnt_of(questions, payload)
    alike = [asked(b"abcd") + field(99, f"{number:09}".encode()) for number in range(20)]
    assert len(alike[0]) == len(others[0])
    for payload in alike:
        learnt_of(questions, payload)
    known = [questions.find(payload) is not None for payload in alike]
    assert known == [False] * (len(alike) - ALIKE_MAX) + [True] * ALIKE_MAX
    assert all(questions.find(payload) is not None for payload in others)
    assert len(questions) == len(others) + ALIKE_MAX


def test_what_is_forgotten_is_the_oldest() -> None:
    """Of all, where there are too many in all."""
    questions = Questions(plain_infer.FORM)
    payloads = [named("m" * (number % 40 + 1) + f"{number:03}", b"abcd") for number in range(KEPT_MAX + 30)]
    for payload in payloads:
        learnt_of(questions, payload)
    assert [questions.find(payload) is not None for payload in payloads] == [False] * 30 + [True] * KEPT_MAX
    assert len(questions) == KEPT_MAX
