from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from trainer import commands
from trainer.dataset import Counts
from trainer.reports import Report, Reports, Result

REPORT = Report(
    model="m",
    parent="1",
    result=Result.UNCHANGED,
    reasons=("nothing to learn",),
    why="asked for",
    ledger_row=7,
    create_time=datetime(2026, 1, 2, tzinfo=UTC),
    duration_seconds=0.5,
)


def test_reports_are_numbered_and_read_back(tmp_path: Path) -> None:
    """One file an attempt, from 1 on, each model its own."""
    reports = Reports(tmp_path)
    assert reports.last("m") is None
    assert [reports.write(REPORT).number for _ in range(11)] == [*range(1, 12)]
    assert reports.write(msgspec.structs.replace(REPORT, model="n")).number == 1
    assert [report.number for report in reports.all("m")] == [*range(1, 12)]
    assert reports.last("m") == msgspec.structs.replace(REPORT, number=11)


@pytest.mark.parametrize("result", [Result.UNCHANGED, Result.REFUSED])
def test_where_nothing_was_trained_nobody_is_told_that_it_was(result: Result) -> None:
    """What there is to learn from is said all the same."""
    counts = Counts(rows=1, imported=0, train=1, fresh=1, replayed=0, holdout=3, skipped={})
    screen = io.StringIO()
    commands._show(Console(file=screen, width=200), msgspec.structs.replace(REPORT, result=result, counts=counts))
    shown = screen.getvalue()
    assert "nothing was trained; there are 1 new and 0 older examples, to judge by 3; left out: none" in shown
    assert "trained on" not in shown
