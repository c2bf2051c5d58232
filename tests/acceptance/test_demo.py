"""`demur demo digits --json` as a person runs it: real processes, from an empty folder, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SECONDS_MAX = 240
pytestmark = pytest.mark.timeout(SECONDS_MAX + 10)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The demo, run once for all tests of this module."""
    folder = tmp_path_factory.mktemp("demo")
    env = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", "digits", "--json", "--picture", str(folder / "digits.png")],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )


@pytest.fixture(scope="module")
def got(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object on the last line of its output."""
    assert ran.stdout, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_the_demo_keeps_every_promise(ran: subprocess.CompletedProcess[str], got: dict[str, Any]) -> None:
    """It exits 0, and no check is broken."""
    assert [check for check in got["checks"] if not check["ok"]] == []
    assert ran.returncode == 0, ran.stderr


def test_every_request_was_answered_or_deferred_and_none_failed(got: dict[str, Any]) -> None:
    """1,200 requests, each with one fate."""
    assert got["requests"] == got["answered"] + got["deferred"] == 1200
    assert got["failed_requests"] == 0
    assert min(got["answered"], got["deferred"]) > 0


def test_every_deferral_ended_once_and_was_called_back_once(got: dict[str, Any]) -> None:
    """Nothing is lost, and retries of callbacks count once."""
    assert got["resolved"] == got["callbacks_delivered"] == got["deferred"]
    assert got["lost"] == 0
    assert got["callbacks_retried"] > 0


def test_audits_count_apart_and_call_back_only_when_they_overturn(got: dict[str, Any]) -> None:
    """About a tenth of the answered; far fewer of them amended."""
    assert 0.04 * got["answered"] < got["audited"] < 0.18 * got["answered"]
    assert got["amended"] < got["audited"]
    assert got["reviews"] == got["deferred"] + got["audited"]


def test_the_model_was_swapped_twice_under_traffic_and_got_better(got: dict[str, Any]) -> None:
    """Each version served a part of the stream, and the last beats the first on digits nobody trained on."""
    versions = got["versions"]
    assert got["swaps"] == len(versions) - 1 >= 2
    assert sum(version["stream_requests"] for version in versions) == 1200
    assert versions[-1]["accuracy_holdout"] > versions[0]["accuracy_holdout"]
    assert all(0 <= version["auto_error"] < 0.1 for version in versions)


def test_the_last_version_is_certified_or_it_is_said_what_is_missing(got: dict[str, Any]) -> None:
    """On requests that it was not trained on, with the truth beside: what is let through, and how much is wrong."""
    found = got["certified"]
    assert found["version"] == got["versions"][-1]["version"]
    assert (found["alpha"], found["failed"]) == (0.05, 0)
    assert found["requests"] == 1000
    if found["tau"] is None:
        assert found["audits_needed"] > 0
        assert f"about {found['audits_needed']} more audits are missing" in got["certificate"]
    else:
        assert found["stage"] == "certified"
        assert found["audits"] > 50
        assert 0 < found["coverage"] <= 1
        assert "is certified (at most 5% wrong, with 95% confidence)" in got["certificate"]


def test_the_picture_is_where_it_says(got: dict[str, Any]) -> None:
    """A PNG, and the machine that it was measured on is named."""
    with Image.open(Path(got["picture"])) as picture:
        assert picture.format == "PNG"
    assert "core" in got["machine"]
