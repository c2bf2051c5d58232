"""What the run's own processes have in common: what they are told, how they call, and their end.

A process is `python -m benchmarks.chaos.<role> SPECIFICATION`, a file with one JSON object. It may be killed and
started again at any moment: what it must remember stands in its journal. What it is to do stands in the orders' file,
which is replaced as a whole; it ends when it is told to, or with the run.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgspec

from benchmarks.chaos.history import OK, Journal
from fallback.identity import IDENTITY_KEY
from fallback.presence import read_json, write_atomic

CALL_SECONDS = 1.5
AGAIN_SECONDS = (0.05, 0.25)
_LOOK_SECONDS = 0.05
_OPTIONS = (
    # A process that is started again is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    # Each attempt is to stand in the journal.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does; each role reads what it needs. `addresses` are those of the servers it calls."""

    name: str
    journal: str
    orders: str
    addresses: tuple[str, ...] = ()
    callback_url: str = ""
    port: int = 0
    seed: int = 0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests each client is to have sent since the run began; whether reviewers rest; whether all ends."""

    total: int = 0
    rest: bool = False
    finish: bool = False


class Told(NamedTuple):
    """How a call ended: its reply where `code` is OK."""

    code: str
    reply: Any
    message: str


class Context:
    """What a role is given."""

    def __init__(self, specification: Specification, journal: Journal) -> None:
        self.given = specification
        self.journal = journal
        self.orders = Orders()
        # Another incarnation does not repeat what the one before did.
        self.rng = random.Random(f"{specification.seed}/{specification.name}/{time.time_ns()}")  # noqa: S311 - no secret
        self.metadata = ((IDENTITY_KEY, specification.name),)

    async def follow(self) -> None:
        """Read the orders until they say that it is over."""
        while not self.orders.finish:
            self.orders = read_json(Path(self.given.orders), Orders) or self.orders
            await asyncio.sleep(_LOOK_SECONDS)

    def channel(self, address: str) -> grpc.aio.Channel:
        """Return a channel that finds a restarted server at once and repeats nothing by itself."""
        return grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def call(self, method: Any, request: Any, *, seconds: float = CALL_SECONDS) -> Told:
        """Make one attempt."""
        try:
            reply = await method(request, timeout=seconds, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            return Told(error.code().name, None, (error.details() or "")[:200])
        return Told(OK, reply, "")

    async def pause(self) -> None:
        """Let a moment pass before another attempt."""
        await asyncio.sleep(self.rng.uniform(*AGAIN_SECONDS))


Role = Callable[[Context], Coroutine[Any, Any, None]]


def give(path: Path, orders: Orders) -> None:
    """Say what is to be done from now on."""
    write_atomic(path, msgspec.json.encode(orders))


def run(role: Role) -> None:
    """Run `role` with the specification named on the command line until the orders say that it is over."""
    specification = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Specification)
    with Journal(Path(specification.journal)) as journal:
        asyncio.run(_run(role, Context(specification, journal)))


async def _run(role: Role, context: Context) -> None:
    following = asyncio.create_task(context.follow())
    working = asyncio.create_task(role(context))
    await asyncio.wait({following, working}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
