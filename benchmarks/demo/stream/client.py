"""The stream's client: sends each request once, at the rate of the orders, and writes down what came back.

A call that is refused because there is no room, or that a gateway did not answer that is away, is made again with the
same key; any other failure is one.
"""

from __future__ import annotations

import asyncio
import time

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.demo import worker
from benchmarks.demo.journal import Failed, Journal, Replied, Stumbled
from benchmarks.demo.stream.people import show
from fallback import channel
from fallback.errors import DemurError, FullError
from gateway.client import Client, Result

UNDERWAY_MAX = 64
ATTEMPTS_MAX = 30
PAUSE_SECONDS = 1.0
# A pace is kept in steps of this: timers are no finer.
STEP_SECONDS = 0.02


async def converse(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Send all, then wait to be told that there is nothing more."""
    values = np.load(specification.values, allow_pickle=False)
    async with Client(specification.gateway, **channel.shown(specification.name)) as client:
        await Sender(specification, journal, orders, client, values).send_all()
        await orders.finish.wait()


class Sender:
    """Sends one stream."""

    def __init__(
        self,
        specification: worker.Specification,
        journal: Journal,
        orders: worker.Orders,
        client: Client,
        values: NDArray[np.float32],
    ) -> None:
        self._given = specification
        self._journal = journal
        self._orders = orders
        self._client = client
        self._values = values

    async def send_all(self) -> None:
        """Return when every request has come back."""
        room = asyncio.Semaphore(UNDERWAY_MAX)
        due, last = 0.0, time.monotonic()
        async with asyncio.TaskGroup() as underway:
            for request, row in enumerate(self._given.indexes):
                while due < 1:
                    await asyncio.sleep(STEP_SECONDS)
                    now = time.monotonic()
                    # What was not sent in time is not made up for by a burst.
                    due = min(due + self._orders.per_second * (now - last), max(1.0, self._orders.per_second / 10))
                    last = now
                due -= 1
                await room.acquire()
                underway.create_task(self._send(request, row)).add_done_callback(lambda _: room.release())

    async def _send(self, request: int, row: int) -> None:
        sent, start = time.time(), time.perf_counter()
        try:
            got = await self._predict(request, row)
        except (DemurError, grpc.RpcError) as error:
            self._journal.write(Failed(index=request, time=sent, call="Predict", error=repr(error)))
            return
        self._journal.write(
            Replied(
                index=request,
                time=sent,
                latency_ms=1000 * (time.perf_counter() - start),
                decision=got.decision,
                label=got.label,
                confidence=got.confidence,
                version=got.version,
                deferral=got.deferral.name if got.deferral is not None else "",
                certificate=got.certificate,
            )
        )

    async def _predict(self, request: int, row: int) -> Result:
        given = self._given
        for left in reversed(range(ATTEMPTS_MAX)):
            try:
                return await self._client.predict(
                    given.model,
                    inputs={given.input: self._values[row : row + 1]},
                    subject=(show(request, row), "text/plain"),
                    idempotency_key=f"{given.run}-{request}",
                    timeout_seconds=given.call_seconds,
                    attempts=ATTEMPTS_MAX,
                )
            except FullError as error:
                if not left:
                    raise
                self._journal.write(Stumbled(time=time.time(), call="Predict", error=repr(error)))
                await asyncio.sleep(error.retry_after_seconds or PAUSE_SECONDS)
        raise AssertionError("left is 0 at the last attempt")


if __name__ == "__main__":
    worker.run(converse)
