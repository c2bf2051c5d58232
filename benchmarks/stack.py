"""The stack that is measured: one of its own, started and ended here, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.demo.processes import tail_of
from fallback.environment import CA, CERTIFICATE, KEY, SERVER_NAME, TOKEN
from fallback.errors import InvalidError, UnavailableError
from gateway import stack as gateway_stack
from gateway.stack import Stack
from gateway.supervise import leashed
from gateway.up import demur

LOOPBACK = "127.0.0.1"
START_SECONDS_MAX = 120.0
FIRST_SECONDS_MAX = 120.0
END_SECONDS_MAX = 30.0
_LOOK_SECONDS = 0.1
# How somebody else's servers are reached.
_WAYS = (TOKEN, CA, SERVER_NAME, CERTIFICATE, KEY)
# What would make a stack of one's own less one's own.
_NOT_INHERITED = ("DEMUR_DATA", "DEMUR_REDIS_URL", "DEMUR_CONFIG", *_WAYS)


def environment(config: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a stack of one's own: this process's, less what points elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**kept, "DEMUR_CONFIG": str(config), **secrets}


def listens() -> str:
    """Return the tables of a demur.toml with a free port of the loopback address for everything that listens.

    Real numbers rather than 0, so that a process that is started again is found where it was.
    """
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(4):
            probe = held.enter_context(socket.socket())
            probe.bind((LOOPBACK, 0))
            ports.append(probe.getsockname()[1])
    gateway, metrics, review, page = (f'"{LOOPBACK}:{port}"' for port in ports)
    return (
        f"[gateway]\ngrpc_listen = {gateway}\nmetrics_listen = {metrics}\n\n"
        f"[fallback]\ngrpc_listen = {review}\npage_listen = {page}\n"
    )


@contextlib.contextmanager
def tidily() -> Iterator[None]:
    """Have SIGTERM unwind as Ctrl-C does, so that what was started is ended and what was laid down is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def place(keep: Path | None) -> Iterator[Path]:
    """Yield an empty folder for a run: `keep`, which stays, or a temporary one, which goes."""
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
            full = any(keep.iterdir())
        except OSError as error:
            raise InvalidError(f"--keep {keep}: expected a folder that can be written, got {error.strerror}") from error
        if full:
            raise InvalidError(f"--keep {keep}: expected an empty or a new folder, got one with files in it")
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="demur-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own(folder: Path, *, settings: str = "", secrets: Mapping[str, str]) -> Iterator[Stack]:
    """Start `demur up` on a data folder of its own, yield where it is, and end it; it ends too if this process dies.

    `settings` are tables of its demur.toml beside those of `listens`. Raises UnavailableError, with the end of its log,
    if it does not come up.
    """
    config, data, log = folder / "demur.toml", folder / "data", folder / "up.log"
    config.write_text(f'data_folder = "{data}"\n\n{listens()}{settings}', encoding="utf-8")
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - this Python, our own command
            leashed(demur("up")),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment(config, secrets),
            start_new_session=True,
        )
    try:
        with _plainly():
            yield _wait(child, data, log)
    finally:
        _end(child)


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """Have this process and those that it starts call a stack of one's own as that expects: without token or TLS."""
    put_aside = {name: os.environ.pop(name) for name in _WAYS if name in os.environ}
    try:
        yield
    finally:
        os.environ |= put_aside


def _wait(child: subprocess.Popen[bytes], data: Path, log: Path) -> Stack:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        found = gateway_stack.read(data)
        if found is not None:
            return found
        if child.poll() is not None:
            raise UnavailableError(
                f"`demur up` ended with code {child.returncode}; the end of its log:\n{tail_of(log)}"
            )
        time.sleep(_LOOK_SECONDS)
    raise UnavailableError(f"`demur up` is not up after {START_SECONDS_MAX:.0f} s; the end of its log:\n{tail_of(log)}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Stop it as Ctrl-C would; what will not stop is killed with all its children, which end with it."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def running(data: Path) -> Stack:
    """Return where the running stack on `data` is; raises UnavailableError that says how to start one."""
    return gateway_stack.find(data)


def first(kind: str, model: str) -> None:
    """Train and publish a first model of `kind` as `model` on the running stack; raises UnavailableError."""
    try:
        done = subprocess.run(  # noqa: S603 - this Python, our own command
            demur("train", "--first", kind, "--as", model),
            capture_output=True,
            text=True,
            check=False,
            timeout=FIRST_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"training {model} took more than {FIRST_SECONDS_MAX:.0f} s") from error
    if done.returncode:
        raise UnavailableError(f"training {model} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
