"""SIGTERM ends a process that has nothing to drain yet, in a container too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# Runs `demur` as a process of the number that is given, which SIGTERM reaches before anything of weight is imported.
_AS_PID_1 = """
import os, runpy, signal, sys
own = os.getpid()
os.getpid = lambda: int(sys.argv[1])
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "gateway.application":
            assert not {"grpc", "typer", "structlog", "msgspec"} & set(sys.modules)
            os.kill(own, signal.SIGTERM)
sys.meta_path.insert(0, Watch())
runpy.run_module("gateway.cli", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code"), [(1, 128 + signal.SIGTERM), (2, -signal.SIGTERM)])
def test_sigterm_ends_a_process_that_has_only_begun(number: int, code: int) -> None:
    """The first of a container has a handler before anything that takes time; the others need none."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_PID_1, str(number)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


def test_sigterm_ends_a_gateway_that_does_not_answer_yet(tmp_path: Path) -> None:
    """It waits for a server that takes connections and says nothing; there is nothing to drain."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        listens = '[gateway]\ngrpc_listen = "127.0.0.1:0"\nmetrics_listen = ""\ndevice = "cpu"\nclerk = false\n'
        (tmp_path / "demur.toml").write_text(listens + "[redis]\ncommand_timeout_seconds = 60\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        child = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--data", str(tmp_path / "data")],
            cwd=tmp_path,
            env={**kept, "DEMUR_REDIS_URL": url},
            stderr=subprocess.DEVNULL,
        )
        try:
            with silent.accept()[0]:
                child.send_signal(signal.SIGTERM)
                assert child.wait(30) == -signal.SIGTERM
        finally:
            child.kill()
            child.wait()
