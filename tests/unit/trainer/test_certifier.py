from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.certification import Stage, Standing
from gateway.promise import lifetime_delta
from gateway.quote import known_work
from gateway.samples import ClosingRow, JoinRow, SampledRecord, UnparkedRow
from tests.unit.trainer.world import GROUND, MODEL, SECRET, START, Gateway, World, terms
from trainer import rows
from trainer.adjudicate import Share
from trainer.certificate import advance, begin, error_bound, tau
from trainer.certifier import News
from trainer.chain import Chain
from trainer.rows import CertificateRow, EpochRow, LabelRow, LostRow, ProcessRow, RevealRow, Row, WatermarkRow
from trainer.standing import standing
from trainer.terms import in_force
from trainer.verify import Finding, verify
from trainer.watermark import Counted, evidence


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests kill is the process, not the machine: they need not wait for the disk."""
    monkeypatch.setattr("trainer.chain.os.fsync", lambda _: None)


def _world(folder: Path, **changes: object) -> World:
    return World(**{"folder": folder / "chains", "asked": terms(), **changes})  # type: ignore[arg-type] # a test's own words


@pytest.fixture(scope="module")
def proved_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which something is proved, for `_again`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.chain.os.fsync", lambda _: None)
        world = _world(tmp_path_factory.mktemp("proved"))
        world.run(260)
    world.kill()
    return world


def _again(world: World, folder: Path) -> World:
    """Return a world that goes on from where `world` is, as if its certifier had just been started."""
    mine = deepcopy(world)
    mine.folder = folder / "chains"
    shutil.copytree(world.folder, mine.folder)
    return mine


def _verified(world: World) -> Finding:
    return verify(MODEL, Chain(world.folder, MODEL).links())


def _written(world: World) -> list[Row]:
    return [rows.decode(link.body) for link in Chain(world.folder, MODEL).links()]


R = TypeVar("R", bound=Row)


def _of(kind: type[R], world: World) -> list[R]:
    return [row for row in _written(world) if isinstance(row, kind)]


def _standing(world: World) -> Standing:
    return standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(60, "Reviewers get 60.0% of gold items wrong"), (1, "to be sure that alpha"), (None, ""), (0, "")],
)
def test_what_gold_items_say_of_reviewers_is_told_where_it_stands_in_the_way(
    tmp_path: Path, wrong: int | None, said: str
) -> None:
    """With what to do; nobody is told of what does not."""
    world = _world(tmp_path)
    world.run(1)
    gold = Share(count=wrong or 0, total=0 if wrong is None else {1: 3, 0: 400}.get(wrong, 100))
    told = standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0), gold=gold)
    assert told.reviewer_error == (None if wrong is None else pytest.approx(gold.estimate))
    assert (said in told.advice) if said else ("gold" not in told.advice)
    assert ("train them, or raise alpha" in told.advice) == (wrong == 60)


def test_from_the_first_request_to_a_certificate(tmp_path: Path) -> None:
    """Scores choose the thresholds, a process that begins later judges them, gateways answer by what it proved."""
    world = _world(tmp_path)
    world.run(1)
    assert world.rule is not None
    assert (world.rule.tau, world.rule.versions) == (None, ("1",))
    assert (
        standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0)).stage is Stage.SURVEYING
    )
    world.run(20)
    assert len(_of(ProcessRow, world)) == 1
    world.run(240)
    assert world.rule.tau is not None
    assert 0.25 < world.rule.tau < 0.6, "from .28 on a tenth is wrong"
    assert world.answered > 300
    told = _standing(world)
    assert told.stage is Stage.CERTIFIED
    assert told.certificate == world.rule.certificate
    assert told.coverage == pytest.approx(1 - world.rule.tau, abs=0.06)
    assert [each.proved for each in told.thresholds] == [each.threshold >= world.rule.tau for each in told.thresholds]
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
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent


def test_a_tau_of_this_path_is_the_one_of_the_certificate_itself(tmp_path: Path) -> None:
    """Every record in its order, straight through `trainer.certificate`: the same evidence, tau and bound."""
    world = _world(tmp_path)
    world.run(300)
    world.tick()
    world.step()
    course = world.book.courses[0]
    found = _written(world)
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
    assert tau(state, grid, course.row.delta) == world.rule.tau == course.steps[-1].tau
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
    world = _world(tmp_path_factory.mktemp("world"), seed=data.draw(st.integers(0, 1000)))
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
    assert (again.rows, again.digest, again.passed, again.alarm) == (
        known.rows,
        known.digest,
        known.passed,
        known.alarm,
    )
    for course, before in zip(again.courses, known.courses, strict=True):
        np.testing.assert_allclose(course.state.peaks, before.state.peaks)
        assert course.steps == before.steps
        np.testing.assert_allclose(course.drift.highest, before.drift.highest)
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent
    written = _written(world)
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


def test_a_gateway_that_nobody_hears_of_is_given_up(tmp_path: Path) -> None:
    """The watermark waits for it as long as it may be on its way, and then goes on without it."""
    world = _world(tmp_path)
    world.run(30)
    world.gateways[1].dead = True
    world.run(60)
    assert world.book.passed < START + 40
    world.run(130)
    assert [row.gateway for row in _of(LostRow, world)] == ["b"]
    assert world.book.passed > START + 130
    assert _verified(world).agrees


def test_a_gateway_that_was_given_up_is_told_and_counts_again_under_another_name(tmp_path: Path) -> None:
    """It hears why its name is lost; what it tells under the next one is evidence, and verify agrees."""
    world = _world(tmp_path)
    world.run(20)
    world.gateways[1].cut_off = True
    world.run(130)
    assert world.rule is not None
    assert world.rule.lost == {"b": "nothing heard for 121 seconds"}
    world.kill()
    world.run(1)
    assert [*world.rule.lost] == ["b"]
    gateway = world.gateways[1]
    gateway.cut_off, gateway.name, gateway.joined = False, "b2", False
    world.run(120)
    assert {row.gateway for row in _of(SampledRecord, world) if isinstance(row, SampledRecord)} == {"a", "b", "b2"}
    assert world.book.passed > START + 190
    assert _verified(world).agrees


def test_a_certifier_that_was_away_takes_nobody_for_lost(tmp_path: Path) -> None:
    """An hour without Redis is not the gateways' silence; what they kept meanwhile counts."""
    world = _world(tmp_path)
    world.run(30)
    for _ in range(200):
        world.tick()
    world.run(30)
    assert _of(LostRow, world) == []
    assert _verified(world).agrees
    assert _verified(world).records == world.sent


