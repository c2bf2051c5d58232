"""An alarm stands until its own segment is proved anew of the version that answers, and keeps all else with people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from demur.v1 import model_pb2 as pb
from gateway.certification import Certification, Stage
from gateway.model_wire import certificate_to_wire
from gateway.policy import Policy
from gateway.rules import Decision, Rules
from gateway.segments import Segment
from tests.unit.trainer.world import GROUND, World, new_world, standing_of, terms, verified
from trainer.adjudicate import Share
from trainer.standing import certification, standing, standing_alarms
from trainer.terms import Terms, in_force

pytestmark = pytest.mark.usefixtures("quick")

POLICY = Policy(
    alpha=0.1,
    audit_share=0.3,
    until_proved="answer",
    threshold=0.5,
    segments=(Segment(name="north", attributes={"region": "north"}),),
)
# What bad answers did to a process is over with it.
REST = terms(expire_seconds=700, eligibility=POLICY.eligibility)
NORTH = replace(REST, segment="north")


def _decision(rule: Certification | None, segment: str, second: int, version: str = "1") -> Decision:
    """What becomes of a request that the operator's own threshold would answer, and a proved one too."""
    rules = Rules.compile(POLICY, ("true", "false"), certification=rule, version=version).of(segment)
    sure = np.array([0.99])
    return rules.decide(confidence=sure, predicted=np.array([0]), scores=sure, second=second).decision(0)


def _rung_in_the_north(folder: Path) -> World:
    """A world where both were proved, and then every second answer in the north was wrong."""
    world = new_world(folder, asked=REST, north=NORTH, seed=5)
    world.run_until(
        lambda: world.rule is not None and world.rule.tau is not None and bool(world.rule.segments), most=500
    )
    world.north_risk = 0.5
    world.run_until(lambda: bool(world.book.alarms), most=300)
    return world


def _stage(world: World, asked: Terms) -> Stage:
    alarms = standing_alarms(world.book, world.terms, world.now)
    told = standing(world.book, asked, GROUND, now=world.now, miss=Share(count=0, total=0), alarms=alarms)
    assert ("ALARM" in told.advice) == (told.stage is Stage.ALARMED)
    return told.stage


def test_an_alarm_sends_everything_to_people_and_the_proof_of_another_segment_does_not_end_it(tmp_path: Path) -> None:
    """What is proved anew answers again, by its proof alone; what rang is with people until it is proved itself."""
    world = _rung_in_the_north(tmp_path)
    assert [*world.book.alarms] == [("1", "north")]
    assert {_decision(world.rule, segment, world.now) for segment in ("", "north")} == {Decision.DEFERRED}
    assert (_stage(world, world.asked), _stage(world, NORTH)) == (Stage.ALARMED, Stage.ALARMED)
    world.run_until(lambda: world.rule is not None and world.rule.tau is not None, most=400)
    assert world.rule is not None
    assert [(alarm.version, alarm.segment) for alarm in world.rule.alarms] == [("1", "north")]
    assert "segment north" in world.rule.alarm
    assert _decision(world.rule, "", world.now) is Decision.ANSWERED
    assert _decision(world.rule, "north", world.now) is Decision.DEFERRED, "not by the operator's threshold either"
    later = world.rule.expire_second
    assert _decision(world.rule, "", later) is Decision.DEFERRED, "nor elsewhere, while it stands"
    assert (_stage(world, world.asked), _stage(world, NORTH)) == (Stage.CERTIFIED, Stage.ALARMED)
    told = certificate_to_wire("m", POLICY, certification=world.rule, standing=standing_of(world), second=world.now)
    assert (told.stage, told.alarm) == (pb.Certificate.CERTIFIED, "")
    assert (told.segments[0].stage, told.segments[0].alarm) == (pb.Certificate.ALARMED, world.rule.alarm)
    world.kill()
    world.north_risk = 0.0
    assert [*world.book.alarms] == [("1", "north")], "so it is after a restart"
    world.run_until(lambda: world.rule is not None and "north" in world.rule.segments, most=1_000)
    assert (world.rule.alarm, world.rule.alarms, world.book.alarms) == ("", (), {})
    assert _decision(world.rule, "north", world.now) is Decision.ANSWERED
    assert _decision(world.rule, "north", world.rule.segments["north"].expire_second) is Decision.UNCERTIFIED
    assert verified(world).agrees


