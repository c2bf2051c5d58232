"""The rows of the README's table "When something fails" that take more than a gateway, on real servers and processes.

The rows of one gateway are in tests/integration/gateway/test_failures.py, that of `demur up` in test_up.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import pytest
from aiohttp import web

from fallback import embedded, presence
from fallback.answer import Label
from fallback.client import ReviewClient
from fallback.config import Config, FallbackSettings, QueueSettings, load
from fallback.deferral import State
from fallback.errors import InvalidError, UnavailableError
from fallback.outbox import Delivery
from fallback.queue import Queue
from fallback.serve import Review
from gateway.client import Client
from gateway.model_client import ModelClient
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, told
from tests.onnx_files import counting_up

WAIT_SECONDS = 30.0
SETTINGS = """
[gateway]
grpc_listen = "127.0.0.1:0"
metrics_listen = ""
device = "cpu"
"""


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.Server]:
    """A server of the test's own, to kill, with a model `told` whose confidence the input says."""
    server = embedded.Server.start(tmp_path / "valkey")
    server.wait_ready()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMUR_REDIS_URL", server.url)
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DEMUR_CONFIG", raising=False)
    config = load()
    install(config.data_folder, "told", "1", told(1), JUDGED)
    promote(config, "told", "1")
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.stop()


@pytest.fixture
def told_config(config: Config) -> Config:
    """The shared server, with a model `told`."""
    install(config.data_folder, "told", "1", told(1), JUDGED)
    promote(config, "told", "1")
    return config


class _Gap:
    """Stands between a gateway and its server; can let requests through and keep the replies back."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name("gap.sock")
        self.keeps_replies = False
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        server = await asyncio.start_unix_server(self._link, self.path)
        self._ends.callback(server.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ends.aclose()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        for end in (writer, there_writer):
            self._ends.push_async_callback(_close, end)
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer, replies=True))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while content := await source.read(65_536):
                if not (replies and self.keeps_replies):
                    sink.write(content)
                    await sink.drain()
        sink.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def _process(
    folder: Path, redis_url: str, more: str = ""
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `demur serve` and yield it with its address."""
    (folder / "demur.toml").write_text(SETTINGS + more)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway.cli", "serve"),
        cwd=folder,
        env={**os.environ, "DEMUR_REDIS_URL": redis_url, "DEMUR_DATA": str(folder / "data")},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process, await _address(folder / "data", process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _address(data: Path, process: asyncio.subprocess.Process) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        assert process.returncode is None, "the gateway did not start"
        said = presence.announced(data, "serve")
        if said is not None and said.pid == process.pid:
            return said.addresses["grpc"]
        await asyncio.sleep(0.05)
    pytest.fail("the gateway never said where it is")


async def test_a_gateway_killed_between_parking_and_replying_parks_once(own_server: embedded.Server) -> None:
    """The client, who never heard, asks again with its key and gets the deferral that was made."""
    folder = load().data_folder.parent
    queue = Queue.connect(load())
    try:
        async with (
            _Gap(embedded.socket_path(own_server.folder)) as gap,
            _process(folder, f"unix://{gap.path}") as (process, address),
            Client(address, identity="shop") as client,
        ):
            await client.predict("told", inputs={"x": UNSURE}, idempotency_key="first")
            gap.keeps_replies = True
            asking = asyncio.create_task(client.predict("told", inputs={"x": UNSURE}, idempotency_key="second"))
            await _until_open(queue, 2)
            process.kill()
            with pytest.raises(UnavailableError):
                await asking
        parked, _ = await queue.list_deferrals("told", state=State.OPEN)
        async with _process(folder, own_server.url) as (_, address), Client(address, identity="shop") as client:
            again = await client.predict("told", inputs={"x": UNSURE}, idempotency_key="second")
        assert again.deferral is not None
        assert again.deferral.name in {deferral.name for deferral in parked}
        (state,) = await queue.states()
        assert state.open == 2
    finally:
        await queue.close()


@pytest.mark.parametrize("models", [1, 4])
async def test_a_gateway_whose_runs_do_not_end_stops_in_time(own_server: embedded.Server, models: int) -> None:
    """In the grace of one, however many they are, and in good order: an interpreter that ends under a run aborts."""
    config = load()
    facts = msgspec.structs.replace(JUDGED, labels=(), task=None)
    for number in range(models):
        install(config.data_folder, f"long{number}", "1", counting_up().SerializeToString(), facts)
        await asyncio.to_thread(promote, config, f"long{number}", "1")
    async with (
        _process(config.data_folder.parent, own_server.url, "drain_seconds = 1.0") as (process, address),
        Client(address, identity="shop") as client,
    ):
        x = np.array([[1e15, 0, 0]], np.float32)
        asking = [asyncio.create_task(client.predict(f"long{number}", inputs={"x": x})) for number in range(models)]
        await client.predict("told", inputs={"x": SURE})
        await asyncio.sleep(0.5)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), WAIT_SECONDS) == 0
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, UnavailableError) for each in found), found


