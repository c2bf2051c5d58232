"""What each retraining did and why: `<data>/trainer/reports/<model>/<n>.json`, one for every attempt."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from fallback.presence import write_atomic
from trainer.candidate import Scores
from trainer.dataset import Counts
from trainer.errors import disk

FOLDER: Final = "reports"


class Result(StrEnum):
    """How a retraining ended."""

    PROMOTED = "promoted"
    SHADOWED = "shadowed"
    REJECTED = "rejected"
    REFUSED = "refused"
    UNCHANGED = "unchanged"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One retraining. `version` is empty unless it was published; `before` and `after` are None where nothing ran.

    `ledger_row` is the last row of the ledger that was looked at, `duration_seconds` of the whole.
    """

    number: int = 0
    model: str
    parent: str
    version: str = ""
    result: Result
    reasons: tuple[str, ...]
    why: str
    ledger_row: int
    counts: Counts | None = None
    dataset: str = ""
    before: Scores | None = None
    after: Scores | None = None
    iterations: int = 0
    converged: bool = True
    parity: float = 0.0
    create_time: datetime
    duration_seconds: float


class Reports:
    """All reports under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, report: Report) -> Report:
        """Keep a report under the next number, and return it with that."""
        number = max(self._numbers(report.model), default=0) + 1
        numbered = msgspec.structs.replace(report, number=number)
        body = msgspec.json.format(msgspec.json.encode(numbered), indent=2) + b"\n"
        path = self.folder / report.model / f"{number}.json"
        with disk(path):
            write_atomic(path, body)
        return numbered

    def all(self, model: str) -> list[Report]:
        """Return the reports of `model`, oldest first."""
        return [self._read(model, number) for number in sorted(self._numbers(model))]

    def last(self, model: str) -> Report | None:
        """Return the newest report of `model`."""
        numbers = self._numbers(model)
        return self._read(model, max(numbers)) if numbers else None

    def _read(self, model: str, number: int) -> Report:
        return msgspec.json.decode((self.folder / model / f"{number}.json").read_bytes(), type=Report)

    def _numbers(self, model: str) -> list[int]:
        return [int(path.stem) for path in (self.folder / model).glob("*.json") if path.stem.isdecimal()]
