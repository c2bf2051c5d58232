"""`demur up`: everything on one machine, as children of one supervisor.

Theory of operation. One lock file a data folder: its holder is the supervisor. Children start in the order of their
needs (Valkey, then gateway and fallback service, then the first model, then the trainer), each waited for until it
answers; they end in the opposite order. A child that dies is started again with a back-off; each keeps nothing that
matters in memory, so it goes on where it was. When the supervisor dies, by whatever signal, the kernel ends its
children (`gateway.leash`), and the next start finds a lock nobody holds. Where things are is in `<data>/stack.json`,
which stands while all of it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from fallback import channel, embedded, environment, presence
from fallback.config import Config, FallbackSettings, redis_url
from fallback.errors import AwayError, ConfigError, StateError, UnavailableError
from fallback.queue import Queue
from fallback.redis_settings import RedisSettings
from fallback.redis_url import without_password
from gateway import metrics, screen, stack
from gateway.config import GatewaySettings
from gateway.model_client import ModelClient
from gateway.stack import Stack
from gateway.supervise import Child, Command, leashed

FIRST_MODEL: Final = "digits"
LOCK: Final = "up.lock"
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_REDIS_URL: Final = "DEMUR_REDIS_URL"
_NETWORKS: Final = "DEMUR_WEBHOOK_ALLOW_NETWORKS"
# After a supervisor was killed, its children are still ending for a moment.
_SETTLE_SECONDS_MAX: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_TRAIN_SECONDS_MAX: Final = 300.0
_ENDING_SECONDS: Final = 10.0


def up(config: Config, *, console: Console) -> None:
    """Run everything until SIGINT or SIGTERM; raises DemurError where something cannot start."""
    data = config.data_folder.resolve()
    with locked(data):
        asyncio.run(_Up(config, data, console).run())


class _Up:
    def __init__(self, config: Config, data: Path, console: Console) -> None:
        self._config = config
        self._data = data
        self._console = console
        self._children: list[Child] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._gateway = config.table("gateway", GatewaySettings)
        self._fallback = config.table("fallback", FallbackSettings)
        self._redis_url = redis_url(config)
        # Without credentials nobody but this machine calls, so callbacks may reach this machine.
        self._networks = () if self._fallback.credentials_file else LOOPBACK
        self._environment = _environment(config, data, self._networks)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._asked_to_stop)
        stack.forget(self._data)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._end()

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _start(self) -> None:
        self._check_tls()
        await self._free_ports()
        await check_redis(self._config)
        with screen.step(self._console, "starting"):
            if not self._redis_url:
                await self._start_child(self._valkey())
            await asyncio.gather(self._start_child(self._serve()), self._start_child(self._review()))
        self._check_token()
        await self._first_model()
        with screen.step(self._console, "starting the trainer"):
            await self._start_child(self._own("train", "train", "--watch"))
        facts = await self._in_use()
        self._write_stack()
        screen.show(self._console, self._stack(), facts)

    async def _start_child(self, command: Command) -> None:
        child = Child(command, logs=self._data / "logs", environment=self._environment, tell=self._tell)
        self._children.append(child)
        await child.start()
        self._keeping.append(asyncio.create_task(child.keep(again=self._again)))

    def _tell(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def _again(self) -> None:
        if stack.read(self._data) is not None:
            self._write_stack()

    async def _end(self) -> None:
        stack.forget(self._data)
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        with screen.step(self._console, "stopping"):
            for child in reversed(self._children):
                await child.stop()
        for process in ("serve", "review"):
            presence.withdraw(self._data, process)
        self._console.print("stopped; the data is in", str(self._data), markup=False, highlight=False)

    def _valkey(self) -> Command:
        folder = embedded.folder(self._data)
        return Command(name="valkey", argv=embedded.command(folder), ready=lambda _pid: embedded.answers(folder))

    def _serve(self) -> Command:
        return self._own("serve", "serve", stop_seconds=self._gateway.drain_seconds + _ENDING_SECONDS)

    def _review(self) -> Command:
        return self._own("review", "review", stop_seconds=self._fallback.drain_seconds + _ENDING_SECONDS)

    def _own(self, name: str, *arguments: str, stop_seconds: float = _ENDING_SECONDS) -> Command:
        """One of Demur's own processes; ready once it has said so under its process id."""
        presence.withdraw(self._data, name)
        return Command(
            name=name,
            argv=demur(*arguments),
            ready=lambda pid: self._announced(name, pid),
            stop_seconds_max=stop_seconds,
        )

    def _announced(self, name: str, pid: int) -> bool:
        running = presence.announced(self._data, name)
        return running is not None and running.pid == pid

    def _check_token(self) -> None:
        """Raise ConfigError where callers must show a token and there is none for what is started here to show."""
        if self._fallback.credentials_file and not os.environ.get(environment.TOKEN):
            raise ConfigError(
                f"{environment.TOKEN}: expected the token of somebody with the role operator, since "
                "fallback.credentials_file is set: the trainer that this starts publishes with it; got none"
            )

    def _check_tls(self) -> None:
        """Raise ConfigError where what is started here could not call each other by TLS."""
        shown = [self._gateway.tls_certificate_file, self._fallback.tls_certificate_file]
        if any(shown) and not all(shown):
            missing, other = ("fallback", "gateway") if shown[0] else ("gateway", "fallback")
            raise ConfigError(f"{missing}.tls_certificate_file: expected a file, as [{other}] has one; got none")
        if any(shown) and not os.environ.get(environment.CA):
            raise ConfigError(
                f"{environment.CA}: expected the PEM file of who signed gateway.tls_certificate_file, or "
                "'system', since what this starts calls the gateway by TLS; got nothing"
            )
        if self._gateway.tls_client_ca_file and not os.environ.get(environment.CERTIFICATE):
            raise ConfigError(
                f"{environment.CERTIFICATE}: expected a PEM file that gateway.tls_client_ca_file signed, for what "
                "this starts to show; got nothing"
            )

    async def _free_ports(self) -> None:
        """Raise ConfigError that names the key of a port in use; waits for a killed stack's children to be gone."""
        listens = {
            "gateway.grpc_listen": self._gateway.grpc_listen,
            "gateway.metrics_listen": self._gateway.metrics_listen,
            "fallback.grpc_listen": self._fallback.grpc_listen,
            "fallback.page_listen": self._fallback.page_listen,
        }
        loop = asyncio.get_running_loop()
        left_behind = any(presence.announcement(self._data, name).exists() for name in ("serve", "review"))
        deadline = loop.time() + (_SETTLE_SECONDS_MAX if left_behind else 0)
        for key, listen in listens.items():
            while (problem := port_problem(listen)) and loop.time() < deadline:  # noqa: ASYNC110 - a port tells nobody
                await asyncio.sleep(_LOOK_SECONDS)
            if problem:
                raise ConfigError(f"{key}: {listen} cannot be had: {problem}; set another address, or port 0 for any")

    async def _first_model(self) -> None:
        """Train and publish the first model where there is no live one."""
        async with ModelClient(self._address("serve", "grpc"), **channel.shown("up")) as client:
            known = await client.list()
        if known:
            return
        self._console.print(f"no model yet: training the first one, {FIRST_MODEL}", highlight=False)
        process = await asyncio.create_subprocess_exec(
            *leashed(demur("train", "--first", FIRST_MODEL)),
            stdin=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        try:
            code = await asyncio.wait_for(process.wait(), _TRAIN_SECONDS_MAX)
        except TimeoutError as error:
            raise UnavailableError(f"training the first model took more than {_TRAIN_SECONDS_MAX:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            raise UnavailableError(f"training the first model failed (exit code {code}); what it said stands above")

    async def _in_use(self) -> dict[str, str]:
        """Say what was asked for and, from the gateway's own count, what the live models really run on."""
        running = presence.announced(self._data, "serve")
        facts = dict(running.facts) if running is not None else {}
        address = self._address("serve", "metrics")
        if address:
            providers = await asyncio.to_thread(metrics.providers, address)
            facts |= {"provider": ", ".join(providers)} if providers else {}
        return facts

    def _address(self, process: str, what: str) -> str:
        running = presence.announced(self._data, process)
        if running is None:
            raise UnavailableError(f"{process} has not said where it answers")
        return running.addresses.get(what, "")

    def _stack(self) -> Stack:
        return Stack(
            gateway=self._address("serve", "grpc"),
            metrics=self._address("serve", "metrics"),
            review=self._address("review", "grpc"),
            page=f"{'https' if self._fallback.tls_certificate_file else 'http'}://{self._address('review', 'page')}",
            data=str(self._data),
            redis=without_password(self._redis_url) or embedded.url(embedded.folder(self._data)),
            webhook_networks=(*self._fallback.webhook_allow_networks, *self._networks),
            pids={stack.SUPERVISOR: os.getpid(), **{child.command.name: child.pid for child in self._children}},
        )

    def _write_stack(self) -> None:
        with contextlib.suppress(UnavailableError):
            stack.write(self._data, self._stack())


def demur(*arguments: str) -> list[str]:
    """Return the command line of `demur` in this Python, whatever PATH says."""
    return [sys.executable, "-m", "gateway.cli", *arguments]


async def check_redis(config: Config) -> None:
    """Raise DemurError where a server that was named, instead of the embedded one, does not answer or does not fit."""
    url = redis_url(config)
    if not url:
        return
    named = _REDIS_URL if os.environ.get(_REDIS_URL) else "redis.url"
    if config.table("redis", RedisSettings).sentinels:
        named = "redis.sentinels"
    queue = Queue.connect(config)
    try:
        await queue.check()
    except AwayError as error:
        why = str(error.__cause__).rstrip(".") or "nothing came in time"
        raise UnavailableError(
            f"{named}: no Redis answers at {without_password(url)}: {why}; start it, correct the address, or set none: "
            "then `demur up` runs a server of its own"
        ) from error
    except UnavailableError:
        # It is there and will be ready: what is started waits for it.
        pass
    finally:
        await queue.close()


def port_problem(listen: str) -> str:
    """Say why `host:port` cannot be listened on now; empty: it can."""
    host, _, port = listen.rpartition(":")
    if not listen or port == "0":
        return ""
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
    except (OSError, ValueError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _environment(config: Config, data: Path, networks: Sequence[str]) -> dict[str, str]:
    """Children read the same configuration, from wherever they are started."""
    environment = {**os.environ, "DEMUR_DATA": str(data), "PYTHONUNBUFFERED": "1"}
    if config.path is not None:
        environment["DEMUR_CONFIG"] = str(config.path.resolve())
    given = os.environ.get(_NETWORKS, "")
    environment[_NETWORKS] = ",".join([*([given] if given else []), *networks])
    return environment


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; raises StateError that says who else holds it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        handle = os.open(data / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"data_folder: {data} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise StateError(
                f"`demur up` runs already on {data} (process {holder}); stop that one first, or name another folder: "
                f"demur up --data FOLDER",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
