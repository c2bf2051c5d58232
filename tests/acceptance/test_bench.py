"""`demur bench predict --json` as a person runs it, on a stack of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_an_open_loop_run_tells_its_figures_its_machine_and_whether_to_believe_it(tmp_path: Path) -> None:
    """Every request is answered; whether this machine kept the times is its own affair, and the exit code says so."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "predict", "--json", "--rate", "20", "--seconds", "2"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.stdout, ran.stderr
    got = json.loads(ran.stdout.splitlines()[-1])
    assert got["failed_requests"] == 0
    assert got["requests"] > 10
    assert 0 < got["p50_ms"] <= got["p99_ms"] <= got["p999_ms"]
    assert got["void"] == (not all(check["ok"] for check in got["checks"][1:]))
    assert ran.returncode == (0 if got["ok"] else 1)
    assert "core" in got["machine"]
