"""All that the certifier knows of one model, built row by row from the chain, the same each time. Pure.

Theory of operation. `Book.take` is the only way in: a row that has just been made goes through it as one that is read
from the disk after a restart does. So there is nothing to save beside the chain, and no moment at which killing the
process could leave the two apart. What the watermark has passed is let go, but for the keys of the epochs under way,
three numbers a record for each process under way, and the newest scores, of which the next thresholds are made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, assert_never

import msgspec

from gateway.certification import Alarm
from gateway.samples import ClosingRow, JoinRow, SampledRecord
from trainer.course import Course, set_out
from trainer.rows import (
    CertificateRow,
    EpochRow,
    LabelRow,
    LostRow,
    ProcessRow,
    RevealRow,
    Row,
    WatermarkRow,
    genesis,
)
from trainer.watermark import Counted, Pending, arrive, count, count_up_to, forget

SURVEY_MAX: Final = 2_000
# Of so many of the newest requests it is known how many are in which segment.
_TRAFFIC_MAX: Final = 50_000.0
# Of more processes of a segment at once nobody would look at the oldest again.
COURSES_MAX: Final = 8
# A gateway that was given up takes another name within seconds of hearing so.
LOST_MAX: Final = 64
# A version that was followed by so many that rang is not gone back to.
ALARMS_MAX: Final = 64
_HOUR: Final = 3_600


# Version, scorer, eligibility, segment.
Surveyed: TypeAlias = tuple[str, str, str, str]


@dataclass(slots=True, kw_only=True, eq=False)
class Epoch:
    """Draws under way: `newest` is the last second that had any."""

    row: EpochRow
    newest: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score of the survey: of so many requests it stands for `weight`; None where a rule kept the answer back."""

    confidence: float | None
    weight: float


