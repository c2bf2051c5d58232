"""One process of `demur bench predict`: sends each request when it is due, whatever became of those before it.

Run as `python -m benchmarks.caller SPECIFICATION RESULT`: a file with one JSON object in, one with the shots out.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import grpc
import msgspec

from benchmarks.load import Shot, arrivals
from fallback import channel
from fallback.errors import DemurError
from gateway.client import Client

CALL_SECONDS = 10.0


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller does, from `start` (Unix seconds) on; `rate` is its own share, in requests a second."""

    gateway: str
    model: str
    content: bytes
    start: float
    rate: float
    seconds: float
    seed: int


async def call(given: Specification) -> list[Shot]:
    """Send every request at its time and return what became of each."""
    async with Client(given.gateway, **channel.shown("bench")) as client:
        await _one(client, given, 0.0)  # the connection is made before the clock runs
        loop = asyncio.get_running_loop()
        start = loop.time() + given.start - time.time()
        shots: list[asyncio.Task[Shot]] = []
        async with asyncio.TaskGroup() as underway:
            for due in arrivals(given.rate, given.seconds, given.seed):
                await asyncio.sleep(max(0.0, start + due - loop.time()))
                shots.append(underway.create_task(_shoot(client, given, start, due)))
    return [shot.result() for shot in shots]


async def _shoot(client: Client, given: Specification, start: float, due: float) -> Shot:
    loop = asyncio.get_running_loop()
    lag = loop.time() - start - due
    failed = not await _one(client, given, due)
    return Shot(due_seconds=due, lag_ms=1000 * lag, latency_ms=1000 * (loop.time() - start - due), failed=failed)


async def _one(client: Client, given: Specification, due: float) -> bool:
    try:
        await client.predict(given.model, subject=(given.content, "image/png"), timeout_seconds=CALL_SECONDS)
    except (DemurError, grpc.RpcError) as error:
        sys.stderr.write(f"due at {due:.3f} s: {error!r}\n")
        return False
    return True


def main() -> None:
    """Read the specification, call, write the result."""
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Specification)
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(asyncio.run(call(given))))


if __name__ == "__main__":
    main()
