from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

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
