"""Where the queue is measured: the embedded server on a folder of its own, and requests as a gateway parks them."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from fallback import embedded
from fallback.answer import Label, LabelOption, Task
from fallback.bare import Bare
from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.deferral import Callback, Draw, Parking, Prediction
from fallback.errors import DemurError
from fallback.queue import Queue

PAYLOAD_BYTES = 1024
# Long enough that nothing lapses by itself while something else is measured.
LEASE_SECONDS = 3600.0
UNDO_SECONDS = 2.0
REDIS_URL = "DEMUR_REDIS_URL"
TASK = Task(question="Which digit is this?", labels=tuple(LabelOption(label=str(n), key=str(n)) for n in range(10)))
ANSWER = Label("3")

Tell = Callable[[str], None]


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything is measured."""

    rounds: int = 5
    batch: int = 64
    batches: int = 32
    reviewers: int = 16
    reviews: int = 40
    few: int = 1_000
    many: int = 1_000_000
    leases: int = 100
    excluded: int = 200
    remembered: int = 5_000
    lapsing: int = 100_000
    outcomes_rate: float = 200.0
    outcomes_seconds: float = 10.0


FULL = Size()
QUICK = Size(many=50_000, remembered=2_000, lapsing=5_000, outcomes_seconds=2.0)


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The queue, what it is measured against, their configuration, how much is measured, and who is told of it."""

    queue: Queue
    bare: Bare
    config: Config
    size: Size
    tell: Tell


@contextlib.asynccontextmanager
async def ground(folder: Path, size: Size, tell: Tell) -> AsyncIterator[Ground]:
    """Yield a queue on a server of its own under `folder`, which ends with it."""
    with _own_server(folder) as server:
        config = Config(
            data_folder=folder,
            tables={"fallback": FallbackSettings(webhook_allow_networks=("127.0.0.0/8",))},
            queues={
                "default": QueueSettings(lease_seconds=LEASE_SECONDS, depth_max=2 * size.many + 1_000_000),
                "told": QueueSettings(lease_seconds=LEASE_SECONDS, undo_seconds=UNDO_SECONDS),
                "twice": QueueSettings(lease_seconds=LEASE_SECONDS, reviews_wanted=2),
            },
        )
        tell(f"a server of its own at {server.url}")
        queue, bare = Queue.connect(config), Bare(config)
        try:
            yield Ground(queue=queue, bare=bare, config=config, size=size, tell=tell)
        finally:
            await queue.close()
            await bare.close()


@contextlib.contextmanager
def _own_server(folder: Path) -> Iterator[embedded.Server]:
    # What is measured empties a server: never the one that somebody works with.
    before = os.environ.pop(REDIS_URL, None)
    server = embedded.Server.start(embedded.folder(folder))
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
        if before is not None:
            os.environ[REDIS_URL] = before


def payload() -> bytes:
    """Return PAYLOAD_BYTES that no two items share."""
    return secrets.token_bytes(PAYLOAD_BYTES)


def parking(queue: str, content: bytes, *, webhook: str = "http://127.0.0.1:1/callbacks") -> Parking:
    """Return a request as a gateway parks it: with everything that a client may say."""
    return Parking(
        queue=queue,
        client="bench",
        idempotency_key=secrets.token_hex(16),
        input_digest=secrets.token_hex(32),
        task=TASK,
        subject=content,
        media_type="image/png",
        attributes={},
        prediction=Prediction(model="digits", version="1", answer=ANSWER, confidence=0.5123456789),
        draw=Draw(request_key=secrets.token_hex(16), q=1.0, xi=0.2512345678912345),
        reasons=("threshold",),
        callback=Callback(webhook_url=webhook),
    )


async def park(queue: Queue, parkings: Sequence[Parking]) -> list[str]:
    """Park all and return their names; raises the first refusal."""
    names = []
    for verdict in await queue.park(parkings):
        if isinstance(verdict, DemurError):
            raise verdict
        names.append(verdict.name)
    return names


async def fill(here: Ground, queue: str, count: int, *, content: bytes = b"") -> None:
    """Park `count` items in `queue`, in batches as a gateway does, each with `content`."""
    batch = 16 * here.size.batch
    for start in range(0, count, batch):
        await park(here.queue, [parking(queue, content) for _ in range(min(batch, count - start))])
        if start and start % (100 * batch) == 0:
            here.tell(f"{queue}: {start} of {count} parked")


async def timed(call: Awaitable[object]) -> float:
    """Return how long `call` took, ms."""
    start = time.perf_counter()
    await call
    return (time.perf_counter() - start) * 1000
