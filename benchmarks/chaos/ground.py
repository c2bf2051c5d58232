"""What a run stands on: server, gateway, two review replicas, clients, reviewers, receiver, and proxies between."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from onnx import TensorProto, helper

from benchmarks.chaos import worker
from benchmarks.chaos.names import LABELS, MODEL, QUEUE, TASK
from benchmarks.chaos.plan import LEASE_SECONDS, Link, Target
from benchmarks.chaos.processes import Process
from benchmarks.chaos.proxy import Dial, Proxy, tcp, unix
from benchmarks.chaos.receiver import PATH
from benchmarks.chaos.worker import Orders, Specification
from benchmarks.demo.receiver import SECRET
from benchmarks.stack import LOOPBACK, environment
from fallback import embedded, presence
from fallback.config import Config, QueueSettings
from fallback.errors import UnavailableError
from gateway import manifest
from gateway.manifest import Manifest, Output
from gateway.model_client import ModelClient
from gateway.policy import Policy
from gateway.up import demur

CLIENTS = 2
REVIEWERS = 3
REPLICAS = 2
START_SECONDS_MAX = 60.0
# How long a deferral, with what is still to be told of it, and the reply to a request id are kept: rounds are shorter,
# repeats end sooner, and callbacks are told well within it, whatever strikes.
RETENTION_SECONDS = 25
# What a killed gateway left behind is gone well before all is counted.
ORPHAN_SECONDS = 10
_LOOK_SECONDS = 0.05
# Below those that Linux, macOS and Windows take for outgoing connections.
_PORTS = range(20_000, 32_000)

# Returns the command line of one of our servers; tests put a broken product in its place.
Launch = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Everything that runs, and the proxies by the connection that they stand in."""

    folder: Path
    processes: dict[Target, list[Process]]
    proxies: dict[Link, list[Proxy]]

    @property
    def journals(self) -> list[Path]:
        """The files that clients, reviewers and receivers write."""
        people = (Target.CLIENT, Target.REVIEWER, Target.RECEIVER)
        return [_journal(self.folder, process.name) for target in people for process in self.processes[target]]

    @property
    def all(self) -> list[Process]:
        """Every process."""
        return [process for group in self.processes.values() for process in group]

    @property
    def config(self) -> Config:
        """How the run itself reads the server at the end: past all proxies."""
        return Config(data_folder=self.folder, queues=_settings())

    def order(self, orders: Orders) -> None:
        """Tell clients, reviewers and receiver what to do."""
        worker.give(self.folder / "orders.json", orders)

    async def until_ready(self, seconds: float = START_SECONDS_MAX) -> None:
        """Return when every process answers; raises UnavailableError that names one that does not."""
        deadline = time.monotonic() + seconds
        for process in self.all:
            while not process.ready:
                process.look()
                if time.monotonic() > deadline:
                    end = process.log.read_text(errors="replace")[-2000:]
                    raise UnavailableError(f"{process.name} does not answer after {seconds:.0f} s; its log:\n{end}")
                await asyncio.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Take from this process's environment what would point the run elsewhere; put it back afterwards."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("DEMUR_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.asynccontextmanager
async def ground(folder: Path, *, seed: int, launch: Launch = demur) -> AsyncIterator[Ground]:
    """Start the servers, publish the model, start everybody else; end everything. Use it within `alone`."""
    builder = _Builder(folder, seed, launch)
    made = Ground(folder=folder, processes=builder.processes, proxies=builder.proxies)
    (folder / "journals").mkdir(parents=True)
    made.order(Orders())
    try:
        await builder.servers()
        for process in made.all:
            process.start()
        await made.until_ready()
        await _publish(folder, builder.gateway_address)
        await builder.people()
        await made.until_ready()
        yield made
    finally:
        made.order(Orders(finish=True))
        for targets in (
            (Target.REVIEWER, Target.CLIENT),
            (Target.RECEIVER, Target.REVIEW, Target.GATEWAY),
            (Target.VALKEY,),
        ):
            ending = [process for target in targets for process in builder.processes.get(target, [])]
            for process in ending:
                process.ask_to_end()
            for process in ending:
                process.end()
        for proxies in builder.proxies.values():
            for proxy in proxies:
                await proxy.close()


