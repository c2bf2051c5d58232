"""Who parks and does nothing else has the same verdicts without an event loop's turns."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fallback import embedded
from fallback.blocking import JOINED_BYTES_MAX
from fallback.config import Config, QueueSettings, RedisSettings
from fallback.deferral import Parking
from fallback.errors import OverError, UnavailableError
from fallback.queue import Parked, Queue
from tests.unit.gateway.test_slip import PARKING


def test_a_blocking_queue_parks_as_another_does(server: embedded.Server) -> None:
    """Few and many, small and large, and says what is refused; what it parked the other finds."""
    config = Config(
        tables={"redis": RedisSettings(url=server.url)},
        queues={"blocking": QueueSettings(), "full": QueueSettings(depth_max=1)},
    )

    def one(number: int, queue: str = "blocking", size: int = 10) -> Parking:
        return msgspec.structs.replace(PARKING, queue=queue, subject=str(number).encode() * size)

    async def run() -> None:
        queue, other = Queue.connect(config, blocks=True), Queue.connect(config)
        try:
            many = await queue.park([one(number, size=JOINED_BYTES_MAX // 20) for number in range(70)])
            first, second = await queue.park([one(1, queue="full"), one(2, queue="full")])
            assert isinstance(first, Parked)
            assert isinstance(second, OverError)
            names = {each.name for each in many if isinstance(each, Parked)}
            assert len(names) == 70
            assert (await other.get(min(names))).subject_digest
        finally:
            await queue.close()
            await other.close()

    asyncio.run(run())


def test_a_server_that_went_and_came_is_found_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While it is away the verdict says so."""
    folder = embedded.folder(tmp_path_factory.mktemp("away"))
    server = embedded.Server.start(folder)
    config = Config(tables={"redis": RedisSettings(url=server.url)})

    async def run() -> None:
        queue = Queue.connect(config, blocks=True)
        try:
            server.wait_ready()
            ids = ["abcdefghij0123456789"]
            (first,) = await queue.park([PARKING], ids)
            server.stop()
            (away,) = await queue.park([PARKING], ids)
            assert isinstance(away, UnavailableError)
            back = embedded.Server.start(folder)
            try:
                back.wait_ready()
                (again,) = await queue.park([PARKING], ids)
                assert isinstance(first, Parked)
                assert isinstance(again, Parked)
                assert again.name == first.name
            finally:
                back.stop()
        finally:
            await queue.close()

    asyncio.run(run())