@dataclass(slots=True, kw_only=True, eq=False)
class Book:
    """One model's rows, taken in.

    `epochs` are those whose secret is not out, the last one the newest. `survey` has the newest scores by version,
    scorer, eligibility and segment, without a gap by others; `traffic` has the newest requests by segment, as many as
    the reviewed ones stand for. `answering` is the version that answered the newest record. `alarms` are those that
    stand, by version and segment, the newest last, and `renewed` says whether an epoch began since. `lost` are gateways
    that were given up, the newest last, and why.
    """

    model: str
    pending: Pending = field(default_factory=Pending)
    epochs: dict[str, Epoch] = field(default_factory=dict)
    courses: list[Course] = field(default_factory=list)
    processes: int = 0
    newest: int = -1
    rows: int = 0
    records: int = 0
    digest: str = ""
    gateways: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    survey: dict[Surveyed, deque[Score]] = field(default_factory=dict)
    answering: str = ""
    alarms: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    traffic: dict[str, float] = field(default_factory=dict)
    renewed: bool = True
    requests_per_hour: float = 0.0
    _since: int = -1
    _requests: int = 0
    _rules: str = ""
    _answered: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.digest = self.digest or genesis(self.model)

    @property
    def passed(self) -> int:
        """The watermark."""
        return self.pending.passed

    @property
    def epoch(self) -> EpochRow | None:
        """The newest epoch of draws."""
        return next(reversed(self.epochs.values())).row if self.epochs else None

    def take(self, row: Row, digest: str) -> None:
        """Take in the next row of the chain, whose digest is `digest`."""
        match row:
            case SampledRecord():
                self._sampled(row)
            case LabelRow() | ClosingRow():
                self.pending = arrive(self.pending, [row])
            case LostRow():
                note_lost(self.lost, row.gateway, row.why)
                self.pending = arrive(self.pending, [row])
            case JoinRow():
                self.gateways.add(row.gateway)
                self.pending = arrive(self.pending, [row])
            case WatermarkRow():
                self.pending, counted = count_up_to(self.pending, row.second)
                self._counted(counted, row.reached)
            case CertificateRow() | EpochRow() | ProcessRow() | RevealRow():
                self._declared(row, digest)
            case _:
                assert_never(row)
        self.noted(digest)

    def noted(self, digest: str) -> None:
        """Count a row that was taken in."""
        self.rows, self.digest = self.rows + 1, digest

    def move(self, *, reached: int) -> WatermarkRow | None:
        """Move the watermark as far as it goes; returns the row that says so, which is taken in already."""
        epoch, before = self.epoch, self.passed
        if epoch is None:
            return None
        self.pending, counted = count(self.pending, reached=reached, sla_seconds=epoch.sla_seconds)
        if self.passed == before:
            return None
        self._counted(counted, reached)
        return WatermarkRow(second=self.passed, reached=reached)

    def course(self, process: str) -> Course | None:
        """Return a process by its name, None where it is forgotten."""
        return next((course for course in self.courses if course.row.epoch == process), None)

    def share(self, segment: str) -> float | None:
        """Return which share of the newest requests is in a segment; None where there are none."""
        whole = sum(self.traffic.values())
        return self.traffic.get(segment, 0.0) / whole if whole else None

    def _sampled(self, row: SampledRecord) -> None:
        self.newest, self.records = max(self.newest, row.second), self.records + 1
        epoch = self.epochs[row.epoch]
        epoch.newest = max(epoch.newest, row.second)
        if row.scored and row.scored[0].version != self.answering:
            self.answering = row.scored[0].version
            self._calm()
        known = self.pending.record(row.place) is not None
        self.pending = arrive(self.pending, [row])
        if known or not row.drawn:
            return
        self._count_request(row)
        here = {(scored.version, scored.scorer, scored.eligibility): scored for scored in row.scored}
        for surveyed in [surveyed for surveyed in self.survey if surveyed[:3] not in here]:
            # Another version answered, or by other rules: whose requests these were is not for this one to say.
            del self.survey[surveyed]
        for (version, scorer, eligibility), scored in here.items():
            score = Score(confidence=scored.confidence if scored.eligible else None, weight=1 / row.q)
            surveyed = version, scorer, eligibility, row.segment
            self.survey.setdefault(surveyed, deque(maxlen=SURVEY_MAX)).append(score)

    def _count_request(self, row: SampledRecord) -> None:
        """Count a request, and those that it stands for, as one of its segment."""
        rules = row.scored[0].eligibility if row.scored else ""
        if rules != self._rules:
            # These rules may have other segments.
            self.traffic, self._rules = {}, rules
        self.traffic[row.segment] = self.traffic.get(row.segment, 0.0) + 1 / row.q
        if sum(self.traffic.values()) > _TRAFFIC_MAX:
            self.traffic = {segment: requests / 2 for segment, requests in self.traffic.items()}

    def _counted(self, counted: Sequence[Counted], reached: int) -> None:
        """Let what the watermark passed count, and ring where a promise is not kept any more."""
        versions = self._versions(counted)
        for row in self.pending.over:
            self._requested(row)
            for course in self.courses:
                course.close(row, versions[row.second, row.gateway])
        if not counted:
            return
        for course in self.courses:
            course.take(counted)
        # All are asked before one takes back what is proved of the others.
        for course in [course for course in self.courses if course.alarmed(counted)]:
            self._ring(course, reached, counted)

    def _versions(self, counted: Sequence[Counted]) -> dict[tuple[int, str], str]:
        """Return which version answered in each second that the watermark passed, by its records; "": more than one."""
        found: dict[tuple[int, str], set[str]] = {}
        for each in counted:
            if each.record is not None and each.record.scored:
                found.setdefault((each.second, each.gateway), set()).add(each.record.scored[0].version)
        versions = {}
        for row in self.pending.over:
            here = found.get((row.second, row.gateway), set())
            if here:
                self._answered[row.gateway] = here.pop() if len(here) == 1 else ""
            versions[row.second, row.gateway] = self._answered.get(row.gateway, "")
        self._answered = {name: version for name, version in self._answered.items() if name in self.pending.spans}
        return versions

    def _ring(self, rung: Course, reached: int, counted: Sequence[Counted]) -> None:
        """Take back everything that was proved: nobody knows since when it is not so.

        Of a challenger, which answered nobody, only what was proved of itself.
        """
        records = [each.record for each in counted if each.record is not None]
        if rung.row.version not in {scored.version for record in records for scored in record.scored[:1]}:
            rung.revoked = True
            return
        version, segment = rung.row.version, rung.row.segment
        said = (
            f"version {version}{f', segment {segment}' if segment else ''}: more than {rung.row.alpha:.3g} of the "
            f"answers from {rung.row.scorer} {rung.steps[-1].tau:.4g} on were wrong, seen at second {self.passed}"
        )
        self.alarms.pop((version, segment), None)
        self.alarms[version, segment] = Alarm(version=version, segment=segment, said=said, second=reached)
        if len(self.alarms) > ALARMS_MAX:
            outlived = (key for key, alarm in self.alarms.items() if alarm.outlived)
            del self.alarms[next(outlived, next(iter(self.alarms)))]
        self.renewed = False
        self.survey.clear()
        for course in self.courses:
            course.revoked = True

    def _calm(self) -> None:
        """Let alarms go whose own segment is proved anew of the version that answers; see `Alarm`."""
        if not self.alarms:
            return
        proved = {
            course.row.segment
            for course in self.courses
            if course.row.version == self.answering and course.standing is not None
        }
        self.alarms = {
            key: msgspec.structs.replace(alarm, outlived=True) if alarm.segment in proved else alarm
            for key, alarm in self.alarms.items()
            if alarm.segment not in proved or alarm.version != self.answering
        }

    def _requested(self, row: ClosingRow) -> None:
        """Keep how many requests come in an hour, over the hours that the watermark passed."""
        if self._since < 0 or row.second - self._since >= 2 * _HOUR:
            self._since, self._requests = row.second, 0
        self._requests += row.eligible
        seconds = row.second - self._since + 1
        self.requests_per_hour = self._requests * _HOUR / seconds
        if seconds >= _HOUR:
            self._since, self._requests = row.second - seconds // 2, self._requests // 2

    def _declared(self, row: CertificateRow | EpochRow | ProcessRow | RevealRow, digest: str) -> None:
        match row:
            case EpochRow():
                self.epochs[row.epoch] = Epoch(row=row)
                self.renewed = True
            case ProcessRow():
                self.processes += 1
                self.courses = [*_useful(self.courses, self.passed), set_out(row, self.processes)]
            case CertificateRow():
                course = self.course(row.epoch)
                if course is not None:
                    course.certify(row, passed=self.passed, digest=digest)
                    self._calm()
            case RevealRow():
                self.epochs.pop(row.epoch, None)
                self.pending = forget(self.pending, row.epoch)


def note_lost(lost: dict[str, str], gateway: str, why: str) -> None:
    """Remember why a gateway was given up; what was noted long ago makes room."""
    lost[gateway] = why
    while len(lost) > LOST_MAX:
        del lost[next(iter(lost))]


def _useful(courses: Sequence[Course], passed: int) -> list[Course]:
    """Leave out what is over and, where there are too many of a segment, the oldest of it that proved nothing."""
    left = [course for course in courses if not course.revoked and course.expire_second > passed]
    gone: list[Course] = []
    for segment in {course.row.segment for course in left}:
        own = [course for course in left if course.row.segment == segment]
        idle = [course for course in own if not course.steps]
        gone += (idle or own)[: max(0, len(own) - COURSES_MAX + 1)]
    return [course for course in left if course not in gone]
