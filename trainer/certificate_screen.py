"""How the proof of a model stands, for a person: in words and bars, or as a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from demur.v1 import model_pb2 as pb
from fallback.screen import words
from fallback.wire import answer_from_wire
from gateway.certification import Standing
from gateway.promise import Promise
from trainer.adjudicate import Share
from trainer.book import Book
from trainer.certifier import Ground
from trainer.course import Course
from trainer.standing import coverages, expected_error, standing
from trainer.terms import Terms

_BAR_CHARS: Final = 24
_MINUTE: Final = 60
_UNKNOWN: Final = "-"


def show(book: Book, gold: Share) -> None:
    """Print how `book` stands; `gold`: how many of their answers to gold items reviewers got wrong."""
    courses = _courses(book)
    if not courses:
        epoch = book.epoch
        said = "thresholds are not chosen yet" if epoch is not None else "nothing has begun"
        typer.echo(f"{book.model}: {said}; {book.records} sampled requests of {book.rows} rows")
    for course in courses:
        _show_one(book, course, gold)
    if gold.total:
        typer.echo(
            f"  reviewers got {gold.count} of {gold.total} answers to gold items wrong: {_share(gold.estimate)}, with "
            f"95 % confidence at most {_share(gold.upper)}"
        )
    if courses:
        typer.echo(f"  newest row {book.digest}")


def _show_one(book: Book, course: Course, gold: Share) -> None:
    told = _standing(book, course, gold)
    promise = course.promise
    whose = f", segment {course.row.segment}" if course.row.segment else ""
    typer.echo(
        f"{book.model}, version {course.row.version}{whose}: {told.stage.value}; at most {promise.alpha:.3g} of the "
        f"automatic answers wrong, with confidence {1 - promise.delta:.3g}"
    )
    if told.tau is not None:
        typer.echo(
            f"  from {course.row.scorer} {told.tau:.4g} on it answers: {_share(told.coverage)} of the requests; at "
            f"most {_share(told.error_bound)} of these are wrong"
        )
        typer.echo(f"  certificate {told.certificate}, until {_time(told.expire_second)}")
    typer.echo(f"  {told.audits} audits counted of {told.requests} requests, up to {_time(told.watermark)}")
    typer.echo(f"  {told.advice}")
    typer.echo("")
    for line in _table(book, course):
        typer.echo(line)
    for line in _history(course):
        typer.echo(line)


def show_amended(model: str, found: Sequence[pb.Amendment]) -> None:
    """Print answers that audits found wrong, each with those near to it."""
    if not found:
        typer.echo(f"{model}: audits have found no wrong answer lately")
    for one in found:
        said = words(answer_from_wire(one.answer))
        typer.echo(
            f"{_time(one.amend_time.seconds)}  {one.deferral}: {one.client or 'somebody'} was told {one.predicted} "
            f"({one.confidence:.4f}, version {one.version.rpartition('/')[2]}); people say {said}"
        )
        for near in one.nearest:
            row = f", row {near.row}" if near.row else ""
            typer.echo(
                f"    {near.confidence!r}  {_time(near.answer_time.seconds)}  {near.client or 'somebody'}: "
                f"{near.request or 'a request without a name'}{row}"
            )
        if not one.nearest:
            typer.echo("    nothing like it among the answers that gateways remember")


def draw(book: Book, path: Path) -> None:
    """Draw risk against coverage with the certified point, and the evidence over time, into a PNG file."""
    from matplotlib.figure import Figure

    course = _newest(book)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    if course is not None:
        shares = [share or 0.0 for share in coverages(book, course)]
        risks = [expected_error(course, place) for place in range(len(course.row.grid))]
        left.plot(shares, risks, marker="o", markersize=3, label="estimated from audits")
        left.axhline(course.row.alpha, linestyle="--", color="tab:red", label="promised at most")
        if course.proved:
            place = course.proved - 1
            left.plot([shares[place]], [risks[place]], marker="*", markersize=14, color="tab:green", label="proved")
        _, needed = course.walked
        minutes = [(second - course.row.first_second) / _MINUTE for second, _ in course.shown]
        for place, threshold in enumerate(course.row.grid):
            label = f"{threshold:.3g}" if place in {0, len(course.row.grid) - 1} else None
            way = [values[place] / needed[place] for _, values in course.shown]
            right.plot(minutes, way, linewidth=1, label=label)
        right.axhline(1, linestyle="--", color="tab:red", label="proved from here")
    left.set(xlabel="coverage", ylabel="share of answers wrong", title=f"{book.model}: risk")
    right.set(xlabel="minutes", ylabel="ln K over what it takes", title="evidence by threshold")
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _newest(book: Book) -> Course | None:
    """Return the process to tell of where there is room for one: the rest's that answers, else the newest."""
    return next(iter(_courses(book)), None)


def _courses(book: Book) -> list[Course]:
    """Return the processes to tell of: for each version and segment the one that answers by it, else the newest."""
    now = int(time.time())
    found: dict[tuple[str, str], Course] = {}
    for course in sorted(book.courses, key=lambda course: course.row.segment):
        key, forced = (course.row.segment, course.row.version), found.get((course.row.segment, course.row.version))
        if forced is None or forced.standing is None or now >= forced.expire_second:
            found[key] = course
    return [*found.values()]


def _standing(book: Book, course: Course, gold: Share) -> Standing:
    row = course.row
    terms = Terms(
        promise=Promise(alpha=row.alpha, delta=row.delta),
        version=row.version,
        segment=row.segment,
        scorer=row.scorer,
        eligibility=row.eligibility,
        audit_share=1.0,
        expire_seconds=row.last_second - row.first_second + 1,
    )
    sla = book.epoch.sla_seconds if book.epoch is not None else 0
    ground = Ground(sla_seconds=sla)
    return standing(book, terms, ground, now=int(time.time()), miss=Share(count=0, total=0), gold=gold)


def _table(book: Book, course: Course) -> list[str]:
    lines = ["  threshold  coverage  audits  wrong    risk  evidence"]
    (held, needed), let = course.walked, coverages(book, course)
    for place, threshold in enumerate(course.row.grid):
        way = min(1.0, max(0.0, float(course.state.peaks[place] / needed[place])))
        bar = ("#" * round(way * _BAR_CHARS)).ljust(_BAR_CHARS, ".")
        mark = "  proved" if held[place] else ""
        lines.append(
            f"  {threshold:9.4f}  {_share(let[place]):>8}  {int(course.audits[place]):6d}  "
            f"{int(course.errors[place]):5d}  {_share(expected_error(course, place)):>6}  {bar}{mark}"
        )
    return lines


def _history(course: Course) -> list[str]:
    """Return a line for each threshold that was proved."""
    return [
        f"  from {_time(step.begin_second)} on {step.tau:.4f}, by {step.audits} audits (ln K {step.log_evidence:.2f})"
        for step in course.steps
    ]


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1%}"


def _time(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)) if second else _UNKNOWN
