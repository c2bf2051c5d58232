"""The process behind `demur review`: ReviewService, the page, the reaper and the dispatcher on one asyncio loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final, Self

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette

from fallback import presence
from fallback.address import Rule
from fallback.callback import Caller
from fallback.closing import Closer
from fallback.config import Config, FallbackSettings
from fallback.dispatcher import Dispatcher
from fallback.errors import ConfigError, DemurError, UnavailableError
from fallback.identity import Credentials, check_listen
from fallback.queue import Queue
from fallback.secret import secret
from fallback.service import Server
from fallback.tls import tls_of
from fallback.workbench import app

PROCESS: Final = "review"
AWAY_SECONDS: Final = 1.0
PAGE_CALLS_MAX: Final = 1_000
PAGE_BACKLOG: Final = 128
THREADS_MAX: Final = 72
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError where it cannot start."""
    asyncio.run(_serve(config))


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    async with Review(config) as review:
        await review.run(stop)


class Review:
    """Everything that one process serves; entering it starts listening, `run` goes on until told to stop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = config.table("fallback", FallbackSettings)
        self._credentials = Credentials.load(self._settings.credentials_file)
        check_listen("fallback.grpc_listen", self._settings.grpc_listen, self._credentials)
        check_listen("fallback.page_listen", self._settings.page_listen, self._credentials, http=True)
        self._rule = Rule(self._settings.webhook_allow_networks)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        # Content is read on these threads, which may wait for a disk.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS_MAX))
        async with AsyncExitStack() as exits:
            self._queue = Queue.connect(self._config)
            exits.push_async_callback(self._queue.close)
            caller = Caller(
                secret=secret(self._config, "webhook"),
                rule=self._rule,
                timeout_seconds=settings.callback_timeout_seconds,
                ca_file=settings.callback_ca_file,
                cloudevents=settings.cloudevents,
            )
            # Callbacks have connections of their own: a rush of reviewers keeps no outcome waiting.
            outbox = Queue.connect(self._config)
            exits.push_async_callback(outbox.close)
            self._dispatcher = Dispatcher(outbox, await exits.enter_async_context(caller), settings)
            self._closer = Closer(outbox, closed=self._dispatcher.wake)
            self._page = _Page(app.build(self._queue, self._credentials, self._config), settings)
            exits.callback(self._page.socket.close)
            self._server = Server(self._queue, self._credentials, self._config)
            port = await self._server.start(settings.grpc_listen)
            exits.push_async_callback(self._server.stop, 0)
            self.addresses = {"grpc": _with_port(settings.grpc_listen, port), "page": self._page.address}
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until `stop`; what ends before that without being asked takes the process with it."""
        parts = {
            asyncio.create_task(self._page.serve(), name="page"),
            asyncio.create_task(self._dispatcher.run(drain_seconds=self._settings.drain_seconds), name="dispatcher"),
            asyncio.create_task(self._reap(stop), name="reaper"),
            asyncio.create_task(self._closer.run(stop), name="closer"),
        }
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await self._check(stop)
            await self._page.ready()
            presence.announce(
                self._config.data_folder, PROCESS, presence.Running(pid=os.getpid(), addresses=self.addresses)
            )
            log.info("serving", **self.addresses)
            await asyncio.wait({stopping, *parts}, return_when=asyncio.FIRST_COMPLETED)
            log.info("draining", seconds=self._settings.drain_seconds)
        finally:
            stop.set()
            self._dispatcher.stop()
            self._page.stop()
            stopped = self._server.stop(self._settings.drain_seconds)
            ended = await asyncio.gather(stopped, stopping, *parts, return_exceptions=True)
        for result in ended:
            if isinstance(result, BaseException):
                raise result

    async def _check(self, stop: asyncio.Event) -> None:
        """Refuse a server that could forget; wait for one that is away, while page and health check answer already."""
        told = False
        while not stop.is_set():
            try:
                await self._queue.check()
            except UnavailableError as error:
                if not told:
                    log.warning("waiting for the queue's server", error=error.message)
                told = True
                await _pause(stop, AWAY_SECONDS)
            else:
                return

    async def _reap(self, stop: asyncio.Event) -> None:
        away = False
        while not stop.is_set():
            pause = self._settings.reap_interval_seconds
            try:
                reaped = await self._queue.reap()
            except DemurError as error:
                if not away:
                    log.warning("cannot reap", error=error.message)
                away, pause = True, max(pause, AWAY_SECONDS)
            else:
                away = False
                done = {key: value for key, value in msgspec.structs.asdict(reaped).items() if value}
                if done:
                    log.info("reaped", **done)
            await _pause(stop, pause)


class _PageServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: the process has one place that decides when to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class _Page:
    """The page's HTTP server on a socket that is bound at once, so that a port in use is told before anything runs."""

    def __init__(self, application: Starlette, settings: FallbackSettings) -> None:
        self.socket = _bind(settings.page_listen)
        self.address = _with_port(settings.page_listen, self.socket.getsockname()[1])
        self._application = application
        tls = tls_of("fallback", settings)
        if tls is not None:
            tls.context()  # tells which file does not do
        self._server = _PageServer(
            uvicorn.Config(
                application,
                ssl_certfile=None if tls is None else tls.certificate_file,
                ssl_keyfile=None if tls is None else tls.key_file,
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                limit_concurrency=PAGE_CALLS_MAX,
                timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
            )
        )

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self.socket])

    async def ready(self) -> None:
        """Return once it answers."""
        while not self._server.started and not self._server.should_exit:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """End when the requests under way have; those that wait for work are let go."""
        self._application.state.drain()
        self._server.should_exit = True


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, int(port)))
        listener.listen(PAGE_BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        raise ConfigError(f"fallback.page_listen: cannot listen on {address}: {error}") from error
    return listener


def _with_port(address: str, port: int) -> str:
    return address if address.startswith("unix") else f"{address.rpartition(':')[0]}:{port}"


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