def test_rows_that_contradict_each_other_cost_their_gateway_its_say_and_nothing_else(tmp_path: Path) -> None:
    """More records than it counted, seconds out of order, a stranger, an epoch nobody began: verify still agrees."""
    world = _world(tmp_path)
    world.run(20)
    record = next(row for row in reversed(_written(world)) if isinstance(row, SampledRecord) and row.gateway == "a")
    closing = next(row for row in reversed(_written(world)) if isinstance(row, ClosingRow) and row.gateway == "a")
    odd: list[Row] = [
        msgspec.structs.replace(record, epoch="elsewhere", counter=10_001),
        msgspec.structs.replace(record, model="other", counter=10_002),
        msgspec.structs.replace(record, gateway="nobody"),
        msgspec.structs.replace(record, floor=1.0, q=0.5, counter=10_003),
        msgspec.structs.replace(record, second=record.second + 1, counter=10_004),
        msgspec.structs.replace(closing, second=closing.second + 1, sampled=0),
        record,
        closing,
        JoinRow(second=record.second, gateway="a"),
    ]
    world.stream += [rows.encode(row) for row in odd]
    world.run(200)
    assert [row.gateway for row in _of(LostRow, world)] == ["a"]
    assert _verified(world).agrees
    assert world.rule is not None
    assert world.rule.tau is not None, "the other one's evidence is enough"


