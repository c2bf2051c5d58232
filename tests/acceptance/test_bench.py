"""`demur bench ... --json` as a person runs it, on a stack of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, *argv: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run `demur bench ... --json` in `folder`; return how it ended and its object."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", *argv, "--json"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.stdout, ran.stderr
    return ran, json.loads(ran.stdout.splitlines()[-1])


def test_an_open_loop_run_tells_its_figures_its_machine_and_whether_to_believe_it(tmp_path: Path) -> None:
    """Every request is answered; whether this machine kept the times is its own affair, and the exit code says so."""
    ran, got = run(tmp_path, "predict", "--rate", "20", "--seconds", "2")
    assert got["failed_requests"] == 0
    assert got["requests"] > 10
    assert 0 < got["p50_ms"] <= got["p99_ms"] <= got["p999_ms"]
    assert got["void"] == (not all(check["ok"] for check in got["checks"][1:]))
    assert ran.returncode == (0 if got["ok"] else 1)
    assert "core" in got["machine"]


def test_swaps_under_load_mix_nothing_and_failed_loads_leave_nothing(tmp_path: Path) -> None:
    """Times are this machine's affair, and so is how much it takes; what is answered is right whatever they are."""
    ran, got = run(tmp_path, "swap", "--quick")
    assert (got["mixed_batches"], got["wrong_version"]) == (0, 0)
    assert got["requests"] > 100
    assert (got["failed_loads_left"]["threads"], got["failed_loads_left"]["files"]) == (0, 0)
    assert ran.returncode == (0 if got["ok"] else 1)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="it measures the capacity with h2load")
def test_what_is_too_much_is_refused_and_told_when_to_come_back(tmp_path: Path) -> None:
    """How much that is, and how soon it is told, is this machine's affair."""
    ran, got = run(tmp_path, "overload", "--quick", "--model", "conv")
    assert got["conv"]["refused"] > 0
    assert (got["conv"]["refused_without_retry"], got["conv"]["other"]) == (0, 0)
    assert ran.returncode == (0 if got["ok"] else 1)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="its callers are h2load's")
def test_what_is_parked_and_audited_is_counted_beside_what_is_answered(tmp_path: Path) -> None:
    """How much it takes from the others is this machine's affair; nobody's call fails, and each row is parked."""
    ran, got = run(tmp_path, "defer", "--quick", "--model", "tiny")
    checks = {check["name"]: check["value"] for check in got["checks"]}
    assert checks["tiny: failed calls"] == 0
    assert got["tiny"]["parked"] > 200
    assert ran.returncode == (0 if got["ok"] else 1)


def test_what_a_gpu_is_asked_is_tried_out_on_the_cpu() -> None:
    """By the script that a machine with a GPU runs: the same code, its answers, refusals and swaps."""
    ran = subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh"), "--cpu"], capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    got = json.loads(ran.stdout.splitlines()[-1])
    assert (got["gpu"], got["errors"], got["ok"]) == (None, {}, True)
    assert {each["provider"] for each in got["alone"]} == {"CPUExecutionProvider"}
    assert got["swaps"]["tiny"]["requests"]["failed_requests"] == 0
    assert got["served"]["tiny"]["scenarios"]["single-stream"]["p90_ms"] > 0
