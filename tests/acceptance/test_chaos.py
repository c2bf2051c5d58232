"""The chaos bench as a person runs it, and its checker on products that are broken in a known way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from benchmarks.chaos.command import chaos
from benchmarks.chaos.plan import Kind, Target, draw
from benchmarks.chaos.rounds import Results
from tests import planted

SEED = 3
ROUNDS = 15
# How long what a broken product never tells is waited for: what is told late is told by then.
SETTLE_SECONDS = 9.0
UNTOLD = "outcomes not told at least once under one id"


@pytest.mark.timeout(420)
def test_fifteen_rounds_of_faults_break_no_promise(tmp_path: Path) -> None:
    """Processes die, stand still and lose connections, the server included: nothing is lost, doubled or untold."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    # Journals and logs stay where pytest keeps them, for whoever has to find out.
    options = ["--json", f"--rounds={ROUNDS}", f"--seed={SEED}", f"--keep={tmp_path / 'run'}"]
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "chaos", *options],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ran.stdout, ran.stderr
    got = json.loads(ran.stdout.splitlines()[-1])
    assert (got["violations"], got["violations_shown"]) == (0, []), ran.stderr
    assert (got["lost"], got["duplicated"]) == (0, 0)
    assert got["rounds"] == ROUNDS
    assert [check for check in got["checks"] if not check["ok"]] == [], ran.stderr
    assert got["ok"] is True
    assert ran.returncode == 0
    assert set(got["faults_by_kind"]) == {"kill", "stop", "latency", "stall", "reset", "drop"}
    assert {"gateway", "valkey", "client", "reviewer", "receiver"} < set(got["faults_by_process"])
    assert got["accepted"] == got["resolved"] + got["cancelled"] == got["callbacks"]
    assert got["accepted_min"] >= 200
    assert got["in_flight_min"] >= 200


async def _broken(bug: str, seed: int, folder: Path) -> Results:
    """Run one round on a product with `bug` in it."""
    return await chaos(
        folder,
        rounds=1,
        seed=seed,
        tell=print,
        launch=planted.launcher(bug),
        purge=False,
        settle_seconds=SETTLE_SECONDS,
    )


def _telling(seed: int) -> bool:
    """Whether the first round kills a replica well into its work and stops a reviewer past the lease."""
    faults = draw(seed, 0)
    killed = any(one.kind is Kind.KILL and one.target is Target.REVIEW and one.at > 1.0 for one in faults)
    return killed and any(one.kind is Kind.STOP and one.target is Target.REVIEWER for one in faults)


TELLING = next(filter(_telling, count()))


async def test_the_same_round_on_the_product_as_it_is_breaks_no_promise(tmp_path: Path) -> None:
    """What the tests below find is the bug's doing, not the round's, nor that of how it is planted."""
    results = await _broken("none", TELLING, tmp_path)
    assert {promise: problems for promise, problems in results.broken.items() if problems} == {}


async def test_the_checker_notices_that_stale_leases_are_believed(tmp_path: Path) -> None:
    """Without fencing, answers that come after their lease take effect; the checker names them."""
    results = await _broken("no-fencing", TELLING, tmp_path)
    assert results.broken["effects of stale tokens"]


async def test_the_checker_notices_that_repeats_act_anew(tmp_path: Path) -> None:
    """Without replay, who repeats a call whose reply was lost is told that it did not happen; the checker names it."""
    results = await _broken("no-replay", TELLING, tmp_path)
    assert results.broken["requests answered in two ways"]


async def test_the_checker_notices_that_the_outbox_is_written_afterwards(tmp_path: Path) -> None:
    """With the outbox outside the script, a killed replica takes outcomes with it; the checker names them."""
    results = await _broken("late-outbox", TELLING, tmp_path)
    assert any("no callback was taken" in problem for problem in results.broken[UNTOLD])