def test_what_comes_twice_is_written_once(tmp_path: Path) -> None:
    """A gateway that got no reply sends again what is there already."""
    world = _world(tmp_path)
    world.run(40)
    world.stream += world.stream[-30:] + world.stream[10:60]
    world.run(20)
    finding = _verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)
    assert _of(LostRow, world) == []


def test_a_segment_has_a_proof_of_its_own(tmp_path: Path) -> None:
    """Each by its own requests and alpha: the one that errs more gets a stricter threshold, and verify agrees."""
    world = _world(tmp_path, asked=terms(alpha=0.2), north=terms(alpha=0.05, segment="north"), per_second=10)
    world.run(300)
    processes = {row.segment: row for row in _of(ProcessRow, world)}
    assert {segment: row.alpha for segment, row in processes.items()} == {"": 0.2, "north": 0.05}
    assert world.rule is not None
    north = world.rule.segments["north"]
    assert (north.alpha, north.version, north.eligibility) == (0.05, "1", "e")
    assert world.rule.tau is not None
    assert north.tau is not None
    assert north.tau > world.rule.tau
    assert north.certificate != world.rule.certificate
    assert {row.segment for row in _of(SampledRecord, world)} == {"", "north"}
    counted = {course.row.segment: course.audits[-1] for course in world.book.courses}
    assert all(audits > 100 for audits in counted.values())
    assert sum(counted.values()) <= world.book.records
    assert _verified(world).agrees


def test_a_challenger_is_certified_in_shadow_and_answers_by_it_once_promoted(tmp_path: Path) -> None:
    """From the same reviews, by its own confidences and errors; before that its proof answers nobody."""
    better = terms(alpha=0.05, version="2")
    world = _world(tmp_path, asked=terms(alpha=0.05), challenger=better, per_second=10, risk=(0.4,) * 10)
    world.run(200)
    assert world.rule is not None
    assert (world.rule.versions, world.rule.tau) == (("1", "2"), None), "the champion proves nothing"
    course = in_force(world.book, better, world.now)
    assert course is not None
    assert course.standing is not None
    ready = world.rule.proof("", "2")
    assert ready is not None
    assert ready.certificate == course.standing.name, "there before it is live"
    world.asked, world.challenger = better, None
    for gateway in world.gateways:
        gateway.version = "2"
    world.risk = (0.0,) * 10
    world.run(1)
    assert (world.rule.version, world.rule.certificate) == ("2", course.standing.name)
    world.run(30)
    assert world.answered > 100
    assert _verified(world).agrees


def test_a_challenger_that_grows_worse_takes_nothing_back_but_its_own(tmp_path: Path) -> None:
    """It answered nobody: the champion goes on, and the challenger begins anew."""
    world = _world(tmp_path, asked=terms(alpha=0.2), challenger=terms(alpha=0.2, version="2"), per_second=10)
    world.run(200)
    assert world.rule is not None
    before = world.rule
    assert before.tau is not None
    world.challenger_risk = 0.9
    proved = in_force(world.book, terms(alpha=0.2, version="2"), world.now)
    assert proved is not None
    world.run_until(lambda: proved.revoked, most=400)
    world.run(1)
    assert (world.rule.alarm, world.rule.certificate[:2], world.rule.epoch) == (
        "",
        before.certificate[:2],
        before.epoch,
    )
    assert world.rule.tau is not None
    assert _verified(world).agrees


def test_an_alarm_takes_everything_back_and_begins_anew(tmp_path: Path, proved_world: World) -> None:
    """More errors than promised: no tau at once, a new epoch and process, the old secret out, and then proved again."""
    world = _again(proved_world, tmp_path)
    assert world.rule is not None
    assert world.rule.tau is not None
    good, world.risk = world.risk, (0.7,) * 10
    for _ in range(200):
        world.run(1)
        if world.rule.alarm:
            break
    assert "version 1" in world.rule.alarm
    assert world.rule.tau is None
    assert world.rule.threshold("1", world.now) is None
    assert len(_of(EpochRow, world)) == 2
    assert _standing(world).stage is Stage.ALARMED
    world.kill()
    assert world.book.alarm == world.rule.alarm, "so it is after a restart"
    world.risk = good
    world.run_until(lambda: world.rule is not None and not world.rule.alarm, most=400)
    assert world.rule.tau is not None
    world.run(61)
    first = _of(EpochRow, world)[0]
    assert isinstance(first, EpochRow)
    assert [row.epoch for row in _of(RevealRow, world) if isinstance(row, RevealRow)] == [first.epoch]
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")


