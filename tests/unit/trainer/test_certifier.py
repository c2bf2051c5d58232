"""The certifier on its path: from requests to a certificate, through every death of its process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.certification import Stage
from gateway.promise import HEAD_COVERAGES
from gateway.quote import known_work
from gateway.samples import ClosingRow, SampledRecord, UnparkedRow
from tests.unit.trainer.world import (
    GROUND,
    MODEL,
    START,
    World,
    new_world,
    rows_of,
    rows_written,
    standing_of,
    verified,
)
from trainer import rows
from trainer.adjudicate import Share
from trainer.certificate import advance, begin, error_bound, tau
from trainer.certifier import News
from trainer.chain import Chain
from trainer.rows import CertificateRow, LabelRow, LostRow, ProcessRow, WatermarkRow
from trainer.standing import standing
from trainer.watermark import Counted, evidence

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(60, "Reviewers get 60.0% of gold items wrong"), (1, "to be sure that alpha"), (None, ""), (0, "")],
)
def test_what_gold_items_say_of_reviewers_is_told_where_it_stands_in_the_way(
    tmp_path: Path, wrong: int | None, said: str
) -> None:
    """With what to do; nobody is told of what does not."""
    world = new_world(tmp_path)
    world.run(1)
    gold = Share(count=wrong or 0, total=0 if wrong is None else {1: 3, 0: 400}.get(wrong, 100))
    told = standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0), gold=gold)
    assert told.reviewer_error == (None if wrong is None else pytest.approx(gold.estimate))
    assert (said in told.advice) if said else ("gold" not in told.advice)
    assert ("train them, or raise alpha" in told.advice) == (wrong == 60)


def test_from_the_first_request_to_a_certificate(tmp_path: Path) -> None:
    """Scores choose the thresholds, a process that begins later judges them, gateways answer by what it proved."""
    world = new_world(tmp_path)
    world.run(1)
    assert world.rule is not None
    assert (world.rule.tau, world.rule.versions) == (None, ("1",))
    assert (
        standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0)).stage is Stage.SURVEYING
    )
    world.run(20)
    assert len(rows_of(ProcessRow, world)) == 1
    world.run(240)
    assert world.rule.tau is not None
    assert 0.25 < world.rule.tau < 0.6, "from .28 on a tenth is wrong"
    assert world.answered > 300
    told = standing_of(world)
    assert told.stage is Stage.CERTIFIED
    assert told.certificate == world.rule.certificate
    assert told.coverage == pytest.approx(1 - world.rule.tau, abs=0.06)
    walked = told.thresholds[len(HEAD_COVERAGES) :]
    assert [each.proved for each in walked] == [each.threshold >= world.rule.tau for each in walked]
    assert all(each.proved == (each.log_peak >= each.log_needed) for each in told.thresholds)
    at_tau = next(each for each in told.thresholds if each.threshold == world.rule.tau)
    assert (at_tau.coverage, at_tau.audits) == (told.coverage, told.audits)
    assert at_tau.seen_error is not None
    assert at_tau.seen_error < 0.1 < (told.thresholds[-1].seen_error or 0.0)
    work = known_work(told, 0.1)
    assert work is not None
    assert work.coverage == pytest.approx(told.coverage, abs=0.25)
    assert (work.requests_per_hour, told.processes) == (world.book.requests_per_hour, 1)
    assert told.error_bound is not None
    assert 0.02 < told.error_bound <= 0.1
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent


def test_a_tau_of_this_path_is_the_one_of_the_certificate_itself(tmp_path: Path) -> None:
    """Every record in its order, straight through `trainer.certificate`: the same evidence, tau and bound."""
    world = new_world(tmp_path)
    world.run(300)
    world.tick()
    world.step()
    course = world.book.courses[0]
    found = rows_written(world)
    last = max(row.second for row in found if isinstance(row, WatermarkRow))
    labels = {row.place: row for row in found if isinstance(row, LabelRow)}
    counted = [
        Counted(second=row.second, gateway=row.gateway, record=row, label=labels.get(row.place))
        for row in sorted((row for row in found if isinstance(row, SampledRecord)), key=lambda row: row.place)
        if row.second <= last
    ]
    columns, grid = evidence(counted, course.row), np.array(course.row.grid)
    state = advance(begin(len(grid)), columns, grid, course.row.alpha)
    np.testing.assert_allclose(state.logs, course.state.logs, atol=1e-9)
    np.testing.assert_allclose(state.peaks, course.state.peaks, atol=1e-9)
    assert world.rule is not None
    assert tau(state, grid, course.row.delta, course.row.shares) == world.rule.tau == course.steps[-1].tau
    assert course.error_bound() == pytest.approx(
        min(
            0.1, error_bound(columns, course.steps[-1].tau, replace(course.promise, delta=course.row.delta / len(grid)))
        )
    ), "for the threshold that these same records chose, among all"


@given(data=st.data())
@pytest.mark.timeout(600)
@settings(max_examples=4, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_killed_at_any_moment_it_goes_on(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Before writing, halfway through it, before telling: nothing is doubled, nothing lost, and verify agrees."""
    world = new_world(tmp_path_factory.mktemp("world"), seed=data.draw(st.integers(0, 1000)))
    for _ in range(80):
        world.tick()
        match data.draw(st.sampled_from(["step", "step", "step", "idle", "unwritten", "torn", "untold"])):
            case "step":
                world.step()
            case "unwritten":
                world.step(write=False)
            case "untold":
                world.step(tell=False)
            case "torn":
                _tear(world, data.draw(st.floats(0, 1)))
            case _:
                pass
    world.run(5)
    known = world.book
    world.kill()
    again = world.book
    assert (again.rows, again.digest, again.passed, again.alarms) == (
        known.rows,
        known.digest,
        known.passed,
        known.alarms,
    )
    for course, before in zip(again.courses, known.courses, strict=True):
        np.testing.assert_allclose(course.state.peaks, before.state.peaks)
        assert course.steps == before.steps
        np.testing.assert_allclose(course.drift.highest, before.drift.highest)
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent
    written = rows_written(world)
    for kind in (SampledRecord, LabelRow, ClosingRow):
        places = [
            (kind, row.second, row.gateway, getattr(row, "counter", 0)) for row in written if isinstance(row, kind)
        ]
        assert len(places) == len(set(places))


