"""One of the demo's clients: sends its share of the digits over gRPC, once each, and writes down what came back.

A call that fails is not made again: what the demo promises is that none fails, swaps or not.
"""

from __future__ import annotations

import asyncio
import time

import grpc

from benchmarks.demo import worker
from benchmarks.demo.counts import DEFERRED
from benchmarks.demo.journal import Failed, Journal, Replied, Told
from fallback import channel
from fallback.errors import DemurError
from gateway.client import Client

UNDERWAY_MAX = 64
WAITS_MAX = 16


class Sender:
    """Sends and waits for one client process."""

    def __init__(
        self, specification: worker.Specification, journal: Journal, orders: worker.Orders, client: Client
    ) -> None:
        self._specification = specification
        self._journal = journal
        self._orders = orders
        self._client = client
        self._images = worker.read_images(specification.images)
        self._deferrals: list[tuple[int, str]] = []

    async def send_all(self) -> None:
        """Send every digit of this client's share at the rate of the orders; return when all have come back."""
        room = asyncio.Semaphore(UNDERWAY_MAX)
        async with asyncio.TaskGroup() as underway:
            for index in self._specification.indexes:
                await self._turn()
                await room.acquire()
                underway.create_task(self._send(index)).add_done_callback(lambda _: room.release())

    async def wait_all(self) -> None:
        """Ask for the outcome of every deferral this client was given."""
        room = asyncio.Semaphore(WAITS_MAX)
        async with asyncio.TaskGroup() as waits:
            for index, name in self._deferrals:
                waits.create_task(self._wait(index, name, room))

    async def _turn(self) -> None:
        """Return when the next request is due; a new order counts at once."""
        since = time.monotonic()
        while True:
            self._orders.changed.clear()
            rate = self._orders.per_second
            left = since + 1 / rate - time.monotonic() if rate > 0 else None
            if left is not None and left <= 0:
                return
            try:
                await asyncio.wait_for(self._orders.changed.wait(), left)
            except TimeoutError:
                return

    async def _send(self, index: int) -> None:
        given = self._specification
        sent, start = time.time(), time.perf_counter()
        try:
            got = await self._client.predict(
                given.model,
                subject=(self._images.contents[index], "image/png"),
                idempotency_key=f"{given.run}-{index}",
                callback=given.callback_url,
                timeout_seconds=given.call_seconds,
            )
        except (DemurError, grpc.RpcError) as error:
            self._journal.write(Failed(index=index, time=sent, call="Predict", error=repr(error)))
            return
        latency_ms = 1000 * (time.perf_counter() - start)
        decision = got.decision
        deferral = got.deferral.name if got.deferral is not None else ""
        if decision == DEFERRED:
            self._deferrals.append((index, deferral))
        self._journal.write(
            Replied(
                index=index,
                time=sent,
                latency_ms=latency_ms,
                decision=decision,
                label=got.label,
                confidence=got.confidence,
                version=got.version,
                deferral=deferral,
            )
        )

    async def _wait(self, index: int, name: str, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                got = await self._client.wait(name, timeout_seconds=self._specification.call_seconds)
            except (DemurError, grpc.RpcError) as error:
                self._journal.write(Failed(index=index, time=time.time(), call="WaitDeferral", error=repr(error)))
                return
        self._journal.write(Told(deferral=name, state=got.state, label=got.label))


async def converse(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Send, then, when told that everything should be settled, ask how each deferral ended."""
    async with Client(specification.gateway, **channel.shown(specification.name)) as client:
        sender = Sender(specification, journal, orders, client)
        await sender.send_all()
        await orders.finish.wait()
        await sender.wait_all()


if __name__ == "__main__":
    worker.run(converse)
