"""What is measured: `demur serve` on a real server of its own, or a bare echo on one of its transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.demo.processes import tail_of
from benchmarks.serve import models
from benchmarks.serve.models import Name
from benchmarks.stack import LOOPBACK, environment
from fallback import embedded, presence
from fallback.errors import UnavailableError
from gateway.manifest import Golden
from gateway.model_client import ModelClient
from gateway.server import PROCESS
from gateway.supervise import leashed
from gateway.up import demur

AUDIT_SHARE: Final = 0.01
_START_SECONDS_MAX: Final = 60.0
# From those above, a client of another server may have taken it by the time that it is listened on.
_PORTS: Final = range(20_000, 32_768)
_PORT_TRIES_MAX: Final = 100
_LOOK_SECONDS: Final = 0.02
_LOG: Final = "serve.log"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Served(NamedTuple):
    """A server under load: where it answers, and its process."""

    address: str
    pid: int
    # Of a gateway: where its data and its log are, and the process of its queue's server.
    folder: Path = Path()
    valkey_pid: int = 0

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / _LOG

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used, its own and the system's for it."""
        return _cpu_seconds(self.pid)

    def valkey_seconds(self) -> float:
        """Return the processor time that its queue's server has used."""
        return _cpu_seconds(self.valkey_pid)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def _valkey(folder: Path) -> Iterator[embedded.Server]:
    """Yield a real server on `folder`, synced before each reply as `demur up` runs it."""
    server = embedded.Server.start(embedded.folder(folder))
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def gateway(folder: Path, *, transport: str, settings: Sequence[str] = (), metrics: str = "") -> Iterator[Served]:
    """Run `demur serve` on a folder and a server of its own, and end both.

    `settings` are further lines of its table `[gateway]`, and tables after it; `metrics` is where its page is, if any.
    """
    data = Path(tempfile.mkdtemp(dir=folder))
    with _valkey(data) as server, _gateway(data, server.url, transport, settings, metrics) as served:
        yield served._replace(valkey_pid=server.pid)


@contextlib.contextmanager
def _gateway(data: Path, redis_url: str, transport: str, settings: Sequence[str], metrics: str) -> Iterator[Served]:
    port = free_port()
    config, log = data / "demur.toml", data / _LOG
    listens = (f'grpc_listen = "{LOOPBACK}:{port}"', f'metrics_listen = "{metrics}"')
    lines = (*listens, f'transport = "{transport}"', *settings)
    config.write_text("\n".join([f'data_folder = "{data}"', "[gateway]", *lines, ""]), encoding="utf-8")
    variables = {**environment(config, {}), "DEMUR_REDIS_URL": redis_url}
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - this Python, our own command
            leashed(demur("serve")), stdin=subprocess.PIPE, stdout=output, stderr=output, env=variables
        )
    try:
        yield _announced(child, data, log)
    finally:
        _end(child)


@contextlib.contextmanager
def echo(transport: str) -> Iterator[Served]:
    """Run an echo on one of the gateway's transports: what no model behind it can be faster than."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.serve.echo", transport, str(port)]
    child = subprocess.Popen(leashed(argv), stdin=subprocess.PIPE)  # noqa: S603 - this Python, our own module
    try:
        _wait_port(child, port)
        yield Served(f"{LOOPBACK}:{port}", _worker(child))
    finally:
        _end(child)


async def publish(
    address: str,
    name: Name,
    *,
    mark: float | None = None,
    audit_share: float = AUDIT_SHARE,
    promote: bool = True,
    golden: Sequence[Golden] = (),
) -> str:
    """Publish a version of a model, live at once if `promote`; returns which."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(models.artefact(name, mark=mark))
        async with ModelClient(address) as client:
            described = models.described(name, audit_share=audit_share, golden=golden)
            published = await client.publish(name, path, described, promote=promote)
    return published.name.rpartition("/")[2]


def published(address: str, name: Name) -> None:
    """Publish a first version of a model and wait until it answers."""
    asyncio.run(publish(address, name))


def free_port() -> int:
    """Return a port of the loopback address that nobody has, below those that the system gives to who connects."""
    for _ in range(_PORT_TRIES_MAX):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise UnavailableError(f"no free port was found among {_PORTS.start} to {_PORTS.stop - 1}")


def _announced(child: subprocess.Popen[bytes], data: Path, log: Path) -> Served:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < deadline:
        found = presence.announced(data, PROCESS)
        if found is not None:
            return Served(found.addresses["grpc"], found.pid, data)
        if child.poll() is not None:
            raise UnavailableError(f"`demur serve` ended with {child.returncode}; the end of its log:\n{tail_of(log)}")
        time.sleep(_LOOK_SECONDS)
    raise UnavailableError(f"`demur serve` is not up after {_START_SECONDS_MAX:.0f} s; its log:\n{tail_of(log)}")


def _wait_port(child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(_LOOK_SECONDS)
    raise UnavailableError(f"the echo did not come up; it ended with {child.poll()}")


def _worker(child: subprocess.Popen[bytes]) -> int:
    """Return the process that really works: a leash has it as its only child."""
    found = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="ascii").split()
    return int(found[0]) if found else child.pid


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_START_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        if child.stdin is not None:
            child.stdin.close()