def test_people_who_are_away_are_no_alarm(tmp_path: Path, proved_world: World) -> None:
    """Labels that never come count against the proof; that the promise is broken they do not say."""
    world = _again(proved_world, tmp_path)
    world.silent = True
    world.run(200)
    assert world.rule is not None
    assert world.rule.alarm == ""
    assert world.rule.tau is not None
    assert _verified(world).agrees


def test_a_new_version_is_proved_by_a_process_of_its_own(tmp_path: Path, proved_world: World) -> None:
    """Its predecessor's certificate says nothing of it; back to that one, what was proved of it still stands."""
    world = _again(proved_world, tmp_path)
    assert world.rule is not None
    proved = world.rule.tau
    world.asked = terms(version="2")
    world.run(1)
    assert (world.rule.version, world.rule.threshold("2", world.now + 9)) == ("", None)
    before = world.rule.proof("", "1")
    assert before is not None
    assert before.threshold("1", world.now + 9) == proved, "for gateways that have not swapped yet"
    for gateway in world.gateways:
        gateway.version = "2"
    world.run_until(lambda: world.rule is not None and world.rule.version == "2", most=300)
    assert world.rule.tau is not None
    assert len(_of(ProcessRow, world)) == 2
    world.asked = terms()
    for gateway in world.gateways:
        gateway.version = "1"
    world.run(3)
    assert (world.rule.version, world.rule.tau) == ("1", proved)
    world.run(60)
    processes = [row for row in _of(ProcessRow, world) if isinstance(row, ProcessRow)]
    assert [row.version for row in processes] == ["1", "2", "1"], (
        "for the first one counted the other's answers as errors"
    )
    assert proved is not None
    world.risk = (0.01,) * 10
    world.run(150)
    stale, fresh = world.book.courses[0], world.book.courses[-1]
    assert stale.stale
    assert world.rule.certificate == fresh.steps[-1].name
    assert world.rule.tau < proved, "the old one would have stood still"
    assert _verified(world).agrees


def test_another_promise_is_another_process(tmp_path: Path, proved_world: World) -> None:
    """A stricter one takes tau back at once; a looser one keeps it until the new process has proved its own."""
    world = _again(proved_world, tmp_path)
    assert world.rule is not None
    proved = world.rule.tau
    world.asked = terms(0.3)
    world.run(2)
    assert world.rule.tau == proved
    world.run(150)
    assert world.rule.tau is not None
    assert proved is not None
    assert world.rule.tau < proved
    world.asked = terms(0.05)
    world.run(1)
    assert world.rule.tau is None
    world.asked = terms(0.3, eligibility="others")
    world.run(1)
    assert world.rule.tau is None
    assert _verified(world).agrees


def test_a_certificate_ends_and_the_next_one_is_there(tmp_path: Path) -> None:
    """A fresh process begins before, with an epoch of its own; the old one answers until its end."""
    world = _world(tmp_path, asked=terms(expire_seconds=600))
    world.run(590)
    processes = [row for row in _of(ProcessRow, world) if isinstance(row, ProcessRow)]
    assert len(processes) == 2
    assert len(_of(EpochRow, world)) == 2
    assert len(_of(RevealRow, world)) == 1
    assert len(world.book.pending.keys) == 1, "what the revealed epoch's keys were is forgotten"
    assert processes[0].first_second + 300 <= processes[1].first_second <= processes[0].first_second + 540
    assert world.rule is not None
    assert world.rule.expire_second == processes[0].last_second + 1
    world.run(processes[0].last_second - world.now + 5)
    assert world.rule.expire_second == processes[1].last_second + 1
    assert world.rule.tau is not None, "without a gap"
    assert _verified(world).agrees