def test_a_certificate_of_a_version_in_shadow_ends_no_alarm_until_that_version_answers(tmp_path: Path) -> None:
    """And gone back to, the version that rang is with people as before."""
    better = replace(REST, version="2", expire_seconds=100_000)
    world = new_world(tmp_path, asked=replace(better, version="1"), challenger=better, per_second=10)
    world.run_until(lambda: world.rule is not None and world.rule.tau is not None, most=300)
    world.risk = (0.6,) * 10
    world.run_until(lambda: bool(world.book.alarms), most=300)
    world.run_until(lambda: in_force(world.book, better, world.now) is not None, most=400)
    world.run(1)
    assert world.rule is not None
    assert _stage(world, world.asked) is Stage.ALARMED
    assert _decision(world.rule, "", world.now) is Decision.DEFERRED
    assert _decision(world.rule, "", world.now, "2") is Decision.ANSWERED, "as soon as it is live anywhere"
    world.asked, world.challenger, world.risk = better, None, (0.0,) * 10
    for gateway in world.gateways:
        gateway.version = "2"
    world.run(10)
    [alarm] = world.book.alarms.values()
    assert (alarm.version, alarm.outlived, world.rule.alarm) == ("1", True, "")
    assert _decision(world.rule, "", world.rule.expire_second, "2") is Decision.UNCERTIFIED, "over for this one"
    assert _decision(world.rule, "", world.now) is Decision.DEFERRED, "not for a gateway that is behind"
    world.asked = replace(better, version="1")
    for gateway in world.gateways:
        gateway.version = "1"
    world.run(3)
    assert _stage(world, world.asked) is Stage.ALARMED
    assert _decision(world.rule, "", world.now) is Decision.DEFERRED
    world.run_until(lambda: not world.book.alarms, most=600)
    assert world.rule.tau is not None
    assert verified(world).agrees


def test_the_alarm_of_a_segment_that_is_no_more_is_over_once_the_rest_is_proved(tmp_path: Path) -> None:
    """Its requests are the rest's now: nobody could prove it any more."""
    world = _rung_in_the_north(tmp_path)
    world.north, world.asked = None, replace(world.asked, eligibility="others")
    world.run(1)
    assert world.rule is not None
    assert _stage(world, world.asked) is Stage.ALARMED
    assert _decision(world.rule, "", world.now) is Decision.DEFERRED
    world.run_until(lambda: world.rule is not None and world.rule.tau is not None, most=600)
    assert (world.rule.alarm, world.rule.alarms) == ("", ())
    assert _stage(world, world.asked) is Stage.CERTIFIED


def test_two_segments_that_ring_at_once_both_stand(tmp_path: Path) -> None:
    """One that rings takes the other's proof back, not its alarm."""
    world = new_world(tmp_path, asked=REST, north=NORTH, seed=5)
    world.run_until(
        lambda: world.rule is not None and world.rule.tau is not None and bool(world.rule.segments), most=500
    )
    rung = {}
    for course in world.book.courses:
        course.drift = replace(course.drift, highest=np.array(1e6))
        rung["1", course.row.segment] = course
    world.run_until(lambda: bool(world.book.alarms), most=60)
    assert set(world.book.alarms) == set(rung) == {("1", ""), ("1", "north")}
    assert all(course.revoked for course in rung.values())


def test_what_an_earlier_certifier_said_of_an_alarm_leaves_no_proof_standing(tmp_path: Path) -> None:
    """And one that reads a chain as it is told so takes back each segment's, and each version's."""
    world = new_world(tmp_path, asked=REST, north=NORTH, seed=5)
    world.run_until(
        lambda: world.rule is not None and world.rule.tau is not None and bool(world.rule.segments), most=500
    )
    told = certification(world.book, world.terms, world.now, {})
    assert told is not None
    body = msgspec.to_builtins(msgspec.structs.replace(told, alarm="drift"))
    del body["alarms"]
    before = msgspec.convert(body, Certification)
    assert {_decision(told, segment, world.now) for segment in ("", "north")} == {Decision.ANSWERED}
    assert {_decision(before, segment, world.now) for segment in ("", "north")} == {Decision.DEFERRED}


@pytest.mark.parametrize(
    ("traffic", "proved", "rang", "stands"),
    [
        ({"": 0.5, "north": 0.5}, {"north"}, "", True),
        ({"": 0.5, "north": 0.5}, {"", "north"}, "south", False),
        ({"": 0.5, "north": 0.5}, {"north"}, "south", True),
        ({"north": 1.0}, {"north"}, "", False),
        ({"north": 1.0}, {"north"}, "south", False),
        ({"north": 1.0}, set(), "", True),
        ({"north": 1.0}, {"north"}, "north", True),
        ({}, set(), "", True),
    ],
)
def test_an_alarm_of_what_no_request_is_in_any_more_ends_with_the_proofs_of_all_others(
    monkeypatch: pytest.MonkeyPatch, traffic: dict[str, float], proved: set[str], rang: str, stands: bool
) -> None:
    """Nothing could prove it anew; as long as it has requests, or the policy asks for it, only its own proof does."""

    def in_force(_: object, asked: Terms, __: int) -> object:
        return object() if asked.segment in proved else None

    monkeypatch.setattr("trainer.standing.in_force", in_force)
    alarm = SimpleNamespace(segment=rang)
    book: Any = SimpleNamespace(alarms={("1", rang): alarm}, share=lambda segment: traffic.get(segment, 0.0))
    assert bool(standing_alarms(book, [REST, NORTH], 0)) is stands
