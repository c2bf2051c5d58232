"""What the certifier does next for one model: takes what came, and says which rows are to be written. Pure.

Theory of operation. Each step admits what gateways told, turns outcomes into labels, moves the watermark, and says
what follows: a certificate where a threshold was proved; after an alarm a new epoch, so that nothing of before counts
any more; thresholds from the newest scores and a process that will judge them from the next second on, where none fits
what is asked for. Every row is taken into the `Book` as it is made, and a step reads its own rows from there.

What a gateway tells is checked before it becomes a row, since a row is there for good: what came before is left out,
and a gateway whose rows contradict each other is given up (`LostRow`), as are one that nobody heard of for too long and
one whose clock is far ahead: its seconds would be the watermark's, and nobody else's would ever count again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Final

import numpy as np

from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord, UnparkedRow, commit, epoch_secret
from trainer import labels
from trainer.book import Book, Score, note_lost
from trainer.certificate import grid, log_evidence, tau
from trainer.course import Course
from trainer.drift import renew_second
from trainer.labels import Told
from trainer.rows import (
    Arrived,
    CertificateRow,
    EpochRow,
    Link,
    LostRow,
    ProcessRow,
    RevealRow,
    Row,
    chain,
    encode,
)
from trainer.terms import Terms, delta_of, fits
from trainer.watermark import Span

# What gateways may still draw in an epoch that another one took the place of.
REVEAL_SECONDS: Final = 60
# A process begins in seconds to come, whichever clock they are of.
_AHEAD_SECONDS: Final = 2
# A gateway whose clock is ahead of the server's by more than this is not believed.
AHEAD_SECONDS_MAX: Final = 300
# Empty seconds alone move the watermark this seldom, and what is proved is written down at least this often.
_IDLE_SECONDS: Final = 10
_SHOW_SECONDS: Final = 3_600
_SHOW_GROWTH: Final = 1.1
_SHOW_AUDITS: Final = 20
_AWAY_SECONDS: Final = 60
_WEIGHT_MAX: Final = 1_000
# The next process begins when between this much and that much of a certificate's life is over.
_RENEW_EARLIEST: Final = 0.5
_RENEW_LATEST: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What does not depend on the policy: how long labels may take, how many scores make the thresholds, and when a
    gateway that nobody hears of any more is given up.
    """  # noqa: D205 - one sentence needs two lines

    sla_seconds: int
    survey_requests: int = 200
    lost_seconds: float = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What came since the last step. `now` is the server's time, `reached` up to when outcomes were read."""

    now: int
    reached: int
    arrived: Sequence[Arrived] = ()
    told: Sequence[Told] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Certifier:
    """One model's certifier between two steps. `heard` says when each gateway last came further.

    `waiting` are outcomes whose record has not come yet; they are read again after a restart (`ledger_row`). `notices`
    are sentences for the log of what the last step met.
    """

    book: Book
    secret: bytes
    ground: Ground
    heard: dict[str, int] = field(default_factory=dict)
    waiting: dict[Place, Told] = field(default_factory=dict)
    read_row: int = 0
    agreed: int = 0
    overturned: int = 0
    links: list[Link] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _stepped: int = -1
    _looked: int = -1
    _refused: dict[str, str] = field(default_factory=dict)
    _known: dict[str, bool] = field(default_factory=dict)
    _shown: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def ledger_row(self) -> int:
        """The row of the ledger of outcomes up to which nothing needs to be read again."""
        return min((told.row - 1 for told in self.waiting.values()), default=self.read_row)

    @property
    def lost(self) -> dict[str, str]:
        """Which gateways were given up lately, and why: nothing that they tell under that name counts any more."""
        return {**self.book.lost, **self._refused}

    def step(self, news: News, asked: Sequence[Terms]) -> list[Link]:
        """Take in `news` and do what follows; returns the rows to be written, which the book has already.

        `asked` has the terms of each segment and version; where there are none (the policy promises nothing) what came
        is kept and nothing is begun.
        """
        self.links, self.notices = [], []
        if self.book.epoch is None:
            if not asked:
                return []
            self._begin_epoch(news.now)
        self._arrive(news)
        self._label(news)
        self._unparked(news)
        self._give_up(news.now)
        self._move(news)
        if asked:
            self._draw(news.now)
        for terms in asked:
            self._begin(news.now, terms)
        return self.links

    def put(self, row: Row) -> None:
        """Make a row: link it, take it in."""
        digest = self._link(row)
        self.book.take(row, digest)

    def _link(self, row: Row) -> str:
        body = encode(row)
        digest = chain(self.book.digest, body)
        self.links.append(Link(body=body, digest=digest))
        return digest

    def _arrive(self, news: News) -> None:
        for row in news.arrived:
            if not self._timely(row, news.now):
                continue
            match row:
                case JoinRow() if row.gateway not in self.book.gateways:
                    self.heard[row.gateway] = news.now
                    self.put(row)
                case ClosingRow():
                    self._close(row, news.now)
                case SampledRecord():
                    self._sample(row)
                case _:
                    pass

    def _timely(self, row: Arrived, now: int) -> bool:
        """Return whether what a gateway tells is of now or before; gives one up whose clock is far ahead."""
        if not isinstance(row, JoinRow | ClosingRow | SampledRecord) or row.gateway in self._refused:
            return False
        ahead = row.second - now
        if ahead <= AHEAD_SECONDS_MAX:
            return True
        why = f"its clock is {ahead} seconds ahead, at most {AHEAD_SECONDS_MAX} are believed"
        span = self.book.pending.spans.get(row.gateway)
        if span is None:
            note_lost(self._refused, row.gateway, why)
            self.notices.append(f"nothing that {row.gateway} tells counts: {why}")
        elif not span.lost:
            self._lose(row.gateway, why)
        return False

    def _close(self, row: ClosingRow, now: int) -> None:
        span = self.book.pending.spans.get(row.gateway)
        if span is None or span.lost or not span.live:
            return
        if row.second <= span.closed:
            # A repeat; but its gateway's end is news.
            if row.final:
                self._lose(row.gateway, "ended")
            return
        if not self._fits(row, span):
            self._lose(row.gateway, f"second {row.second} holds more records than it counts")
            return
        self.heard[row.gateway] = now
        self.put(row)

    def _fits(self, row: ClosingRow, span: Span) -> bool:
        """Return whether a gateway's records are as many as it says, in the seconds that it closes."""
        pending = self.book.pending
        if len(pending.records.get((row.second, row.gateway), ())) > row.sampled:
            return False
        return not any(
            gateway == row.gateway and span.closed < second < row.second for second, gateway in pending.records
        )

    def _sample(self, row: SampledRecord) -> None:
        pending, span = self.book.pending, self.book.pending.spans.get(row.gateway)
        if row.second <= pending.passed or pending.record(row.place) is not None:
            return
        if row.model != self.book.model or row.epoch not in self.book.epochs or span is None or not _sound(row):
            self.notices.append(f"a record of {row.gateway}, epoch {row.epoch}, counts for nothing: {row.place}")
            return
        if row.second < span.first or (row.second > span.closed and not span.live):
            return
        closing = pending.closings.get((row.second, row.gateway))
        room = closing.sampled if closing else 0
        if row.second <= span.closed and len(pending.records.get((row.second, row.gateway), ())) >= room:
            self._lose(row.gateway, f"second {row.second} gets more records than it was closed with")
            return
        self.put(row)

    def _label(self, news: News) -> None:
        pending = self.book.pending
        for told in news.told:
            self.read_row = max(self.read_row, told.row)
            place = labels.place(told)
            if place is not None and place[0] > pending.passed:
                self.waiting.setdefault(place, told)
        for place in list(self.waiting):
            record = pending.record(place)
            if place[0] <= pending.passed or place[2] in pending.labels.get((place[0], place[1]), {}):
                del self.waiting[place]
            elif record is not None:
                told = self.waiting.pop(place)
                changed = labels.overturned(told, record)
                self.agreed += changed is not None
                self.overturned += bool(changed)
                self.put(labels.label(told, record))

    def _unparked(self, news: News) -> None:
        """Count as errors, at once, records whose label will never come; one that has a label keeps it."""
        pending = self.book.pending
        for row in news.arrived:
            if not isinstance(row, UnparkedRow):
                continue
            record = pending.record(row.place)
            if record is not None and row.counter not in pending.labels.get((row.second, row.gateway), {}):
                self.put(labels.missing(record))

    def _give_up(self, now: int) -> None:
        away = now - self._stepped if self._stepped >= 0 else 0
        if away > _AWAY_SECONDS:
            # Nobody could be heard, or nobody listened: that is not the gateways' silence.
            self.heard = {gateway: second + away for gateway, second in self.heard.items()}
        self._stepped = now
        for gateway, span in list(self.book.pending.spans.items()):
            if span.live and now - self.heard.setdefault(gateway, now) > self.ground.lost_seconds:
                self._lose(gateway, f"nothing heard for {now - self.heard[gateway]} seconds")

    def _lose(self, gateway: str, why: str) -> None:
        self.notices.append(f"{gateway} is given up, and its seconds that it did not close count for nothing: {why}")
        self.put(LostRow(gateway=gateway, why=why))

    def _move(self, news: News) -> None:
        pending = self.book.pending
        if not pending.records and news.now - self._looked < _IDLE_SECONDS:
            return
        before = self.book.digest
        row = self.book.move(reached=news.reached)
        if row is None:
            return
        self._looked = news.now
        body = encode(row)
        digest = chain(before, body)
        self.links.append(Link(body=body, digest=digest))
        self.book.noted(digest)
        for course in list(self.book.courses):
            self._show(course, news.now)

    def _show(self, course: Course, now: int) -> None:
        """Write down what a process proved: where a looser threshold is through, and on the way as audits come."""
        found = tau(course.state, course.grid, course.row.delta, course.row.shares)
        told = course.steps[-1].tau if course.steps else None
        seen = int(course.audits[course.main])
        when, audits = self._shown.setdefault(course.row.epoch, (now, seen))
        due = seen >= audits * _SHOW_GROWTH + _SHOW_AUDITS or now - when >= _SHOW_SECONDS
        if course.revoked or (found == told and not due):
            return
        self._shown[course.row.epoch] = now, seen
        self.put(
            CertificateRow(
                epoch=course.row.epoch,
                version=course.row.version,
                segment=course.row.segment,
                log_peaks=tuple(course.state.peaks.tolist()),
                log_evidence=tuple(log_evidence(course.state).tolist()),
                tau=found,
            )
        )

    def _draw(self, now: int) -> None:
        """Begin an epoch where an alarm or other labelling times ask for one, and end those before."""
        newest = self.book.epoch
        same = newest is not None and newest.sla_seconds == self.ground.sla_seconds and self._ours(newest)
        if not self.book.renewed or not same:
            self._begin_epoch(now)
        *older, last = self.book.epochs.values()
        for epoch in older:
            over = self.book.passed > max(epoch.newest, int(last.row.epoch)) + REVEAL_SECONDS
            if over and self._ours(epoch.row):
                self.put(RevealRow(epoch=epoch.row.epoch, secret=self._secret(epoch.row.epoch).hex()))

    def _ours(self, epoch: EpochRow) -> bool:
        """Return whether an epoch was begun with the secret that there is: any other one is not there to be revealed.

        Some of its draws may have been made with one, some with the other, so that no secret would fit them all.
        """
        known = self._known.get(epoch.epoch)
        if known is None:
            known = self._known[epoch.epoch] = commit(self._secret(epoch.epoch)) == epoch.commitment
            if not known:
                self.notices.append(
                    f"the secret of the draws is another one than epoch {epoch.epoch} was begun with; another epoch "
                    "takes its place, and its draws can never be checked"
                )
        return known

    def _secret(self, epoch: str) -> bytes:
        return epoch_secret(self.secret, model=self.book.model, epoch=epoch)

    def _begin_epoch(self, now: int) -> None:
        newest = self.book.epoch
        # Its name is the second it began at, so that a ledger that is begun anew never draws as an old one did.
        name = str(now if newest is None else max(now, int(newest.epoch) + 1))
        commitment = commit(self._secret(name))
        self.put(
            EpochRow(model=self.book.model, epoch=name, commitment=commitment, sla_seconds=self.ground.sla_seconds)
        )

    def _begin(self, now: int, terms: Terms) -> None:
        fitting = [course for course in self.book.courses if fits(course, terms) and not course.stale]
        if fitting and now < self._renew_second(fitting[-1]):
            return
        scores = self.book.survey.get((terms.version, terms.scorer, terms.eligibility, terms.segment), ())
        confidences = spread(scores)
        if len(scores) < self.ground.survey_requests or not len(confidences):
            return
        if fitting:
            self._begin_epoch(now)
        self.put(self._process(now, terms, confidences))

    def _process(self, now: int, terms: Terms, confidences: np.typing.NDArray[np.float64]) -> ProcessRow:
        book = self.book
        number = book.processes + 1
        first = max(now, book.newest, book.passed) + _AHEAD_SECONDS
        chosen = grid(confidences)
        return ProcessRow(
            epoch=f"{number}-{book.digest[:8]}",
            version=terms.version,
            scorer=terms.scorer,
            segment=terms.segment,
            alpha=terms.promise.alpha,
            delta=delta_of(terms, number),
            grid=tuple(chosen.thresholds.tolist()),
            shares=chosen.shares,
            first_second=first,
            last_second=first + terms.expire_seconds - 1,
            eligibility=terms.eligibility,
        )

    def _renew_second(self, course: Course) -> int:
        """Return when the process after `course` is to begin."""
        life = course.row.last_second - course.row.first_second + 1
        latest = course.row.first_second + int(_RENEW_LATEST * life)
        if not course.steps:
            return course.expire_second
        newest = course.steps[-1]
        since = max(1, self.book.passed - course.row.first_second)
        rate = course.audits[course.row.grid.index(newest.tau)] / since
        due = renew_second(expire_second=course.expire_second, audits=newest.audits, audits_per_second=max(rate, 1e-9))
        return min(latest, max(due, course.row.first_second + int(_RENEW_EARLIEST * life)))


def spread(scores: Sequence[Score]) -> np.typing.NDArray[np.float64]:
    """Return the confidences of a survey, each as often as it stands for requests."""
    eligible = [(score.confidence, score.weight) for score in scores if score.confidence is not None]
    times = [min(_WEIGHT_MAX, ceil(weight - 1e-9)) for _, weight in eligible]
    return np.repeat(np.array([confidence for confidence, _ in eligible], np.float64), times)


def _sound(row: SampledRecord) -> bool:
    return (
        0 < row.floor <= row.q <= 1 and 0 <= row.draw < 1 and all(isfinite(scored.confidence) for scored in row.scored)
    )
