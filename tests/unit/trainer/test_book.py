"""What is told of the requests beside the proof: how many are in which segment, and whether inputs changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored
from tests.unit.trainer.world import GROUND, TRUE, new_world, rows_of, terms
from trainer.adjudicate import Share
from trainer.book import Book
from trainer.rows import CertificateRow, EpochRow, LabelRow, ProcessRow, Row, WatermarkRow
from trainer.standing import certification, standing

pytestmark = pytest.mark.usefixtures("quick")

_NOBODY = Share(count=0, total=0)


def test_a_segments_requests_are_its_own(tmp_path: Path) -> None:
    """What audits see of them stands for the rest; together they are all that came."""
    north = terms(segment="north", alpha=0.2)
    world = new_world(tmp_path, asked=terms(alpha=0.2), north=north, north_share=0.1, per_second=20, seed=5)
    world.run(300)
    told = [standing(world.book, asked, GROUND, now=world.now, miss=_NOBODY) for asked in (world.asked, north)]
    assert [each.tau is not None for each in told] == [True, True]
    assert [each.share for each in told] == [pytest.approx(0.9, abs=0.03), pytest.approx(0.1, abs=0.03)]
    for each, course in zip(told, world.book.courses, strict=True):
        closed = sum(
            row.eligible
            for row in rows_of(ClosingRow, world)
            if course.row.first_second <= row.second <= world.book.passed
        )
        assert each.requests == pytest.approx(closed * (0.1 if course.row.segment else 0.9), rel=0.3)
    world.asked = terms(alpha=0.2, eligibility="others")
    world.run(1)
    assert sum(world.book.traffic.values()) < 100, "under other rules segments are others"


def test_where_nothing_is_a_segment_the_requests_are_those_that_came(tmp_path: Path) -> None:
    """To the last one, whatever share was audited."""
    world = new_world(tmp_path)
    world.run(200)
    told = standing(world.book, world.asked, GROUND, now=world.now, miss=_NOBODY)
    first = world.book.courses[0].row.first_second
    rows = rows_of(ClosingRow, world)
    assert told.share == 1.0
    assert told.requests == sum(row.eligible for row in rows if first <= row.second <= world.book.passed)


@dataclass(slots=True, kw_only=True)
class _Stream:
    """Rows of one gateway, of which each second has fifty requests and one record; both versions have a process."""

    book: Book = field(default_factory=lambda: Book(model="m"))
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    second: int = 10

    def __post_init__(self) -> None:
        self.take(EpochRow(model="m", epoch="1", commitment="0", sla_seconds=60))
        for version in "12":
            self.take(
                ProcessRow(
                    epoch=f"p{version}",
                    version=version,
                    scorer="margin",
                    segment="",
                    alpha=0.1,
                    delta=0.05,
                    grid=(0.8, 0.5),
                    first_second=10,
                    last_second=1_000_000,
                    eligibility="e",
                )
            )
        self.take(JoinRow(second=10, gateway="a"))

    def take(self, row: Row) -> None:
        self.book.take(row, "")

    def prove(self, version: str) -> None:
        """Say that a threshold of a version was proved."""
        peaks = (4.0, 4.0)
        self.take(
            CertificateRow(
                epoch=f"p{version}", version=version, segment="", log_peaks=peaks, log_evidence=peaks, tau=0.5
            )
        )

    def serve(self, version: str, a: float, seconds: int) -> None:
        """Let `version` answer for so long, with scores of Beta(a, 1)."""
        other = "2" if version == "1" else "1"
        for _ in range(seconds):
            scores = self.rng.beta(a, 1, 50)
            scored = [
                Scored(version=each, scorer="margin", confidence=0.9, prediction=TRUE, eligible=True, eligibility="e")
                for each in (version, other)
            ]
            place = {"second": self.second, "gateway": "a", "counter": self.second}
            self.take(
                SampledRecord(
                    **place,  # type: ignore[arg-type] # two numbers and a name
                    model="m",
                    epoch="1",
                    segment="",
                    request_key=str(self.second),
                    q=0.1,
                    floor=0.1,
                    draw=0.05,
                    scored=tuple(scored),
                )
            )
            self.take(LabelRow(**place, truth=TRUE, wrong=()))  # type: ignore[arg-type] # as above
            histogram = np.bincount(np.minimum((scores * 20).astype(int), 19), minlength=20)
            self.take(
                ClosingRow(
                    second=self.second,
                    gateway="a",
                    eligible=50,
                    answered=0,
                    sampled=1,
                    histogram=tuple(histogram.tolist()),
                )
            )
            self.take(WatermarkRow(second=self.second, reached=self.second))
            self.second += 1

    def share(self, version: str) -> float:
        """What share is audited at least, where `version` is live and the policy says a tenth."""
        found = certification(self.book, [terms(version=version, audit_share=0.1)], self.second, {})
        assert found is not None
        return found.share


def test_a_version_that_was_proved_in_shadow_is_compared_with_its_own_scores() -> None:
    """That it is surer than the one before it is no change of inputs; what changes after that is one."""
    stream = _Stream()
    stream.serve("1", 4, 60)
    for version in "12":
        stream.prove(version)
    stream.serve("1", 4, 60)
    assert stream.share("1") == 0.0
    stream.serve("2", 8, 200)
    assert stream.share("2") == 0.0
    stream.serve("2", 1, 60)
    assert stream.share("2") == pytest.approx(0.3)
    assert stream.share("1") == 0.0, "what the other one saw says nothing of this one"


def test_what_changed_for_the_version_that_was_says_nothing_of_the_one_that_is() -> None:
    """Gone back to, it is compared with what it was proved on, as before."""
    stream = _Stream()
    stream.serve("1", 4, 60)
    stream.prove("1")
    stream.serve("1", 1, 60)
    assert stream.share("1") == pytest.approx(0.3)
    stream.prove("2")
    stream.serve("2", 8, 150)
    assert stream.share("2") == 0.0
    stream.serve("1", 4, 100)
    assert stream.share("1") == 0.0


def test_a_process_that_is_over_or_was_taken_back_asks_for_no_audits() -> None:
    """Its successor begins with what is the case now."""
    stream = _Stream()
    stream.serve("1", 4, 60)
    stream.prove("1")
    stream.serve("1", 1, 60)
    assert stream.share("1") == pytest.approx(0.3)
    stream.second = 1_000_001
    assert stream.share("1") == 0.0
    stream.second = 200
    stream.book.courses[0].revoked = True
    assert stream.share("1") == 0.0
