"""What begins a process or an epoch anew: alarms, versions, promises, ends; and what each proves."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace
from math import log
from pathlib import Path

import pytest

from gateway.certification import Stage
from gateway.promise import lifetime_delta
from gateway.samples import SampledRecord
from tests.unit.trainer.world import GROUND, MODEL, SECRET, World, new_world, rows_of, standing_of, terms, verified
from trainer import certifier
from trainer.certificate import Grid, grid
from trainer.chain import Chain
from trainer.rows import EpochRow, ProcessRow, RevealRow, decode, genesis, link
from trainer.standing import aimed_at
from trainer.terms import in_force

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def proved_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which something is proved, for `_again`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.chain.os.fsync", lambda _: None)
        world = new_world(tmp_path_factory.mktemp("proved"))
        world.run(260)
    world.kill()
    return world


def _again(world: World, folder: Path) -> World:
    """Return a world that goes on from where `world` is, as if its certifier had just been started."""
    mine = deepcopy(world)
    mine.folder = folder / "chains"
    shutil.copytree(world.folder, mine.folder)
    return mine


def test_a_segment_has_a_proof_of_its_own(tmp_path: Path) -> None:
    """Each by its own requests and alpha: the one that errs more gets a stricter threshold, and verify agrees."""
    world = new_world(tmp_path, asked=terms(alpha=0.2), north=terms(alpha=0.05, segment="north"), per_second=10)
    world.run(300)
    processes = {row.segment: row for row in rows_of(ProcessRow, world)}
    assert {segment: row.alpha for segment, row in processes.items()} == {"": 0.2, "north": 0.05}
    assert world.rule is not None
    north = world.rule.segments["north"]
    assert (north.alpha, north.version, north.eligibility) == (0.05, "1", "e")
    assert world.rule.tau is not None
    assert north.tau is not None
    assert north.tau > world.rule.tau
    assert north.certificate != world.rule.certificate
    assert {row.segment for row in rows_of(SampledRecord, world)} == {"", "north"}
    counted = {course.row.segment: course.audits[-1] for course in world.book.courses}
    assert all(audits > 100 for audits in counted.values())
    assert sum(counted.values()) <= world.book.records
    assert verified(world).agrees


def test_a_challenger_is_certified_in_shadow_and_answers_by_it_once_promoted(tmp_path: Path) -> None:
    """From the same reviews, by its own confidences and errors; before that its proof answers nobody."""
    better = terms(alpha=0.05, version="2")
    world = new_world(tmp_path, asked=terms(alpha=0.05), challenger=better, per_second=10, risk=(0.4,) * 10)
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
    assert verified(world).agrees


def test_a_challenger_that_grows_worse_takes_nothing_back_but_its_own(tmp_path: Path) -> None:
    """It answered nobody: the champion goes on, and the challenger begins anew."""
    world = new_world(tmp_path, asked=terms(alpha=0.2), challenger=terms(alpha=0.2, version="2"), per_second=10)
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
    assert verified(world).agrees


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
    assert len(rows_of(EpochRow, world)) == 2
    assert standing_of(world).stage is Stage.ALARMED
    world.kill()
    assert [alarm.said for alarm in world.book.alarms.values()] == [world.rule.alarm], "so it is after a restart"
    world.risk = good
    world.run_until(lambda: world.rule is not None and not world.rule.alarm, most=400)
    assert world.rule.tau is not None
    world.run(61)
    first = rows_of(EpochRow, world)[0]
    assert isinstance(first, EpochRow)
    assert [row.epoch for row in rows_of(RevealRow, world) if isinstance(row, RevealRow)] == [first.epoch]
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")


def test_people_who_are_away_are_no_alarm(tmp_path: Path, proved_world: World) -> None:
    """Labels that never come count against the proof; that the promise is broken they do not say."""
    world = _again(proved_world, tmp_path)
    world.silent = True
    world.run(200)
    assert world.rule is not None
    assert world.rule.alarm == ""
    assert world.rule.tau is not None
    assert verified(world).agrees


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
    assert len(rows_of(ProcessRow, world)) == 2
    world.asked = terms()
    for gateway in world.gateways:
        gateway.version = "1"
    world.run(3)
    assert (world.rule.version, world.rule.tau) == ("1", proved)
    world.run(60)
    processes = [row for row in rows_of(ProcessRow, world) if isinstance(row, ProcessRow)]
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
    assert verified(world).agrees


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
    assert verified(world).agrees


def test_a_certificate_ends_and_the_next_one_is_there(tmp_path: Path) -> None:
    """A fresh process begins before, with an epoch of its own; the old one answers until its end."""
    world = new_world(tmp_path, asked=terms(expire_seconds=600))
    world.run(590)
    processes = [row for row in rows_of(ProcessRow, world) if isinstance(row, ProcessRow)]
    assert len(processes) == 2
    assert len(rows_of(EpochRow, world)) == 2
    assert len(rows_of(RevealRow, world)) == 1
    assert len(world.book.pending.keys) == 1, "what the revealed epoch's keys were is forgotten"
    assert processes[0].first_second + 300 <= processes[1].first_second <= processes[0].first_second + 540
    assert world.rule is not None
    assert world.rule.expire_second == processes[0].last_second + 1
    world.run(processes[0].last_second - world.now + 5)
    assert world.rule.expire_second == processes[1].last_second + 1
    assert world.rule.tau is not None, "without a gap"
    assert verified(world).agrees


def test_a_model_that_is_sure_of_little_is_certified_for_that(tmp_path: Path) -> None:
    """The surest three in ten are right, the others mostly not: these three answer, and verify agrees."""
    world = new_world(tmp_path, risk=(0.6,) * 7 + (0.0,) * 3)
    world.run(400)
    told = standing_of(world)
    assert told.tau is not None
    assert 0.65 < told.tau < 0.8
    assert told.coverage is not None
    assert 0.2 < told.coverage < 0.36
    assert not any(each.proved for each in told.thresholds if each.threshold < told.tau)
    assert world.answered_wrong <= 0.1 * world.answered
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")


def test_what_is_told_is_of_the_threshold_that_is_next(tmp_path: Path) -> None:
    """At first where the walk begins, not at the strictest, which sees few; where that is hopeless, one that is not."""
    world = new_world(tmp_path, risk=(0.6,) * 7 + (0.0,) * 3)
    world.run(50)
    [course] = world.book.courses
    assert aimed_at(course) == course.main == 7
    assert standing_of(world).audits == course.audits[7]
    world.run_until(lambda: aimed_at(course) != 7, most=100)
    aim = aimed_at(course)
    assert aim is not None
    assert 3 <= aim < 7
    assert f" {course.grid[aim]:.4g}, which lets " in standing_of(world).advice
    best = new_world(tmp_path / "best", risk=(0.0,) * 10)
    best.run(150)
    assert aimed_at(best.book.courses[0]) is None
    assert "the loosest threshold is proved" in standing_of(best).advice


def test_a_process_that_began_before_there_were_shares_goes_on_with_its_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of delta at the strictest threshold, one walk from there; a new one begins when it is due, not before."""
    with monkeypatch.context() as then:
        then.setattr(certifier, "grid", lambda found: Grid(thresholds=grid(found).thresholds[7:], shares=()))
        world = new_world(tmp_path)
        world.run(30)
    # As a release wrote it that had no shares.
    bodies = [link.body.replace(b',"shares":[]', b"") for link in Chain(world.folder, MODEL).links()]
    kept = Chain(world.folder, MODEL)
    kept.read(lambda *_: None)
    shutil.rmtree(kept.folder)
    Chain(world.folder, MODEL).append(link(genesis(MODEL), [decode(body) for body in bodies]), kept.notes)
    world.kill()
    world.run(300)
    [process] = rows_of(ProcessRow, world)
    [course] = world.book.courses
    told = standing_of(world)
    assert told.tau is not None
    assert len(told.thresholds) == 20
    assert [each.proved for each in told.thresholds] == [each.threshold >= told.tau for each in told.thresholds]
    assert course.walked[1].tolist() == pytest.approx([-log(0.05)] * 20)
    assert (process.shares, course.main, course.open) == ((), 0, [course.proved])
    assert verified(world).agrees


