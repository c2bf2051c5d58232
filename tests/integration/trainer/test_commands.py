from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fallback import presence
from fallback.answer import Answer
from fallback.config import Config
from fallback.queue import Queue
from gateway.server import Gateway
from tests import live_gateway
from trainer import digits
from trainer.retrain import Rooms

Review = Callable[[dict[int, Answer]], Awaitable[list[str]]]
Truth = Callable[..., dict[int, Answer]]


@pytest.fixture
def gateway(config: Config) -> Iterator[Gateway]:
    """A real gateway that says where it answers, as `demur serve` does."""
    with live_gateway.running(live_gateway.settings(config)) as running:
        presence.announce(
            config.data_folder, "serve", presence.Running(pid=os.getpid(), addresses={"grpc": running.address})
        )
        yield running


async def demur(*arguments: str) -> tuple[int, str]:
    """Run the real command; its exit code and all it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, " ".join(said.decode().split())


@pytest.mark.usefixtures("gateway")
async def test_a_person_can_follow_the_commands(config: Config, review: Review, truth: Truth, tmp_path: Path) -> None:
    """First model, retraining, report, imported examples, erasing: each says what it did."""
    code, said = await demur("train", "--first", "digits", "--as", "digits")
    assert (code, said.split(" ... ")) == (
        0,
        [
            "reading scikit-learn's digits",
            "training on 200 of 1797 digits",
            "keeping those, and 397 to judge by",
            "publishing it",
            "digits version 1 is live",
        ],
    )
    await review(truth(120))
    code, said = await demur("train", "digits")
    assert code == 0, said
    assert "version 2 is live, in place of version 1" in said
    assert "accuracy on" in said
    assert "older examples" in said
    found = digits.load()
    np.savez(tmp_path / "more.npz", image=found.tensor(found.stream[-5:]), labels=found.labels[list(found.stream[-5:])])
    digest = Rooms.open(config).ledger.all()[0]["inputs_digest"]
    reported, imported, erased, refused = await asyncio.gather(
        demur("train", "report", "digits"),
        demur("train", "import-examples", "digits", str(tmp_path / "more.npz"), "--split", "holdout"),
        demur("train", "erase", digest),
        demur("train", "nothing"),
    )
    assert reported[0] == 0
    assert "promoted" in reported[1]
    assert "1 -> 2" in reported[1]
    assert "harder than traffic" in reported[1]
    assert "version 2: margin AURC" in reported[1]
    assert "at temperature" in reported[1]
    assert imported == (0, "5 examples of digits are kept for holdout")
    assert erased == (0, f"erased {digest}")
    assert (refused[0], "model 'nothing' has no live version" in refused[1]) == (2, True)


async def test_the_watching_trainer_says_when_it_is_ready_and_ends_when_asked(
    config: Config, queue: Queue, review: Review, truth: Truth
) -> None:
    """The ready file stands while it runs; outcomes reach the ledger; SIGTERM ends it with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "train", "--watch", stderr=subprocess.PIPE
    )
    rooms = Rooms.open(config)
    try:
        await review(truth(7))
        async with asyncio.timeout(30):
            while (running := presence.announced(config.data_folder, "train")) is None:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
            assert running.pid == process.pid
            while await asyncio.to_thread(rooms.ledger.last_row) < 7:  # noqa: ASYNC110 - the table tells nobody
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert presence.announced(config.data_folder, "train") is None
    assert len(await queue.outcomes("digits", "0")) == 7
