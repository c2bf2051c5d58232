"""Which terms a clerk knows, and by which number: each is sent once, with the first errand that needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clerk_wire import TERMS_MAX
from gateway.slip import Terms

if TYPE_CHECKING:
    from gateway.champion import Live
    from gateway.quick import QuickJob


class KnownTerms:
    """Those of one clerk at a time; no number is ever used twice."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self._last = 0

    def number(self, job: QuickJob, live: Live, new: list[tuple[int, Terms]]) -> int:
        """Return the number of an errand's terms; where the clerk does not know them yet they are added to `new`."""
        question, fit = job.question, job.fit
        key = (live.version.model, live.version.version, question.input, question.datatype, fit.row)
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= TERMS_MAX:
                self._numbers.clear()
            self._last = number = self._last + 1
            self._numbers[key] = number
            manifest = live.manifest
            assert manifest.task is not None, "only models with a task are judged"
            terms = Terms(
                live.version.model,
                live.version.version,
                manifest.review_queue,
                manifest.labels,
                manifest.task,
                question.input,
                question.datatype,
                fit.row,
            )
            new.append((number, terms))
        return number

    def clear(self) -> None:
        """Forget all: another clerk knows none."""
        self._numbers.clear()
