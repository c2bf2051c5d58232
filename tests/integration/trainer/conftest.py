"""Real deferrals with their outcomes, made the way everybody makes them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from fallback.answer import Answer, Identity, Label, LabelOption, Task
from fallback.config import Config
from fallback.deferral import Draw, Parking, Prediction
from fallback.queue import Parked, Queue
from trainer import digits
from trainer.examples import encode_inputs

TASK = Task(
    question="Which digit is this?",
    labels=(*(LabelOption(label=label) for label in digits.LABELS), LabelOption(label="letter")),
    cant_tell=True,
)

Review = Callable[[dict[int, Answer]], Awaitable[list[str]]]
Truth = Callable[..., dict[int, Answer]]


@pytest.fixture
async def queue(config: Config) -> AsyncIterator[Queue]:
    """The real queue on an empty database."""
    connected = Queue.connect(config)
    yield connected
    await connected.close()


@pytest.fixture
def review(queue: Queue) -> Review:
    """Parks streamed digits by number and has a person answer each; returns the deferrals' names."""

    async def answer(answers: dict[int, Answer]) -> list[str]:
        verdicts = await queue.park([parking(index) for index in answers])
        names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
        assert len(names) == len(answers), verdicts
        by_name = dict(zip(names, answers.values(), strict=True))
        reviewer = Identity(name="ann")
        left = len(names)
        while left:
            for lease in await queue.lease("digits", reviewer=reviewer, limit=50):
                said = by_name[lease.deferral.name]
                await queue.submit(lease.token, reviewer=reviewer, answer=said, request_id=uuid4().hex)
                left -= 1
        return names

    return answer


def parking(index: int) -> Parking:
    """One streamed digit, as the gateway would park it."""
    found = digits.load()
    return Parking(
        queue="digits",
        client="robot",
        idempotency_key=f"digit {index}",
        input_digest=hashlib.sha256(b"%d" % index).hexdigest(),
        task=TASK,
        subject=found.png(index),
        media_type="image/png",
        attributes={},
        inputs=encode_inputs({digits.INPUT: found.tensor((index,))}),
        prediction=Prediction(model="digits", version="1", answer=Label("0"), confidence=0.5),
        draw=Draw(request_key=f"robot|digit {index}", q=1.0, xi=0.5),
        reasons=("threshold",),
    )


@pytest.fixture
def truth() -> Truth:
    """The right label of each of some streamed digits, by the digit's number."""

    def right(count: int, start: int = 0) -> dict[int, Answer]:
        found = digits.load()
        return {index: Label(found.label(index)) for index in found.stream[start : start + count]}

    return right