def test_over_a_lifetime_the_processes_share_delta(tmp_path: Path) -> None:
    """The k-th has 6 delta / (pi^2 k^2)."""
    world = new_world(tmp_path, asked=terms(lifetime=True))
    world.run(30)
    world.asked = replace(terms(0.2), lifetime=True)
    world.run(3)
    processes = [row for row in rows_of(ProcessRow, world) if isinstance(row, ProcessRow)]
    assert [row.delta for row in processes] == [lifetime_delta(0.05, 1), lifetime_delta(0.05, 2)]
    world.run(20)
    assert len(rows_of(ProcessRow, world)) == 2


def test_labels_that_may_take_longer_are_another_epoch(tmp_path: Path) -> None:
    """The time for a label is fixed beforehand; the process goes on."""
    world = new_world(tmp_path)
    world.run(40)
    world.ground = replace(GROUND, sla_seconds=90)
    world.kill()
    world.run(150)
    epochs = [row for row in rows_of(EpochRow, world) if isinstance(row, EpochRow)]
    assert [row.sla_seconds for row in epochs] == [60, 90]
    assert len(rows_of(ProcessRow, world)) == 1
    assert verified(world).agrees


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


def test_what_a_process_spent_already_is_not_there_for_a_lifetime(tmp_path: Path) -> None:
    """Asked to share delta over all processes, one that took the whole of it keeps no promise any more."""
    world = new_world(tmp_path)
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
    world = new_world(tmp_path)
    world.run(40)
    world.secret = SECRET[::-1]
    world.run(5)
    world.kill()
    world.run(1)
    assert any("the secret of the draws" in notice for notice in world.open()[0].notices)
    world.run(120)
    first, second = (row.epoch for row in rows_of(EpochRow, world) if isinstance(row, EpochRow))
    assert world.rule is not None
    assert world.rule.epoch == second
    assert rows_of(RevealRow, world) == []
    assert len(rows_of(ProcessRow, world)) == 1
    world.ground = replace(GROUND, sla_seconds=90)
    world.kill()
    world.run(200)
    assert [row.epoch for row in rows_of(RevealRow, world) if isinstance(row, RevealRow)] == [second]
    finding = verified(world)
    assert (finding.agrees, finding.reason) == (True, "")
    assert first in finding.unrevealed
