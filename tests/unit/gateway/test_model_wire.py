"""Policies and certificates on the wire: nothing is lost, nothing is told that is not in force."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import msgspec
import pytest

from demur.v1 import model_pb2 as pb
from fallback.errors import InvalidError
from gateway.certification import Alarm, Certification, Proof, Stage, Standing, Threshold
from gateway.model_wire import certificate_to_wire, plan_from_wire, policy_from_wire, policy_to_wire
from gateway.policy import Policy
from gateway.quote import Work, check_plan
from gateway.segments import Segment

POLICY = Policy(alpha=0.01, delta=0.05, audit_share=0.2)
PROVED = Certification(
    epoch="7",
    scorer="margin",
    versions=("3",),
    version="3",
    tau=0.625,
    certificate="m/7/1",
    begin_second=100,
    expire_second=200,
    alpha=0.01,
    delta=0.05,
)
STANDING = Standing(
    stage=Stage.CERTIFIED,
    alpha=0.01,
    delta=0.05,
    version="3",
    epoch="7",
    certificate="m/7/1",
    tau=0.625,
    coverage=0.75,
    error_bound=0.009,
    audits=900,
    audits_needed=120,
    requests=4_000,
    watermark=140,
    expire_second=200,
    thresholds=(
        Threshold(threshold=0.75, log_peak=2 * log(20), proved=True, coverage=0.5, audits=600),
        Threshold(
            threshold=0.625, log_peak=log(20), proved=True, coverage=0.75, audits=900, errors=9, seen_error=0.004
        ),
        Threshold(threshold=0.5, log_peak=-1.0),
    ),
    advice="120 more audits loosen it",
    miss=0.001,
    digest="ab",
)


def _told(second: int = 150, policy: Policy = POLICY, **changes: Any) -> pb.Certificate:
    proved = changes.pop("proved", PROVED)
    standing = changes.pop("standing", STANDING)
    return certificate_to_wire("m", policy, certification=proved, standing=standing, second=second)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(alpha=0.1, segments=(Segment(name="n", attributes={"k": "v"}, alpha=0.2, delta=0.1),)),
        Policy(threshold=0.5, class_thresholds={"a": 0.75}, always_person=("b",), allow_model_wish=True),
        Policy(alpha=0.01, delta=0.1, scorer="energy", reviews_per_hour_max=30, expire_days=7, lifetime=True),
    ],
)
def test_a_policy_comes_back_equal(policy: Policy) -> None:
    """Every field, said or not."""
    wire = policy_to_wire("m", policy, 4)
    assert (wire.model, wire.revision) == ("m", 4)
    assert wire.HasField("alpha") == (policy.alpha is not None)
    assert policy_from_wire(pb.Policy.FromString(wire.SerializeToString())) == policy


def test_a_plan_comes_back_equal() -> None:
    """One that is in reach and one that is not, with their problems."""
    work = Work(requests_per_hour=100, coverage=0.75, true_error=0.0, model_error=0.0625)
    hopeless = replace(work, true_error=0.5)
    for plan in (check_plan(POLICY, 0.01, work), check_plan(POLICY, 0.01, hopeless)):
        wire = policy_to_wire("m", POLICY, 4, plan)
        assert wire.plan.HasField("audits") == (plan.quote.audits is not None)
        assert plan_from_wire(pb.Plan.FromString(wire.plan.SerializeToString())) == plan


def test_an_update_of_an_older_client_leaves_the_defaults() -> None:
    """Fields that it does not know are absent."""
    assert policy_from_wire(pb.Policy(threshold=0.5, audit_share=0.2)) == Policy(threshold=0.5, audit_share=0.2)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"alpha": 0.0}, "policy.alpha: expected a number above 0 and at most 0.5, got 0"),
        ({"alpha": 0.6}, "policy.alpha: expected a number above 0 and at most 0.5, got 0.6"),
        ({"alpha": float("nan")}, "policy.alpha: expected a number above 0"),
        ({"delta": -0.1}, "policy.delta: expected a number above 0"),
        ({"scorer": "luck"}, "policy.scorer: expected energy, learned, margin, max_softmax or none, got 'luck'"),
        ({"reviews_per_hour_max": float("inf")}, "policy.reviews_per_hour_max: expected a number above 0 and at most"),
        ({"expire_days": 4_000.0}, "policy.expire_days: expected a number above 0 and at most 3650, got 4000"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(fields: dict[str, Any], sentence: str) -> None:
    """Field, expected and got."""
    with pytest.raises(InvalidError) as caught:
        policy_from_wire(pb.Policy(threshold=0.5, audit_share=0.2, **fields))
    assert sentence in caught.value.message


def test_without_an_alpha_the_stage_is_off() -> None:
    """And nothing else is told."""
    assert _told(policy=Policy()) == pb.Certificate(model="m", stage=pb.Certificate.OFF)


def test_a_certificate_in_force_is_told_whole() -> None:
    """Numbers, times, and how far the proof of each threshold is."""
    told = _told()
    assert told.stage == pb.Certificate.CERTIFIED
    assert (told.alpha, told.delta, told.version, told.epoch) == (0.01, 0.05, "models/m/versions/3", "7")
    assert (told.certificate, told.tau, told.coverage, told.error_bound) == ("m/7/1", 0.625, 0.75, 0.009)
    assert (told.audits, told.audits_needed, told.requests) == (900, 120, 4_000)
    assert (told.watermark_time.seconds, told.expire_time.seconds) == (140, 200)
    assert (told.miss, told.HasField("reviewer_error"), told.digest, told.alarm) == (0.001, False, "ab", "")
    assert told.advice == "120 more audits loosen it"
    counted = [(each.threshold, each.evidence, each.proved, each.audits, each.errors) for each in told.thresholds]
    assert counted == [(0.75, 1.0, True, 600, 0), (0.625, 1.0, True, 900, 9), (0.5, 0.0, False, 0, 0)]
    assert (told.thresholds[1].coverage, told.thresholds[1].seen_error) == (0.75, 0.004)
    assert not told.thresholds[2].HasField("coverage")
    assert not told.thresholds[2].HasField("seen_error")


def test_how_far_a_proof_is_goes_by_what_it_takes() -> None:
    """A stricter threshold has less of delta, and takes more."""
    strict = Threshold(threshold=0.9, log_peak=4.0, log_needed=8.0)
    told = _told(standing=msgspec.structs.replace(STANDING, thresholds=(strict, *STANDING.thresholds)))
    assert [each.evidence for each in told.thresholds] == [0.5, 1.0, 1.0, 0.0]


def test_segments_and_challengers_are_told_each_with_its_own() -> None:
    """A segment by what is in force for it, a challenger by what was counted, for it answers nobody."""
    segments = tuple(Segment(name=name, attributes={"at": name}, alpha=0.02) for name in ("north", "south"))
    policy = msgspec.structs.replace(POLICY, segments=segments)
    north = Proof(version="3", tau=0.75, certificate="m/8/1", begin_second=100, expire_second=300, alpha=0.02)
    proved = msgspec.structs.replace(PROVED, segments={"north": north}, eligibility=policy.eligibility)
    own = msgspec.structs.replace(STANDING, alpha=0.02, certificate="m/8/1", coverage=0.25)
    better = msgspec.structs.replace(STANDING, version="4", tau=0.5, certificate="m/9/1", segments={"north": own})
    standing = msgspec.structs.replace(STANDING, segments={"north": own}, challengers={"4": better})
    told = _told(policy=policy, proved=proved, standing=standing)
    assert (told.segment, told.tau, told.certificate) == ("", 0.625, "m/7/1")
    assert [(each.segment, each.alpha, each.certificate) for each in told.segments] == [
        ("north", 0.02, "m/8/1"),
        ("south", 0.02, ""),
    ]
    assert (told.segments[0].tau, told.segments[0].coverage, told.segments[0].expire_time.seconds) == (0.75, 0.25, 300)
    assert (told.segments[1].stage, told.segments[1].HasField("tau")) == (pb.Certificate.SURVEYING, False)
    (challenger,) = told.challengers
    assert (challenger.version, challenger.stage, challenger.tau) == (
        "models/m/versions/4",
        pb.Certificate.CERTIFIED,
        0.5,
    )
    assert [each.segment for each in challenger.segments] == ["north"]


ALARM = Alarm(version="3", segment="north", said="10 % wrong in the north", second=90)


def test_beside_an_alarm_a_proof_that_came_after_it_is_in_force() -> None:
    """A segment without one is told as taken back, with its own alarm's words where it rang."""
    segments = tuple(Segment(name=name, attributes={"at": name}) for name in ("north", "south"))
    policy = msgspec.structs.replace(POLICY, segments=segments)
    rest = msgspec.structs.replace(ALARM, segment="", said="10 % wrong", second=95)
    proved = msgspec.structs.replace(PROVED, eligibility=policy.eligibility, alarm="10 % wrong", alarms=(ALARM, rest))
    told = _told(policy=policy, proved=proved)
    assert (told.stage, told.tau, told.alarm) == (pb.Certificate.CERTIFIED, 0.625, "")
    assert [(each.stage, each.alarm) for each in told.segments] == [
        (pb.Certificate.ALARMED, "10 % wrong in the north"),
        (pb.Certificate.ALARMED, "10 % wrong"),
    ]
    assert _told(policy=policy, proved=msgspec.structs.replace(proved, alarms=())).stage == pb.Certificate.ALARMED


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"second": 200}, pb.Certificate.PROVING),
        ({"policy": msgspec.structs.replace(POLICY, scorer="max_softmax")}, pb.Certificate.PROVING),
        ({"policy": msgspec.structs.replace(POLICY, alpha=0.005)}, pb.Certificate.SURVEYING),
        ({"proved": msgspec.structs.replace(PROVED, alarm="10 % wrong")}, pb.Certificate.ALARMED),
        ({"proved": msgspec.structs.replace(PROVED, tau=None, alarm="x", alarms=(ALARM,))}, pb.Certificate.ALARMED),
        ({"proved": msgspec.structs.replace(PROVED, tau=None)}, pb.Certificate.PROVING),
        ({"proved": None}, pb.Certificate.PROVING),
    ],
)
def test_what_is_not_in_force_any_more_is_not_told(changes: dict[str, Any], stage: int) -> None:
    """After its end, after an alarm, after a change of the policy, whatever was counted a moment ago."""
    told = _told(**changes)
    assert told.stage == stage
    assert not any(told.HasField(field) for field in ("tau", "coverage", "error_bound", "expire_time"))
    assert told.certificate == ""


def test_before_the_certifier_began_it_is_said_what_to_look_at() -> None:
    """The promise stands in the policy, and nobody counts."""
    told = _told(proved=None, standing=None)
    assert told.stage == pb.Certificate.SURVEYING
    assert "is `demur train --watch` running?" in told.advice
    assert (told.alpha, told.audits, told.HasField("audits_needed")) == (0.01, 0, False)