class _Builder:
    """Lays down configurations and makes processes and proxies; what listens has a port of its own all along."""

    def __init__(self, folder: Path, seed: int, launch: Launch) -> None:
        self._folder = folder
        self._seed = seed
        self._launch = launch
        self.processes: dict[Target, list[Process]] = {}
        self.proxies: dict[Link, list[Proxy]] = {}
        ports = _free_ports(3 + 2 * REPLICAS)
        self._gateway_port, self._metrics_port, self._receiver_port, *self._review_ports = ports
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        self._secrets = {SECRET: f"whsec_{secret}", "DEMUR_AUDIT_SECRET": secret}

    @property
    def gateway_address(self) -> str:
        """Where the gateway answers, past all proxies."""
        return f"{LOOPBACK}:{self._gateway_port}"

    async def servers(self) -> None:
        """Make Valkey, the gateway and the review replicas."""
        store = embedded.folder(self._folder)
        store.mkdir(parents=True)
        self._add(Target.VALKEY, "valkey", embedded.command(store), {}, lambda _pid: embedded.answers(store))
        proxy = await self._proxy(Link.GATEWAY_VALKEY, unix(embedded.socket_path(store)))
        gateway = (
            f'[gateway]\ngrpc_listen = "{self.gateway_address}"\nmetrics_listen = "{LOOPBACK}:{self._metrics_port}"\n'
            'device = "cpu"\nthreads = 1\ndrain_seconds = 0.5\n'
        )
        self._server(Target.GATEWAY, "gateway", "serve", gateway, proxy)
        for number in range(REPLICAS):
            grpc_port, page_port = self._review_ports[2 * number : 2 * number + 2]
            proxy = await self._proxy(Link.REVIEW_VALKEY, unix(embedded.socket_path(store)))
            review = (
                f'[fallback]\ngrpc_listen = "{LOOPBACK}:{grpc_port}"\npage_listen = "{LOOPBACK}:{page_port}"\n'
                "reap_interval_seconds = 0.2\ndrain_seconds = 0.5\ncallback_timeout_seconds = 1.0\n"
                # What a replica has claimed when it dies is hidden for the visibility time: little, and not for long.
                "callback_visibility_seconds = 4.5\ncallback_concurrency_max = 16\n"
                f"callback_retry_seconds = {[0.3] + 98 * [0.6]}\n"
            )
            self._server(Target.REVIEW, f"review-{number + 1}", "review", review, proxy)

    async def people(self) -> None:
        """Make and start the receiver, the reviewers and the clients."""
        url = await self._proxy(Link.REVIEW_RECEIVER, tcp(LOOPBACK, self._receiver_port))
        gateway = await self._proxy(Link.CLIENT_GATEWAY, tcp(LOOPBACK, self._gateway_port))
        replicas = [await self._proxy(Link.REVIEWER_REVIEW, tcp(LOOPBACK, port)) for port in self._review_ports[::2]]
        self._worker(Target.RECEIVER, "receiver", port=self._receiver_port)
        for number in range(REVIEWERS):
            self._worker(Target.REVIEWER, f"reviewer-{number + 1}", addresses=tuple(map(_at, replicas)))
        for number in range(CLIENTS):
            callback = f"http://{_at(url)}{PATH}"
            self._worker(Target.CLIENT, f"client-{number + 1}", addresses=(_at(gateway),), callback_url=callback)
        for target in (Target.RECEIVER, Target.REVIEWER, Target.CLIENT):
            for process in self.processes[target]:
                process.start()

    async def _proxy(self, link: Link, dial: Dial) -> Proxy:
        proxy = Proxy(dial)
        await proxy.start(LOOPBACK)
        self.proxies.setdefault(link, []).append(proxy)
        return proxy

    def _server(self, target: Target, name: str, command: str, tables: str, proxy: Proxy) -> None:
        home = self._folder / name
        home.mkdir()
        path = home / "demur.toml"
        redis = "[redis]\nconnect_timeout_seconds = 1.0\ncommand_timeout_seconds = 1.0\n"
        path.write_text(f'data_folder = "{home}"\n\n{redis}\n{tables}\n{_queue_tables()}', encoding="utf-8")
        env = {
            **environment(path, self._secrets),
            "DEMUR_REDIS_URL": f"redis://{_at(proxy)}",
            "DEMUR_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        }

        def ready(pid: int) -> bool:
            said = presence.announced(home, command)
            return said is not None and said.pid == pid

        self._add(target, name, self._launch(command), env, ready)

    def _worker(self, target: Target, name: str, *, port: int = 0, **fields: object) -> None:
        journal = _journal(self._folder, name)
        specification = Specification(
            name=name,
            journal=str(journal),
            orders=str(self._folder / "orders.json"),
            seed=self._seed,
            port=port,
        )
        path = self._folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(specification, **fields)))
        argv = [sys.executable, "-m", f"benchmarks.chaos.{target}", str(path)]

        def ready(_pid: int) -> bool:
            return _listens(port) if port else journal.exists()

        self._add(target, name, argv, {**os.environ, **self._secrets}, ready)

    def _add(
        self,
        target: Target,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        ready: Callable[[int], bool],
    ) -> None:
        log = self._folder / f"{name}.log"
        process = Process(name, argv, env=env or os.environ, log=log, ready=ready)
        self.processes.setdefault(target, []).append(process)


