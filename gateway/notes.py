"""What is said of rows whose queue was over a limit or away, beside their answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fallback.errors import DemurError, OverError
from fallback.queue import Parked
from gateway.verdict import Verdict


def notes(parked: Mapping[int, Parked], failed: Mapping[int, DemurError]) -> dict[int, Verdict]:
    """Return what is to be said of rows, by row: of those that are parked all the same, and of those that are not."""
    kept = {
        row: Verdict(
            rule="over", defers=False, evaluation=f"the queue is over its limit {found.over}; parked all the same"
        )
        for row, found in parked.items()
        if found.over
    }
    unparked = {
        row: Verdict(
            rule="over" if isinstance(error, OverError) else "away",
            defers=False,
            evaluation=f"{error.message.partition(';')[0]}; answered unreviewed",
        )
        for row, error in failed.items()
    }
    return kept | unparked
