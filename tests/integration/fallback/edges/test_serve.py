"""The process behind `demur review`, as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from fallback import embedded
from fallback.answer import Label
from fallback.client import ReviewClient
from fallback.config import Config
from fallback.deferral import Callback, State
from fallback.errors import UnavailableError
from fallback.presence import Running
from fallback.queue import Queue

START_SECONDS_MAX = 30.0
SETTINGS = """
[fallback]
grpc_listen = "127.0.0.1:0"
page_listen = "127.0.0.1:0"
webhook_allow_networks = ["127.0.0.0/8"]
"""


class Process:
    """A `demur review` of its own, on the test's data folder and server."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.data = folder / "data"
        config = folder / "demur.toml"
        config.write_text(settings)
        self.log = (folder / "review.log").open("wb")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "review", "--config", str(config)],
            cwd=folder,
            env={**os.environ, "DEMUR_DATA": str(self.data)},
            stdout=self.log,
            stderr=self.log,
        )

    def running(self) -> Running:
        """Return what it says of itself once it answers."""
        path = self.data / "run" / "review.json"
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.child.poll() is None:
            if path.exists():
                said = msgspec.json.decode(path.read_bytes(), type=Running)
                if said.pid == self.child.pid:
                    return said
            time.sleep(0.02)
        raise AssertionError(f"review is not up: {self.text()}")

    def text(self) -> str:
        return Path(self.log.name).read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.child.send_signal(number)
        code = self.child.wait(30)
        self.log.close()
        return code


@contextmanager
def reviewing(folder: Path, settings: str = SETTINGS) -> Iterator[Process]:
    process = Process(folder, settings)
    try:
        yield process
    finally:
        if process.child.poll() is None:
            process.end(signal.SIGKILL)


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, list[str]]]:
    """A receiver of callbacks: its URL, and the ids it was told."""
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.headers["webhook-id"])
        return web.Response()

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", got
    finally:
        await runner.cleanup()


async def test_it_serves_reviewers_page_and_callbacks_and_drains(tmp_path: Path, park: Any) -> None:
    """One process answers gRPC and HTTP, calls back, and ends with 0 on SIGTERM."""
    with reviewing(tmp_path) as process:
        said = await asyncio.to_thread(process.running)
        async with receiver() as (url, got), ReviewClient(said.addresses["grpc"], identity="ann") as ann:
            name = await park(callback=Callback(webhook_url=url))
            (lease,) = await ann.lease("digits", wait_seconds=5)
            await ann.submit(lease.token, Label("7"))
            async with aiohttp.ClientSession() as session, session.get(f"http://{said.addresses['page']}/") as page:
                assert page.status == 200
            for _ in range(500):
                if got:
                    break
                await asyncio.sleep(0.01)
        assert [name.rpartition("/")[2]] == got
        assert await asyncio.to_thread(process.end) == 0


async def test_a_killed_process_loses_nothing(tmp_path: Path, park: Any, queue: Queue) -> None:
    """Kill -9 with a lease held: the next process takes the same token's answer."""
    with reviewing(tmp_path) as first:
        said = await asyncio.to_thread(first.running)
        name = await park()
        async with ReviewClient(said.addresses["grpc"], identity="ann") as ann:
            (lease,) = await ann.lease("digits")
        await asyncio.to_thread(first.end, signal.SIGKILL)
    with reviewing(tmp_path) as second:
        said = await asyncio.to_thread(second.running)
        async with ReviewClient(said.addresses["grpc"], identity="ann") as ann:
            await ann.submit(lease.token, Label("7"))
    assert (await queue.get(name)).state is State.RESOLVED


async def test_it_starts_while_its_server_is_away_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reviewers are told UNAVAILABLE with a time to come back; once the server is there, they are served."""
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    folder = tmp_path / "data" / "valkey"
    port = _free_port()
    settings = SETTINGS.replace('grpc_listen = "127.0.0.1:0"', f'grpc_listen = "127.0.0.1:{port}"')
    with reviewing(tmp_path, settings) as process:
        async with ReviewClient(f"127.0.0.1:{port}", identity="ann") as ann:
            with pytest.raises(UnavailableError):
                await _patiently(ann)
            server = await asyncio.to_thread(embedded.Server.start, folder)
            try:
                await asyncio.to_thread(server.wait_ready)
                await asyncio.to_thread(process.running)
                assert await ann.queues() == []
                assert await asyncio.to_thread(process.end) == 0
            finally:
                await asyncio.to_thread(server.stop)


async def _patiently(ann: ReviewClient) -> None:
    """Call until the service itself says that the queue's server is away."""
    for _ in range(200):
        try:
            await ann.lease("digits")
        except UnavailableError as error:
            if error.retry_after_seconds is not None:
                raise
        await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('[fallback]\ngrpc_listen = "0.0.0.0:0"', "without credentials nothing listens beyond loopback"),
        ('[fallback]\npage_listen = "0.0.0.0:0"', "without credentials nothing listens beyond loopback"),
        ('[fallback]\ncredentials_file = "nowhere.toml"', "fallback.credentials_file: nowhere.toml"),
        ('[fallback]\nwebhook_allow_networks = ["everything"]', "webhook_allow_networks"),
        ('[fallback]\ncallback_ca_file = "nowhere.pem"', "callback_ca_file nowhere.pem"),
        ("[fallback]\ncallback_visibility_seconds = 5.0", "callback_visibility_seconds"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_no_start(
    config: Config, tmp_path: Path, settings: str, sentence: str
) -> None:
    """A wrong setting ends the process with code 2, its key, and no traceback."""
    assert config
    with reviewing(tmp_path, settings) as process:
        assert process.child.wait(30) == 2
        process.log.close()
        text = process.text()
    assert sentence in text
    assert "Traceback" not in text


async def test_a_port_in_use_is_told(config: Config, tmp_path: Path) -> None:
    """A second process on the same ports does not start, and says which setting it was."""
    assert config
    with reviewing(tmp_path) as first:
        said = await asyncio.to_thread(first.running)
        for key, what in (("grpc_listen", "grpc"), ("page_listen", "page")):
            taken = SETTINGS.replace(f'{key} = "127.0.0.1:0"', f'{key} = "{said.addresses[what]}"')
            folder = tmp_path / what
            folder.mkdir()
            with reviewing(folder, taken) as second:
                assert await asyncio.to_thread(second.child.wait, 30) == 2
                second.log.close()
                assert f"fallback.{key}: cannot listen on {said.addresses[what]}" in second.text()
