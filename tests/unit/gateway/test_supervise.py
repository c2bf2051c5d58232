"""Children on a leash: kept running, ended in time, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fallback.errors import UnavailableError
from gateway import leash, supervise
from gateway.supervise import Child, Command, Log, restart_seconds

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)",
]


def _alive(pid: int) -> bool:
    """A zombie is dead: it only waits for its parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


async def _until_later(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


def _child(tmp_path: Path, argv: list[str], told: list[str], *, stop_seconds_max: float = 5.0) -> Child:
    log = tmp_path / "one.log"
    command = Command(
        name="one",
        argv=argv,
        ready=lambda _pid: log.exists() and b"here" in log.read_bytes(),
        start_seconds_max=10,
        stop_seconds_max=stop_seconds_max,
    )
    return Child(command, logs=tmp_path, environment=os.environ, tell=told.append)


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    """With a word about it, and under a new process id."""
    told: list[str] = []
    again: list[int] = []
    child = _child(tmp_path, SLEEP, told)
    await child.start()
    keeping = asyncio.create_task(child.keep(again=lambda: again.append(child.pid)))
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await _until_later(lambda: bool(again))
    assert again[0] not in {0, first}
    assert told == ["one ended (signal 9); starting it again", "one answers again"]
    await child.stop()
    await keeping
    assert not _alive(again[0])


async def test_a_child_that_will_not_end_is_killed(tmp_path: Path) -> None:
    """SIGTERM first, SIGKILL when its time is over."""
    told: list[str] = []
    child = _child(tmp_path, STUBBORN, told, stop_seconds_max=0.2)
    await child.start()
    pid = child.pid
    await child.stop()
    assert not _alive(pid)
    assert told == ["one did not end within 0.2 s; killed"]


async def test_a_child_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """What it said is in the error."""
    child = _child(tmp_path, [sys.executable, "-c", "import sys; sys.exit('no such thing')"], [])
    with pytest.raises(UnavailableError, match=r"(?s)one could not start \(exit code 1\); the end of .*no such thing"):
        await child.start()
    await child.stop()


async def test_a_child_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """There is a limit to the wait."""
    command = Command(name="one", argv=SLEEP, ready=lambda _pid: False, start_seconds_max=0.2)
    child = Child(command, logs=tmp_path, environment=os.environ, tell=print)
    with pytest.raises(UnavailableError, match=r"one does not answer after 0.2 s"):
        await child.start()
    await child.stop()


@pytest.mark.parametrize("mode", [[], ["--watch"]], ids=["kernel", "pipe"])
def test_a_child_ends_with_a_killed_supervisor(mode: list[str]) -> None:
    """By the kernel's word on Linux, by the end of the pipe elsewhere."""
    if not mode and sys.platform != "linux":
        pytest.skip("only Linux tells children of their parent's death")
    source = f"""
import os, subprocess, sys
argv = [sys.executable, {leash.__file__!r}, str(os.getpid()), *{mode!r}, "--", *{SLEEP!r}]
child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pids = [int(supervisor.stdout.readline())]
    pids += [int(word) for word in _children(pids[0])]
    assert all(map(_alive, pids))
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    _until(lambda: not any(map(_alive, pids)))


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_leash_whose_supervisor_is_gone_already_runs_nothing(tmp_path: Path) -> None:
    """The death may come between the fork and the kernel's promise."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells children of their parent's death")
    mark = tmp_path / "mark"
    argv = [sys.executable, leash.__file__, "1", "--", "touch", str(mark)]
    assert subprocess.run(argv, stdin=subprocess.PIPE, check=False).returncode == 3
    assert not mark.exists()


def test_a_watched_commands_exit_code_is_passed_on() -> None:
    """Also where the watcher stays between."""
    argv = [
        sys.executable,
        leash.__file__,
        str(os.getpid()),
        "--watch",
        "--",
        sys.executable,
        "-c",
        "raise SystemExit(7)",
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.wait() == 7


def test_a_log_is_put_aside_when_it_is_full(tmp_path: Path) -> None:
    """Two files of bounded size, and the last lines at hand."""
    log = Log(tmp_path / "one.log", bytes_max=100)
    for number in range(30):
        log.write(f"line {number}\n".encode())
    log.write("half ü".encode())
    log.close()
    assert (tmp_path / "one.log").stat().st_size <= 100
    assert (tmp_path / "one.log.1").stat().st_size <= 100
    assert log.tail().splitlines()[-2:] == ["line 29", "half ü"]
    assert len(log.tail().splitlines()) == supervise.TAIL_LINES + 1


def test_the_back_off_doubles_up_to_its_limit() -> None:
    """At once at first, never longer than the limit."""
    assert [restart_seconds(failures) for failures in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert restart_seconds(50) == supervise.RESTART_SECONDS_MAX
    assert restart_seconds(5000) == supervise.RESTART_SECONDS_MAX