def test_over_a_lifetime_the_processes_share_delta(tmp_path: Path) -> None:
    """The k-th has 6 delta / (pi^2 k^2)."""
    world = _world(tmp_path, asked=terms(lifetime=True))
    world.run(30)
    world.asked = replace(terms(0.2), lifetime=True)
    world.run(3)
    processes = [row for row in _of(ProcessRow, world) if isinstance(row, ProcessRow)]
    assert [row.delta for row in processes] == [lifetime_delta(0.05, 1), lifetime_delta(0.05, 2)]
    world.run(20)
    assert len(_of(ProcessRow, world)) == 2


def test_labels_that_may_take_longer_are_another_epoch(tmp_path: Path) -> None:
    """The time for a label is fixed beforehand; the process goes on."""
    world = _world(tmp_path)
    world.run(40)
    world.ground = replace(GROUND, sla_seconds=90)
    world.kill()
    world.run(150)
    epochs = [row for row in _of(EpochRow, world) if isinstance(row, EpochRow)]
    assert [row.sla_seconds for row in epochs] == [60, 90]
    assert len(_of(ProcessRow, world)) == 1
    assert _verified(world).agrees


def test_a_gateway_that_was_cut_off_brings_its_seconds_later(tmp_path: Path) -> None:
    """The watermark waits; its records count, in their place."""
    world = _world(tmp_path)
    world.run(60)
    world.gateways[0].cut_off = True
    world.run(50)
    assert world.book.passed <= START + 62
    world.gateways[0].cut_off = False
    world.run(70)
    assert _of(LostRow, world) == []
    assert world.book.passed > START + 120
    finding = _verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)


def test_other_inputs_raise_the_share_of_audits(tmp_path: Path, proved_world: World) -> None:
    """Confidences spread otherwise than when it was proved: more is audited, tau stays."""
    world = _again(proved_world, tmp_path)
    course = in_force(world.book, world.asked, world.now)
    assert course is not None
    assert world.rule is not None
    assert world.rule.share == 0.0
    course.recent[:] = 0
    course.recent[3] = 1_995
    world.run(80)
    assert world.rule.share == pytest.approx(0.9)
    assert world.rule.tau is not None


