"""What the certifier tells of a model: the rule for its gateways, and for people how the proof stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp
from typing import Final

import msgspec
import numpy as np

from gateway.certification import Alarm, Certification, Proof, Stage, Standing, Threshold, said_of
from gateway.promise import RISK_MAX, Promise
from gateway.quote import audits_needed
from gateway.segments import REST
from trainer.adjudicate import Reach, Share, judge_reviewers
from trainer.book import Book
from trainer.certifier import Ground
from trainer.course import Course
from trainer.terms import Terms, fits, in_force

# By how much more is audited where inputs are not what they were.
_RAISED: Final = 3.0
# What is expected of a threshold before its audits say more: so many of them, with this share of alpha wrong.
_PRIOR_AUDITS: Final = 100
_PRIOR_SHARE: Final = 0.25
# Further ahead nobody looks while evidence comes in: what is told of it must not keep an alarm waiting.
_AUDITS_FAR: Final = 20_000
_ERRORS_FAR: Final = 500
_NO_GOLD: Final = Share(count=0, total=0)


def certification(book: Book, asked: Sequence[Terms], now: int, lost: Mapping[str, str]) -> Certification | None:
    """Return the rule for gateways, and which of them are `lost`; None where no epoch has begun.

    `asked` has the terms of what answers, the rest's first, then each segment's, and after these those of challengers.
    """
    epoch = book.epoch
    if epoch is None:
        return None
    rest = asked[0]
    own = [terms for terms in asked if terms.version == rest.version]
    # Of versions in shadow, and of one that a gateway has not swapped yet, or could not.
    versions = dict.fromkeys(course.row.version for course in book.courses if course.row.version != rest.version)
    others = {version: _proofs(book, [replace(terms, version=version) for terms in own], now) for version in versions}
    proofs, alarms = _proofs(book, own, now), standing_alarms(book, asked, now)
    return Certification(
        **msgspec.structs.asdict(proofs.pop(REST, Proof())),
        epoch=epoch.epoch,
        scorer=rest.scorer,
        versions=tuple(dict.fromkeys(terms.version for terms in asked)),
        segments=proofs,
        others={version: found for version, found in others.items() if found},
        alarm=said_of(alarms, rest.version, REST),
        alarms=alarms,
        lost=dict(lost),
        share=min(1.0, _RAISED * rest.audit_share) if _other_inputs(book, rest.version, now) else 0.0,
    )


def _other_inputs(book: Book, version: str, now: int) -> bool:
    """Return whether what `version` answers is not like what something that stands was proved on."""
    return any(
        course.raised and course.row.version == version and course.standing is not None and now < course.expire_second
        for course in book.courses
    )


def standing_alarms(book: Book, asked: Sequence[Terms], now: int) -> tuple[Alarm, ...]:
    """Return the alarms that stand under what is asked for, the rest's first.

    One of a segment that the policy has no more would stand for ever. Its requests are the rest's now: it is over where
    the rest has a proof. So would one of the rest where all requests are in segments by now: both are over where all
    that is asked and has any requests has a proof.
    """
    asking = {terms.segment for terms in asked if book.share(terms.segment)}
    proved = {terms.segment for terms in asked if in_force(book, terms, now) is not None}
    calm = bool(asking) and asking <= proved
    segments = {terms.segment for terms in asked} - ({REST} - asking if calm else set())
    rest = REST in proved
    return tuple(alarm for alarm in book.alarms.values() if alarm.segment in segments or not (rest or calm))


def _proofs(book: Book, asked: Sequence[Terms], now: int) -> dict[str, Proof]:
    """Return what is proved and in force of what is asked, by segment."""
    found = {}
    for terms in asked:
        course = in_force(book, terms, now)
        step = course.standing if course is not None else None
        if course is None or step is None:
            continue
        found[terms.segment] = Proof(
            version=course.row.version,
            tau=step.tau,
            certificate=step.name,
            begin_second=step.begin_second,
            expire_second=course.expire_second,
            alpha=course.row.alpha,
            delta=course.row.delta,
            eligibility=course.row.eligibility,
        )
    return found


def standing(
    book: Book,
    terms: Terms,
    ground: Ground,
    *,
    now: int,
    miss: Share,
    gold: Share = _NO_GOLD,
    alarms: Sequence[Alarm] | None = None,
) -> Standing:
    """Return how the proof of what `terms` ask for stands; `gold` is what of gold items reviewers got wrong.

    `alarms` are those that stand (`standing_alarms`); None: all of the book.
    """
    forced = in_force(book, terms, now)
    fitting = [course for course in book.courses if fits(course, terms) and now < course.expire_second]
    # What is told of audits is of the process that goes on: the one in force where it is not over.
    course = forced or (fitting[-1] if fitting else None)
    step = forced.standing if forced is not None else None
    rung = book.alarms.values() if alarms is None else alarms
    alarm = "" if step is not None else said_of(rung, terms.version, terms.segment)
    told = Standing(
        stage=_stage(course, alarm, certified=step is not None),
        alpha=terms.promise.alpha,
        delta=terms.promise.delta,
        version=terms.version,
        epoch=book.epoch.epoch if book.epoch else "",
        watermark=max(0, book.passed),
        miss=miss.estimate if miss.total else None,
        reviewer_error=gold.estimate if gold.total else None,
        digest=book.digest,
        advice=_survey_advice(book, terms, ground, alarm) + _reviewers(gold, terms.promise.alpha),
        requests_per_hour=book.requests_per_hour,
        risks=risks(book, version=terms.version, segment=terms.segment),
        processes=book.processes,
        share=book.share(terms.segment),
    )
    if course is None:
        return told
    aim = aimed_at(course)
    place = course.row.grid.index(step.tau) if step is not None else aim or 0
    needed = _needed(course, aim)
    return msgspec.structs.replace(
        told,
        certificate=step.name if step is not None else "",
        tau=step.tau if step is not None else None,
        coverage=coverages(book, course)[place] if step is not None else None,
        error_bound=course.error_bound() if step is not None else None,
        audits=int(course.audits[place]),
        audits_needed=needed,
        requests=course.requests,
        expire_second=course.expire_second if step is not None else 0,
        thresholds=thresholds(book, course),
        advice=_advice(book, course, aim, needed, alarm) + _reviewers(gold, terms.promise.alpha),
    )


def thresholds(book: Book, course: Course) -> tuple[Threshold, ...]:
    """Return what was counted at each threshold of a process, strictest first."""
    (held, needed), let = course.walked, coverages(book, course)
    return tuple(
        Threshold(
            threshold=threshold,
            log_peak=float(course.state.peaks[place]),
            log_needed=float(needed[place]),
            proved=bool(held[place]),
            coverage=let[place],
            audits=int(course.audits[place]),
            errors=int(course.errors[place]),
            seen_error=float(course.wrong[place] / course.weights[place]) if course.weights[place] > 0 else None,
        )
        for place, threshold in enumerate(course.row.grid)
    )


def coverages(book: Book, course: Course) -> list[float] | list[None]:
    """Return the share of the newest requests that each threshold lets through; None where there are none."""
    scores = book.survey.get((course.row.version, course.row.scorer, course.row.eligibility, course.row.segment), ())
    if not scores:
        return [None] * len(course.row.grid)
    weights = np.array([score.weight for score in scores])
    confidences = np.array([-np.inf if score.confidence is None else score.confidence for score in scores])
    through: list[float] = (weights @ (confidences[:, np.newaxis] >= course.grid) / weights.sum()).tolist()
    return through


def expected_error(course: Course, place: int) -> float:
    """Return what share of the answers from one threshold on is thought wrong, by its audits so far.

    By their weights: below the threshold in force all are reviewed, above it a share, and the unsure ones err more.
    """
    wrong = float(course.wrong[place]) + _PRIOR_AUDITS * _PRIOR_SHARE * course.row.alpha
    return wrong / (float(course.weights[place]) + _PRIOR_AUDITS)


def risks(book: Book, *, version: str = "", segment: str = "") -> tuple[tuple[float, float], ...]:
    """Return coverage and expected error by threshold of a segment's newest process, as `Standing.risks`.

    The newest of `version` where there is one.
    """
    courses = [course for course in book.courses if course.row.segment == segment]
    courses = [course for course in courses if course.row.version == version] or courses
    if not courses:
        return ()
    return tuple(
        (coverage, expected_error(courses[-1], place))
        for place, coverage in enumerate(coverages(book, courses[-1]))
        if coverage is not None
    )


def _stage(course: Course | None, alarm: str, *, certified: bool) -> Stage:
    if certified:
        return Stage.CERTIFIED
    if alarm:
        return Stage.ALARMED
    return Stage.SURVEYING if course is None else Stage.PROVING


def aimed_at(course: Course) -> int | None:
    """Return the place of the threshold that is thought to be certified next; None: the loosest is.

    The loosest of those whose turn it is that is not thought to be wrong too often, or else the first of them.
    """
    found = course.open
    good = [place for place in found if expected_error(course, place) < course.row.alpha]
    return next(iter(good[-1:] or found), None)


def _needed(course: Course, aim: int | None) -> int | None:
    """Return how many more audits the next threshold is expected to need; None: nobody can tell, or all are proved."""
    if aim is None:
        return None
    error = expected_error(course, aim)
    if error >= course.row.alpha:
        return None
    far = min(_AUDITS_FAR, int(_ERRORS_FAR / course.row.alpha))
    promise = Promise(alpha=course.row.alpha, delta=min(RISK_MAX, exp(-course.walked[1][aim])))
    return audits_needed(promise, error, logs=course.state.logs[:, aim], audits_max=far)[0]


def _reviewers(gold: Share, alpha: float) -> str:
    """Return what is to be said of reviewers whose own errors stand, or may stand, in the way of `alpha`."""
    if not gold.total:
        return ""
    found = judge_reviewers(gold, alpha=alpha)
    return "" if found.reach is Reach.REACHABLE else f". {found.advice[0].upper()}{found.advice[1:]}"


def _survey_advice(book: Book, terms: Terms, ground: Ground, alarm: str) -> str:
    first = (
        f"ALARM: {alarm}; everything goes to people until it is proved anew. " if alarm else "nothing is proved yet; "
    )
    seen = len(book.survey.get((terms.version, terms.scorer, terms.eligibility, terms.segment), ()))
    return f"{first}{seen} of {ground.survey_requests} scores of version {terms.version} are in to choose thresholds by"


def _advice(book: Book, course: Course, place: int | None, needed: int | None, said: str) -> str:
    """Return what would change the standing, in a sentence; `place`: of the threshold that is next."""
    alpha = course.row.alpha
    alarm = f"ALARM: {said}. " if said else ""
    waits = sum(len(here) for here in book.pending.records.values())
    waiting = f"; {waits} more wait for their labels" if waits else ""
    if place is None:
        return f"{alarm}everything that may be answered is: the loosest threshold is proved"
    threshold = course.row.grid[place]
    let = coverages(book, course)[place]
    share = "" if let is None else f", which lets {let:.0%} of the requests through"
    if needed is None and expected_error(course, place) < alpha:
        return f"{alarm}to prove {threshold:.4g}{share}, very many more audits are needed{waiting}"
    if needed is None:
        error = expected_error(course, place)
        return (
            f"{alarm}from {threshold:.4g} on{share}, {error:.2%} seem to be wrong, by {int(course.audits[place])} "
            f"audits, which is no less than {alpha:.3g}: a better model or a larger alpha would let more through"
            f"{waiting}"
        )
    return f"{alarm}about {needed} more audits are expected to prove {threshold:.4g}{share}{waiting}"
