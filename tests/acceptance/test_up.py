"""`demur up` as a person runs it: the real processes, killed one by one and all at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import stack
from gateway.client import Client
from gateway.stack import Stack
from tests.onnx_files import linear, save

START_SECONDS = 100.0
END_SECONDS = 40.0
CHILDREN = ("valkey", "serve", "review", "train")
ANY_PORT = """
data_folder = "data"
[gateway]
grpc_listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[fallback]
grpc_listen = "127.0.0.1:0"
page_listen = "127.0.0.1:0"
"""


class Up:
    """One `demur up` on a folder with a demur.toml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.screen = folder / "screen.txt"
        (folder / "demur.toml").write_text(ANY_PORT)
        self._output = self.screen.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "up"],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def wait(self) -> Stack:
        """Return where it is, once it is up."""
        found: list[Stack] = []

        def is_up() -> bool:
            assert self.process.poll() is None, self.screen.read_text()
            running = stack.read(self.data)
            found.extend([running] if running is not None and running.pids["up"] == self.process.pid else [])
            return bool(found)

        _until(is_up, START_SECONDS)
        return found[0]

    def stop(self, signum: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        code = self.process.wait(END_SECONDS)
        self._output.close()
        return code


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    return {**kept, "COLUMNS": "120"}


def _demur(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _until(true: Callable[[], bool], seconds: float = END_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Running:
    """The stack that runs now; `again` starts the next one on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up = Up(folder)
        self.stack = self.up.wait()

    def again(self) -> None:
        self.up = Up(self.folder)
        self.stack = self.up.wait()

    def demur(self, *arguments: str) -> str:
        done = _demur(*arguments, folder=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The second start on a folder: the first one trained and published a model, and Ctrl-C ended it."""
    running = Running(tmp_path_factory.mktemp("up"))
    data, found = running.up.data, running.stack
    code = running.up.stop(signal.SIGINT)
    screen = running.up.screen.read_text()
    assert code == 0, screen
    for shown in (found.gateway, found.page, "CPUExecutionProvider", str(data), " predict digits --digit 7"):
        assert shown in screen.replace("│\n│", ""), screen
    assert "training the first one, digits" in screen
    assert stack.read(data) is None
    assert not any(_alive(pid) for pid in found.pids.values())
    running.again()
    yield running
    assert running.up.stop(signal.SIGTERM) == 0, "SIGTERM ends it like Ctrl-C"
    assert not any(_alive(pid) for pid in running.stack.pids.values())


async def _park(gateway: str) -> str:
    async with Client(gateway, identity="test") as client:
        result = await client.predict("digits", subject=(_digit(), "image/png"), wish="person")
        assert result.deferral is not None
        return result.deferral.name


async def _state(gateway: str, name: str) -> str:
    async with Client(gateway, identity="test") as client:
        found = await client.wait(name, timeout_seconds=0)
        return str(found.state)


def _digit() -> bytes:
    from gateway.predict_command import digit_png

    return digit_png(7)


def test_what_it_says_is_where_things_are(running: Running) -> None:
    """Metrics, page and gateway answer there, the model is the first start's, and a second `up` is refused."""
    found = running.stack
    assert "training the first one" not in running.up.screen.read_text()
    with urllib.request.urlopen(f"http://{found.metrics}/metrics", timeout=5) as page:
        assert b'demur_champion{model="digits",provider="CPUExecutionProvider",version="1"} 1.0' in page.read()
    with urllib.request.urlopen(found.page, timeout=5) as page:
        assert page.status == 200
    assert "127.0.0.0/8" in found.webhook_networks
    assert "7" in running.demur("predict", "digits", "--digit", "7")
    second = _demur("up", folder=running.folder)
    assert second.returncode == 1
    assert second.stderr.startswith("demur: `demur up` runs already on ")


def test_any_model_is_published_promoted_judged_and_rolled_back_from_the_command_line(running: Running) -> None:
    """From an ONNX file, and from a folder of another registry."""
    artefact = str(save(linear(), running.folder / "mine.onnx"))
    asked = ("--labels", "cat,dog,bird", "--question", "Which animal?", "--on-deferral", "wait")
    said = running.demur("models", "publish", artefact, *asked, "--promote", "--reason", "ours")
    assert said == "models/mine/versions/1 is live\n"
    answer = running.demur("predict", "mine", "--json", "[0, 0, 0, 0]")
    assert "confidence 0.33 < 0.90 -> a person" in answer
    assert "deferral  " in answer
    running.demur("models", "policy", "set", "mine", "--threshold", "0.2", "--audit-share", "0")
    assert "answered" in running.demur("predict", "mine", "--json", '{"x": [0, 0, 0, 0]}')
    folder = str(running.up.data / "models" / "mine" / "1")
    assert running.demur("models", "import", folder, "--promote") == "models/mine/versions/2 is live\n"
    assert running.demur("models", "rollback", "mine") == "models/mine/versions/1 is live again\n"
    listed = running.demur("models", "list", "mine")
    assert ("rolled_back" in listed, "champion" in listed) == (True, True)
    assert 'question = "Which animal?"' in running.demur("models", "show", "mine")


def test_a_killed_child_is_started_again_and_nothing_is_lost(running: Running) -> None:
    """Each of them in turn; what was parked before is still there after."""
    found, data = running.stack, running.up.data
    name = asyncio.run(_park(found.gateway))
    for child in CHILDREN:
        pid = found.pids[child]
        os.kill(pid, signal.SIGKILL)
        _until(lambda child=child, pid=pid: _now(data).pids[child] not in {0, pid})  # type: ignore[misc]  # bound now
        found = _now(data)
    assert asyncio.run(_state(found.gateway, name)) == "open"
    assert asyncio.run(_park(found.gateway)) != name
    said = running.up.screen.read_text()
    for child in CHILDREN:
        assert f"{child} ended (signal 9); starting it again" in said
    running.stack = found


def _now(data: Path) -> Stack:
    found = stack.read(data)
    assert found is not None
    return found


def test_a_killed_supervisor_takes_its_children_along_and_the_next_one_goes_on(running: Running) -> None:
    """No orphan keeps a port or the queue; the data is as it was."""
    found = running.stack
    name = asyncio.run(_park(found.gateway))
    running.up.stop(signal.SIGKILL)
    _until(lambda: not any(_alive(pid) for pid in found.pids.values()))
    assert stack.read(running.up.data) is None
    running.again()
    assert asyncio.run(_state(running.stack.gateway, name)) == "open"


def test_a_port_in_use_is_named_with_its_key(tmp_path: Path) -> None:
    """Before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "demur.toml").write_text(
            ANY_PORT.replace('page_listen = "127.0.0.1:0"', f'page_listen = "{address}"')
        )
        done = _demur("up", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"demur: fallback.page_listen: {address} cannot be had: Address already in use")


def test_a_child_that_cannot_start_shows_why(tmp_path: Path) -> None:
    """The end of its log, and nothing is left running."""
    (tmp_path / "demur.toml").write_text(ANY_PORT + 'credentials_file = "absent.toml"\n')
    done = _demur("up", folder=tmp_path)
    assert done.returncode == 1
    assert "could not start" in done.stderr
    assert "fallback.credentials_file: absent.toml" in done.stderr
    assert "Traceback" not in done.stderr