async def _until_open(queue: Queue, count: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(state.open == count for state in await queue.states()):
        assert time.monotonic() < deadline, f"there were never {count} open deferrals"
        await asyncio.sleep(0.02)


async def test_a_reviewers_browser_gone_the_lease_lapses_and_the_item_returns(told_config: Config) -> None:
    """Whoever vanished is told so if they come back late; the next one answers."""
    fallback = FallbackSettings(grpc_listen="127.0.0.1:0", page_listen="127.0.0.1:0", reap_interval_seconds=0.1)
    config = Config(
        data_folder=told_config.data_folder,
        queues={"told": QueueSettings(lease_seconds=1)},
        tables={"fallback": fallback},
    )
    with running(settings(told_config)) as gateway:
        async with Client(gateway.address) as client, _review(config) as address:
            parked = await client.predict("told", inputs={"x": UNSURE})
            assert parked.deferral is not None
            async with ReviewClient(address, identity="gone") as gone:
                (_lost,) = await gone.lease("told")
            async with ReviewClient(address, identity="here") as here:
                (lease,) = await here.lease("told", wait_seconds=WAIT_SECONDS / 3)
                await here.submit(lease.token, Label("c"))
            assert (await parked.deferral.outcome(timeout_seconds=WAIT_SECONDS)).label == "c"


@contextlib.asynccontextmanager
async def _review(config: Config) -> AsyncIterator[str]:
    """Run the review service in this process and yield its gRPC address."""
    stop = asyncio.Event()
    async with Review(config) as review:
        running_review = asyncio.create_task(review.run(stop))
        try:
            yield review.addresses["grpc"]
        finally:
            stop.set()
            await running_review


async def test_a_receiver_that_is_down_is_told_when_it_is_back(told_config: Config) -> None:
    """Attempts go on with pauses between; when they are used up the outcome waits, listed, to be sent again."""
    fallback = FallbackSettings(
        grpc_listen="127.0.0.1:0",
        page_listen="127.0.0.1:0",
        webhook_allow_networks=("127.0.0.0/8",),
        callback_retry_seconds=(0.1,),
    )
    config = Config(data_folder=told_config.data_folder, tables={"fallback": fallback})
    queue = Queue.connect(config)
    heard: list[str] = []

    async def receive(request: web.Request) -> web.Response:
        heard.append(request.headers["webhook-id"])
        return web.Response(status=503 if len(heard) <= 2 else 200)

    application = web.Application()
    application.router.add_post("/outcomes", receive)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/outcomes"
    with running(settings(config, {"fallback": fallback})) as gateway:
        async with Client(gateway.address) as client, _review(config) as address:
            parked = await client.predict("told", inputs={"x": UNSURE}, callback=url)
            assert parked.deferral is not None
            async with ReviewClient(address, identity="here") as here:
                (lease,) = await here.lease("told", wait_seconds=WAIT_SECONDS / 3)
                await here.submit(lease.token, Label("c"))
            (given_up,) = await _dead_letters(queue)
            assert given_up.deferral.name == parked.deferral.name
            assert await queue.redeliver("told", [given_up.id]) == 1
            await _until_count(heard, 3)
    assert len(heard) == 3
    assert len(set(heard)) == 1
    await runner.cleanup()
    await queue.close()


async def _dead_letters(queue: Queue) -> list[Delivery]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := await queue.dead_letters("told")):
        assert time.monotonic() < deadline, "nothing was ever given up"
        await asyncio.sleep(0.05)
    return found


async def _until_count(heard: list[str], count: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(heard) < count:
        assert time.monotonic() < deadline, f"heard {len(heard)} of {count}"
        await asyncio.sleep(0.02)


async def test_a_broken_model_is_refused_with_the_reason_and_the_champion_stays(
    told_config: Config, tmp_path: Path
) -> None:
    """Publishing it says what is wrong; requests go on."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(told(2)[:100])
    with running(settings(told_config)) as gateway:
        async with ModelClient(gateway.address) as models, Client(gateway.address) as client:
            with pytest.raises(InvalidError, match=r"model\.onnx"):
                await models.publish("told", broken, "", promote=True, reason="test")
            assert (await client.predict("told", inputs={"x": SURE})).version == "1"
