"""The demo's watcher: follows the stream of outcomes as a client would and writes down every event, once by cursor."""

from __future__ import annotations

import asyncio
import time

import grpc

from benchmarks.demo import worker
from benchmarks.demo.journal import Journal, Stumbled, Watched, label_of
from fallback import channel
from fallback.errors import DemurError
from gateway.client import Client

OLDEST = "0"
AGAIN_SECONDS = 0.5


async def watch(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Follow the outcomes of one queue from the oldest on; after a broken stream go on from the last cursor."""
    following = asyncio.create_task(_follow(specification, journal))
    finishing = asyncio.create_task(orders.finish.wait())
    await asyncio.wait({following, finishing}, return_when=asyncio.FIRST_COMPLETED)
    finishing.cancel()
    following.cancel()
    result = (await asyncio.gather(following, return_exceptions=True))[0]
    if isinstance(result, Exception):
        raise result


async def _follow(specification: worker.Specification, journal: Journal) -> None:
    cursor = OLDEST
    async with Client(specification.gateway, **channel.shown(specification.name)) as client:
        while True:
            stream = client.watch(specification.queue, cursor)
            try:
                async for event in stream:
                    deferral = event.deferral
                    journal.write(
                        Watched(
                            deferral=deferral.name,
                            state=str(deferral.state),
                            audit=deferral.audit,
                            label=label_of(deferral.outcome.answer if deferral.outcome is not None else None),
                            predicted=label_of(deferral.prediction.answer if deferral.prediction is not None else None),
                        )
                    )
            except (DemurError, grpc.RpcError) as error:
                journal.write(Stumbled(time=time.time(), call="WatchOutcomes", error=repr(error)))
            cursor = stream.cursor
            await asyncio.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    worker.run(watch)
