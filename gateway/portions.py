"""What of a batch is whose: its parts by segment, each request's rows; and that these are as many as they must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from fallback.errors import InvalidError, StateError
from gateway.champion import Live
from gateway.intake import Intake
from gateway.job import Job
from gateway.padding import cut, free
from gateway.quick import QuickJob
from gateway.request import Result
from gateway.rules import Decisions
from gateway.tensor import Array


def fits(intake: Intake, live: Live) -> bool:
    """Whether what was prepared for one version is right for another."""
    return intake is live.intake or intake == live.intake


def by_segment(
    jobs: Sequence[Job], live: Live, outputs: dict[str, Array]
) -> list[tuple[Sequence[Job], Live, dict[str, Array]]]:
    """Return the jobs of a batch by segment, each with its segment's rules and its own rows of the outputs."""
    if not live.rules.apart:
        return [(jobs, live, outputs)]
    parts: list[tuple[Sequence[Job], Live, dict[str, Array]]] = []
    first = 0
    for segment, found in groupby(jobs, key=lambda job: live.rules.segment_of(job.request.said)):
        part = list(found)
        rows = slice(first, first + sum(job.rows for job in part))
        own = {name: array[rows] for name, array in outputs.items()} if live.intake.batched else outputs
        parts.append((part, replace(live, rules=live.rules.of(segment)), own))
        first = rows.stop
    return parts


def common(live: Live, decisions: Decisions | None, compute_seconds: float) -> Result:
    """Return what the results of a batch have in common."""
    return Result(
        model=live.version.model,
        version=live.version.version,
        labels=live.manifest.labels,
        outputs={},
        rows=0,
        decisions=decisions,
        judged=live.judged,
        answer_output=live.manifest.output.tensor,
        on_deferral=live.manifest.on_deferral or "",
        compute_seconds=compute_seconds,
    )


def part(
    shared: Result, outputs: dict[str, Array], job: Job | QuickJob, first: int, start: float, live: Live
) -> Result:
    """Return one job's result: its rows of a batch's."""
    own = {name: array[first : first + job.rows] for name, array in outputs.items()} if live.intake.batched else outputs
    if live.intake.padding is not None and (size := job.prepared.size) is not None:
        padding = live.intake.padding
        own = cut(own, free(live.model.signature.outputs, padding), padding.axis, size)
    return replace(shared, outputs=own, rows=job.rows, first=first, queue_seconds=start - job.since)


def check_size(jobs: int, rows: int, live: Live) -> None:
    """Raise StateError where a batch was formed by the bound of the version before.

    The batcher halves what fails until it fits.
    """
    if jobs > 1 and rows > live.intake.rows_max:
        raise StateError(f"version {live.version.version} takes {live.intake.rows_max} rows at a time, not {rows}")


def check_rows(outputs: dict[str, Array], rows: int, live: Live) -> None:
    """Raise InvalidError where a row of an output could be taken for another caller's."""
    if not live.intake.batched:
        return
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise InvalidError(
                f"inputs: for these the model gives output {name!r} the shape {list(array.shape)}; expected {rows} rows"
            )
