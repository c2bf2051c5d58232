"""What a policy asks of a process, and which of the processes under way may answer by it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.promise import Promise, lifetime_delta
from trainer.book import Book
from trainer.course import Course


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a policy asks for, of which version and segment: see `gateway.policy.Policy`."""

    promise: Promise
    version: str
    segment: str = ""
    scorer: str
    eligibility: str
    audit_share: float
    expire_seconds: int
    lifetime: bool = False


def fits(course: Course, terms: Terms) -> bool:
    """Return whether a process judges exactly what is asked for."""
    return keeps(course, terms) and (course.row.alpha, course.row.delta) == (
        terms.promise.alpha,
        delta_of(terms, course.number),
    )


def keeps(course: Course, terms: Terms) -> bool:
    """Return whether what a process proves keeps the promise, and perhaps more than that."""
    row, promise = course.row, terms.promise
    same = (row.version, row.segment, row.scorer, row.eligibility) == (
        terms.version,
        terms.segment,
        terms.scorer,
        terms.eligibility,
    )
    # What it may spend, not what all may: over a lifetime, one that took all of delta leaves nothing for the others.
    enough = row.alpha <= promise.alpha and row.delta <= delta_of(terms, course.number)
    return same and not course.revoked and enough


def in_force(book: Book, terms: Terms, now: int) -> Course | None:
    """Return the process whose threshold answers at `now`: the oldest that fits and has proved something.

    Until it ends, for one begun anew first proves a strict threshold, and would have people asked again what the one
    before it may still answer; which one it is was fixed before either saw a label. Where none fits exactly, one that
    keeps more than was promised. One that other versions answered in the time of stands worse and worse, and makes room
    as soon as a later one has proved as much.
    """
    standing = [course for course in book.courses if course.standing is not None and now < course.expire_second]
    exact = [course for course in standing if fits(course, terms)]
    found = exact or [course for course in standing if keeps(course, terms)]
    return next((course for place, course in enumerate(found) if not _overtaken(course, found[place + 1 :])), None)


def _overtaken(course: Course, later: Sequence[Course]) -> bool:
    """Return whether a process that counted others' answers has a later one beside it that proved no less."""
    mine = course.standing
    return course.stale and any(
        mine is not None and other.standing is not None and other.standing.tau <= mine.tau for other in later
    )


def delta_of(terms: Terms, number: int) -> float:
    """Return what the model's `number`-th process may spend."""
    return lifetime_delta(terms.promise.delta, number) if terms.lifetime else terms.promise.delta
