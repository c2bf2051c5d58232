"""Plain requests between their arrival and their run, where the thread that brought them runs them itself.

One thread's alone, so without a lock: what it adds it takes back before it waits for more.
"""

from __future__ import annotations

from gateway.quick import Fit, QuickJob


class Tray:
    """What was brought and is not run yet; `rows` of them."""

    __slots__ = ("_alike", "_fit", "_jobs", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._jobs: list[QuickJob] = []
        # Of the newest, and whether it is that of all.
        self._fit: Fit | None = None
        self._alike = True

    def add(self, job: QuickJob) -> None:
        """Put one behind the others."""
        fit = job.fit
        if fit is not self._fit:
            self._alike = not self._jobs
            self._fit = fit
        self._jobs.append(job)
        self.rows += fit.rows

    def take(self, rows_max: int) -> list[QuickJob]:
        """Take the next batch out: the first and those that fit together with it, in order, up to `rows_max` rows.

        One that has more rows by itself is a batch.
        """
        if self._alike and self.rows <= rows_max:
            return self.take_all()
        batch: list[QuickJob] = []
        left: list[QuickJob] = []
        rows, full = 0, False
        for job in self._jobs:
            fits = not full and (not batch or job.group == batch[0].group)
            full = full or (fits and bool(batch) and rows + job.rows > rows_max)
            if fits and not full:
                batch.append(job)
                rows += job.rows
            else:
                left.append(job)
        self._jobs = left
        self.rows -= rows
        return batch

    def take_all(self) -> list[QuickJob]:
        """Take all out."""
        jobs, self._jobs, self.rows = self._jobs, [], 0
        self._alike, self._fit = True, None
        return jobs
