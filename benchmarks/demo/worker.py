"""What the demo's processes have in common: a specification they are given, orders while they run, and their end.

A process is `python -m benchmarks.demo.<role> SPECIFICATION`, where SPECIFICATION is a file with one JSON object. It
reads orders from standard input, one JSON object a line; when that closes it stops at once, so that no process outlives
the orchestrator, whichever way that ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.demo.journal import Journal


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does; each role reads the fields that it needs.

    `images` is a file of `Images`; `indexes` are those this client sends; `secret` is not here: it comes in the
    environment.
    """

    name: str
    journal: Path
    gateway: str = ""
    review: str = ""
    model: str = ""
    queue: str = ""
    run: str = ""
    callback_url: str = ""
    images: Path = Path()
    indexes: tuple[int, ...] = ()
    seed: int = 0
    error_share: float = 0.0
    look_seconds: float = 0.0
    call_seconds: float = 10.0
    stumble_every: int = 0
    ready: Path = Path()
    # Of `demur demo stream`: arrays of what is streamed and its labels, the model's input that it is for, the number of
    # classes, the names of those who review.
    values: Path = Path()
    labels: Path = Path()
    input: str = ""
    classes: int = 0
    people: tuple[str, ...] = ()


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """The stream: each digit as PNG bytes, and the label that it really shows."""

    contents: tuple[bytes, ...]
    labels: tuple[str, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the orchestrator says: send at this rate from now on; or, once: there is nothing more, finish and end."""

    per_second: float = 0.0
    finish: bool = False


class Orders:
    """The orders as they stand. `changed` is set at each new one, `finish` at the last."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self.changed = asyncio.Event()
        self.finish = asyncio.Event()

    async def follow(self) -> None:
        """Read orders until standard input closes."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            order = msgspec.json.decode(line, type=Order)
            self.per_second = order.per_second
            self.changed.set()
            if order.finish:
                self.finish.set()


Role = Callable[[Specification, Journal, Orders], Coroutine[Any, Any, None]]
T = TypeVar("T")


def write_specification(path: Path, specification: Specification) -> None:
    """Write what a process is to read."""
    path.write_bytes(msgspec.json.encode(specification, enc_hook=str))


def read_specification(path: Path) -> Specification:
    """Read what `write_specification` wrote; the one type that JSON has no word for is a path."""
    return msgspec.json.decode(path.read_bytes(), type=Specification, dec_hook=lambda _type, text: Path(text))


def read_images(path: Path) -> Images:
    """Read the stream that the orchestrator laid down."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Images)


def run(role: Role) -> None:
    """Run `role` with the specification named on the command line until it is done, told to stop, or orphaned."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the orchestrator decides
    specification = read_specification(Path(sys.argv[1]))
    with Journal(specification.journal) as journal:
        asyncio.run(_run(role, specification, journal))


async def _run(role: Role, specification: Specification, journal: Journal) -> None:
    orders = Orders()
    following = asyncio.create_task(orders.follow())
    working = asyncio.create_task(role(specification, journal, orders))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.wait({following, working}, return_when=asyncio.FIRST_COMPLETED)
    for task in (following, working):
        if not task.done():
            task.cancel()
    results = await asyncio.gather(following, working, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
