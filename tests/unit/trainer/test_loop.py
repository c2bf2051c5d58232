from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime

import pytest

from fallback.errors import DemurError, UnavailableError
from gateway.model_client import ModelClient
from tests.unit.trainer.test_ledger import events
from trainer.config import TrainerSettings
from trainer.loop import alarm_due, backoff, new_labels, repeat, retrain_due
from trainer.reports import Report, Result
from trainer.retrain import Rooms

SETTINGS = TrainerSettings(poll_seconds=0.001, backoff_seconds_max=0.002)


def test_waits_double_up_to_the_most() -> None:
    """0.5, 1, 2, ... seconds, and no overflow after a night of failures."""
    assert [backoff(failures, seconds_max=3) for failures in (1, 2, 3, 4, 100_000)] == [0.5, 1, 2, 3, 3]


async def test_a_step_that_fails_is_tried_again_until_the_stop() -> None:
    """What is away comes back; the loop neither ends nor spins."""
    stop = asyncio.Event()
    said: list[int] = []

    async def step() -> bool:
        said.append(len(said))
        if len(said) < 3:
            raise UnavailableError("away")
        if len(said) == 6:
            stop.set()
        return len(said) == 4

    await asyncio.wait_for(repeat("step", step, stop, SETTINGS), 5)
    assert said == [*range(6)]


async def test_a_fault_that_nobody_foresaw_ends_the_loop() -> None:
    """The process ends with it, and its supervisor starts it again."""

    async def step() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await repeat("step", step, asyncio.Event(), SETTINGS)


def test_a_model_that_may_not_be_trained_has_nothing_new(rooms: Rooms) -> None:
    """No row yet: nothing is due; a report moves the mark on."""
    assert new_labels(rooms, "digits") == 0
    parent = rooms.registry.get("digits", "1")
    rooms.reports.write(
        Report(
            model="digits",
            parent="1",
            result=Result.REJECTED,
            reasons=("worse",),
            why="test",
            ledger_row=5,
            create_time=parent.create_time,
            duration_seconds=0.1,
        )
    )
    assert new_labels(rooms, "digits") == 0


def test_a_row_of_another_ledger_does_not_say_what_was_learned(rooms: Rooms) -> None:
    """A version brought in by a release that kept its trainer's notes: all labels here are new to it."""
    rooms.ledger.append("digits", events([1, 2, 3]))
    manifest = rooms.registry.folder / "digits" / "1" / "manifest.toml"
    text = manifest.read_text()
    for row, expected in (("0", 3), ("2", 1), ("3", 0), ("4", 3), ("50000", 3), ("9" * 5_000, 3), ("many", 3)):
        manifest.write_text(text.replace('ledger_row = "0"', f'ledger_row = "{row}"'))
        assert new_labels(rooms, "digits") == expected, row


async def test_one_models_unforeseen_trouble_does_not_keep_the_others_waiting(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have their turn, then the first trouble is told, as something to try again."""
    asked: list[str] = []

    def count(_: Rooms, model: str) -> int:
        asked.append(model)
        if model == "digits":
            raise ZeroDivisionError
        return 0

    monkeypatch.setattr("trainer.loop.new_labels", count)
    shutil.copytree(rooms.registry.folder / "digits", rooms.registry.folder / "numbers")
    with pytest.raises(DemurError, match="digits could not be retrained: internal error"):
        await retrain_due(rooms, ModelClient("127.0.0.1:1"))
    assert asked == ["digits", "numbers"]


def test_after_an_alarm_a_model_is_trained_once(rooms: Rooms) -> None:
    """Whether it was since is read from the reports, so that a restart neither forgets it nor does it twice."""
    assert not alarm_due(rooms, "digits", None)
    assert alarm_due(rooms, "digits", 1_800_000_000)
    written = rooms.reports.write(
        Report(
            model="digits",
            parent="1",
            result=Result.REJECTED,
            reasons=("worse",),
            why="test",
            ledger_row=0,
            create_time=datetime(2027, 1, 16, tzinfo=UTC),
            duration_seconds=1.0,
        )
    )
    assert not alarm_due(rooms, "digits", int(written.create_time.timestamp()) - 1)
    assert alarm_due(rooms, "digits", int(written.create_time.timestamp()) + 1)