def test_a_gateway_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Its last row says so, even where an earlier one closed that second already."""
    world = _world(tmp_path)
    world.run(20)
    closing = next(row for row in reversed(_written(world)) if isinstance(row, ClosingRow) and row.gateway == "a")
    world.gateways[0].dead = True
    world.stream.append(rows.encode(msgspec.structs.replace(closing, final=True)))
    world.gateways.append(Gateway(name="c"))
    world.run(100)
    assert world.book.passed > START + 40
    finding = _verified(world)
    assert (finding.agrees, finding.records) == (True, world.sent)


def test_records_and_labels_that_never_come_are_errors(tmp_path: Path) -> None:
    """Their time passes, they count, and verify comes to the same by itself."""
    world = _world(tmp_path, hole_share=0.02, never_share=0.02)
    world.run(30)
    world.kill()
    world.run(270)
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert finding.records == world.sent
    course = world.book.courses[0]
    assert world.holes > 10
    assert course.errors[0] > 0.02 * course.audits[0]


def test_what_other_rules_let_through_proves_nothing(tmp_path: Path) -> None:
    """While a rule keeps the unsure ones back, a process of before counts every record as an error."""
    world = _world(tmp_path)
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
    assert not _of(CertificateRow, world) or all(
        row.tau is None for row in _of(CertificateRow, world) if isinstance(row, CertificateRow)
    )
    assert _verified(world).agrees
    assert len(_of(ProcessRow, world)) == 1, "another one waits for scores by its own rules"


def test_a_retry_that_is_counted_already_is_not_waited_for(tmp_path: Path) -> None:
    """At another gateway it is recorded once more, and nobody is asked again."""
    world = _world(tmp_path, label_seconds=0.4)
    world.run(40)
    passed = world.book.passed
    record = next(row for row in _written(world) if isinstance(row, SampledRecord) and row.second == passed)
    world.retries.append(record)
    world.run(30)
    assert world.retries == []
    assert world.book.passed > passed + 25
    assert _verified(world).agrees


def test_what_was_never_parked_is_an_error_at_once(tmp_path: Path) -> None:
    """Nobody waits for its label; a label that is there stands, and no alarm comes of it."""
    world = _world(tmp_path, label_seconds=0.4)
    world.run(40)
    labelled = next(row for row in reversed(_written(world)) if isinstance(row, LabelRow) and row.truth is not None)
    place = {"second": labelled.second, "gateway": labelled.gateway, "counter": labelled.counter}
    world.stream.append(rows.encode(UnparkedRow(**place)))  # type: ignore[arg-type] # a place
    world.silent = world.unparked = True
    world.run(40)
    assert world.book.passed > START + 75, "long before the labels' time is over"
    unparked = [row for row in _of(LabelRow, world) if isinstance(row, LabelRow) and row.second > START + 45]
    assert len(unparked) > 100
    assert {(row.truth, row.wrong, row.reviewed) for row in unparked} == {(None, ("1",), False)}
    assert sum(row == labelled for row in _of(LabelRow, world)) == 1
    assert not any(b'"unparked"' in link.body for link in Chain(world.folder, MODEL).links())
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")


def test_a_clock_that_is_far_ahead_stops_nobody_else(tmp_path: Path) -> None:
    """Its gateway is given up, with a word, before its second is anybody's; one that begins so never joins."""
    world = _world(tmp_path, label_seconds=0.4)
    world.run(20)
    world.gateways[0].skew = 86_400
    world.gateways.append(Gateway(name="c", skew=86_400))
    said, why = [], "its clock is 86400 seconds ahead, at most 300 are believed"
    for _ in range(20):
        world.run(1)
        said += world.open()[0].notices
    assert [row.gateway for row in _of(LostRow, world)] == ["a"]
    assert [notice for notice in said if "ahead" in notice] == [
        "a is given up, and its seconds that it did not close count for nothing: " + why,
        "nothing that c tells counts: " + why,
    ]
    assert "c" not in world.book.gateways
    world.run(200)
    assert START + 230 < world.book.passed <= world.now + 3
    assert world.book.newest <= world.now + 3
    assert world.rule is not None
    assert world.rule.tau is not None, "the other one's evidence is enough"
    assert _verified(world).agrees


def test_what_a_process_spent_already_is_not_there_for_a_lifetime(tmp_path: Path) -> None:
    """Asked to share delta over all processes, one that took the whole of it keeps no promise any more."""
    world = _world(tmp_path)
    world.run(200)
    assert world.rule is not None
    assert world.rule.tau is not None
    world.asked = terms(lifetime=True)
    world.run(3)
    assert world.rule.tau is None
    world.asked = terms()
    world.run(3)
    assert world.rule.tau is not None


def test_another_secret_is_another_epoch_and_the_old_one_is_never_told(tmp_path: Path) -> None:
    """Draws with both would fit neither; what is proved goes on, and the ledger of honest people agrees."""
    world = _world(tmp_path)
    world.run(40)
    world.secret = SECRET[::-1]
    world.run(5)
    world.kill()
    world.run(1)
    assert any("the secret of the draws" in notice for notice in world.open()[0].notices)
    world.run(120)
    first, second = (row.epoch for row in _of(EpochRow, world) if isinstance(row, EpochRow))
    assert world.rule is not None
    assert world.rule.epoch == second
    assert _of(RevealRow, world) == []
    assert len(_of(ProcessRow, world)) == 1
    world.ground = replace(GROUND, sla_seconds=90)
    world.kill()
    world.run(200)
    assert [row.epoch for row in _of(RevealRow, world) if isinstance(row, RevealRow)] == [second]
    finding = _verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert first in finding.unrevealed


def test_without_a_promise_nothing_begins(tmp_path: Path) -> None:
    """What gateways may tell is nothing to go by yet."""
    world = _world(tmp_path)
    certifier, _ = world.open()
    assert certifier.step(News(now=START, reached=START), []) == []
    assert world.book.epoch is None
