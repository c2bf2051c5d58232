"""Plain requests that wait nowhere: which are run together, in which order."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from gateway.metrics import Metrics
from gateway.quick import Fit, QuickJob
from gateway.tray import Tray

METRICS = Metrics()


def _fit(rows: int, group: str) -> Fit:
    intake: Any = None
    return Fit(intake=intake, rows=rows, dtype=np.dtype("f4"), row=(3,), group=(group,))


def _job(fit: Fit) -> QuickJob:
    nothing: Any = None
    return QuickJob(nothing, nothing, fit, "", nothing, METRICS)


def test_what_is_alike_and_fits_is_one_batch() -> None:
    """Up to the bound; what is above it is the next."""
    tray, fit = Tray(), _fit(2, "a")
    jobs = [_job(fit) for _ in range(5)]
    for job in jobs:
        tray.add(job)
    assert tray.rows == 10
    assert tray.take(7) == jobs[:3]
    assert (tray.take(7), tray.rows, tray.take(7)) == (jobs[3:], 0, [])


def test_one_that_has_more_rows_than_a_run_may_is_a_batch() -> None:
    """What comes after it waits for the next."""
    tray = Tray()
    large, small = _job(_fit(9, "a")), _job(_fit(1, "a"))
    tray.add(large)
    tray.add(small)
    assert (tray.take(4), tray.rows) == ([large], 1)
    assert tray.take(4) == [small]


def test_all_come_out_once_in_order_and_only_what_fits_together() -> None:
    """Of any mixture, within the bound."""
    draw, fits = random.Random(3), [_fit(rows, group) for rows in (1, 2, 5) for group in "ab"]
    for _ in range(300):
        tray, jobs, rows_max = Tray(), [_job(draw.choice(fits)) for _ in range(draw.randrange(1, 30))], 6
        for job in jobs:
            tray.add(job)
        out: list[QuickJob] = []
        while tray.rows:
            batch = tray.take(rows_max)
            assert len({job.group for job in batch}) == 1
            assert sum(job.rows for job in batch) <= rows_max
            out += batch
        assert sorted(map(id, out)) == sorted(map(id, jobs))
        for group in (("a",), ("b",)):
            assert [job for job in out if job.group == group] == [job for job in jobs if job.group == group]
