"""A queue on the real server, and requests to park in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fallback.answer import Identity, Label, LabelOption, Task
from fallback.config import Config, QueueSettings
from fallback.deferral import Callback, Parking, Prediction
from fallback.queue import Queue
from tests.integration.fallback.tiers import TIERS

TASK = Task(question="Which digit is this?", labels=tuple(LabelOption(label=str(n), key=str(n)) for n in range(10)))


@pytest.fixture
def ann() -> Identity:
    """A reviewer."""
    return Identity(name="ann")


@pytest.fixture
def bob() -> Identity:
    """Another reviewer."""
    return Identity(name="bob")


@pytest.fixture
def parking() -> Callable[..., Parking]:
    """Makes a request to park; keywords replace what it says by default."""

    def make(**changes: Any) -> Parking:
        said: dict[str, Any] = {
            "queue": "digits",
            "client": "shop",
            "idempotency_key": "",
            "input_digest": "0" * 64,
            "task": TASK,
            "subject": b"a picture",
            "media_type": "image/png",
            "attributes": {"site": "north"},
            "inputs": b"tensors",
            "prediction": Prediction(model="digits", version="1", answer=Label("3"), confidence=0.5),
            "callback": Callback(webhook_url="https://shop.example/hook"),
        }
        return Parking(**{**said, **changes})

    return make


@pytest.fixture
async def open_queue(config: Config) -> AsyncIterator[Callable[..., Queue]]:
    """Opens a queue whose [queues.default] is what the keywords say; closed at the end."""
    opened: list[Queue] = []

    def open_(**settings: Any) -> Queue:
        queues = {"default": QueueSettings(**settings)}
        opened.append(Queue.connect(Config(data_folder=config.data_folder, queues=queues)))
        return opened[-1]

    yield open_
    for queue in opened:
        await queue.close()


@pytest.fixture
def queue(open_queue: Callable[..., Queue]) -> Queue:
    """A queue with the default settings."""
    return open_queue()


@pytest.fixture
def tiered(open_queue: Callable[..., Queue]) -> Callable[..., Queue]:
    """Opens a queue of readers, two of whom answer, and doctors above them."""

    def open_(**settings: Any) -> Queue:
        return open_queue(**{"tiers": TIERS, "reviews_wanted": 2, "reviews_max": 2, **settings})

    return open_