async def _publish(folder: Path, address: str) -> None:
    """Publish a model that is never sure through the gateway's own ModelService, and make it the champion."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["p"])],
        "unsure",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", len(LABELS)])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", len(LABELS)])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artefact = folder / "unsure.onnx"
    artefact.write_bytes(model.SerializeToString())
    facts = Manifest(
        model=MODEL,
        labels=LABELS,
        task=TASK,
        on_deferral="provisional",
        output=Output(tensor="p"),
        policy=Policy(threshold=0.8, audit_share=0.0),
    )
    async with ModelClient(address, identity="chaos") as client:
        await client.publish(MODEL, artefact, manifest.render(facts), promote=True, reason="chaos")


def _settings() -> dict[str, QueueSettings]:
    common = QueueSettings(
        lease_seconds=LEASE_SECONDS,
        retention_seconds=RETENTION_SECONDS,
        request_seconds=RETENTION_SECONDS,
        orphan_seconds=ORPHAN_SECONDS,
    )
    return {QUEUE: common, MODEL: msgspec.structs.replace(common, reviews_wanted=2, reviews_max=3)}


def _queue_tables() -> str:
    """Return the queues' tables of a demur.toml; only what differs from the defaults."""
    defaults = msgspec.to_builtins(QueueSettings())
    lines = []
    for name, settings in _settings().items():
        lines.append(f"[queues.{name}]")
        lines += [f"{key} = {value}" for key, value in msgspec.to_builtins(settings).items() if value != defaults[key]]
    return "\n".join(lines) + "\n"


def _journal(folder: Path, name: str) -> Path:
    return folder / "journals" / f"{name}.jsonl"


def _at(proxy: Proxy) -> str:
    return f"{LOOPBACK}:{proxy.port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _free_ports(count: int) -> list[int]:
    """Return ports that stay free while a server is down: none that outgoing connections are given."""
    tried = random.sample(_PORTS, len(_PORTS))
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, tried.pop()))
                ports.append(int(probe.getsockname()[1]))
    return ports