def _tear(world: World, share: float) -> None:
    """Have the process die while it writes: a part of what it wrote is on the disk."""
    files = sorted((world.folder / MODEL).glob("*.rows"))
    before = files[-1].stat().st_size if files else 0
    world.step(tell=False)
    for file in sorted((world.folder / MODEL).glob("*.rows"))[-1:]:
        size = file.stat().st_size
        with file.open("rb+") as opened:
            opened.truncate(before + int((size - before - 1) * share) if size > before else size)


def test_what_comes_twice_is_written_once(tmp_path: Path) -> None:
    """A gateway that got no reply sends again what is there already."""
    world = new_world(tmp_path)
    world.run(40)
    world.stream += world.stream[-30:] + world.stream[10:60]
    world.run(20)
    finding = verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)
    assert rows_of(LostRow, world) == []


def test_records_and_labels_that_never_come_are_errors(tmp_path: Path) -> None:
    """Their time passes, they count, and verify comes to the same by itself."""
    world = new_world(tmp_path, hole_share=0.02, never_share=0.02)
    world.run(30)
    world.kill()
    world.run(270)
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent
    course = world.book.courses[0]
    assert world.holes > 10
    assert course.errors[0] > 0.02 * course.audits[0]


def test_what_other_rules_let_through_proves_nothing(tmp_path: Path) -> None:
    """While a rule keeps the unsure ones back, a process of before counts every record as an error."""
    world = new_world(tmp_path)
    world.run(40)
    course = world.book.courses[0]
    for gateway in world.gateways:
        gateway.rules = "only the sure ones"
    world.risk, before = (0.0,) * 10, course.errors.copy()
    world.run(100)
    assert course.row.eligibility == "e"
    assert (course.stale, course.steps) == (True, [])
    assert (course.errors - before > 100).all(), "at every threshold"
    assert world.rule is not None
    assert world.rule.tau is None
    assert not rows_of(CertificateRow, world) or all(
        row.tau is None for row in rows_of(CertificateRow, world) if isinstance(row, CertificateRow)
    )
    assert verified(world).agrees
    assert len(rows_of(ProcessRow, world)) == 1, "another one waits for scores by its own rules"


def test_a_retry_that_is_counted_already_is_not_waited_for(tmp_path: Path) -> None:
    """At another gateway it is recorded once more, and nobody is asked again."""
    world = new_world(tmp_path, label_seconds=0.4)
    world.run(40)
    passed = world.book.passed
    record = next(row for row in rows_written(world) if isinstance(row, SampledRecord) and row.second == passed)
    world.retries.append(record)
    world.run(30)
    assert world.retries == []
    assert world.book.passed > passed + 25
    assert verified(world).agrees


def test_what_was_never_parked_is_an_error_at_once(tmp_path: Path) -> None:
    """Nobody waits for its label; a label that is there stands, and no alarm comes of it."""
    world = new_world(tmp_path, label_seconds=0.4)
    world.run(40)
    labelled = next(row for row in reversed(rows_written(world)) if isinstance(row, LabelRow) and row.truth is not None)
    place = {"second": labelled.second, "gateway": labelled.gateway, "counter": labelled.counter}
    world.stream.append(rows.encode(UnparkedRow(**place)))  # type: ignore[arg-type] # a place
    world.silent = world.unparked = True
    world.run(40)
    assert world.book.passed > START + 75, "long before the labels' time is over"
    unparked = [row for row in rows_of(LabelRow, world) if isinstance(row, LabelRow) and row.second > START + 45]
    assert len(unparked) > 100
    assert {(row.truth, row.wrong, row.reviewed) for row in unparked} == {(None, ("1",), False)}
    assert sum(row == labelled for row in rows_of(LabelRow, world)) == 1
    assert not any(b'"unparked"' in link.body for link in Chain(world.folder, MODEL).links())
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")


def test_without_a_promise_nothing_begins(tmp_path: Path) -> None:
    """What gateways may tell is nothing to go by yet."""
    world = new_world(tmp_path)
    certifier, _ = world.open()
    assert certifier.step(News(now=START, reached=START), []) == []
    assert world.book.epoch is None
