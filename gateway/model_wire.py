"""What ModelService says and is told, on the wire: versions, policies, certificates. Pure."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Final, Literal

from demur.v1 import model_pb2 as pb
from fallback.errors import InvalidError
from fallback.wire import answer_to_wire, attributes_from_wire, timestamp_to_wire
from gateway import lifecycle
from gateway.amendments import Amendment
from gateway.certification import Certification, Stage, Standing
from gateway.confidence import Scorer
from gateway.lifecycle import ModelStates
from gateway.manifest import render
from gateway.policy import EXPIRE_DAYS_MAX, REVIEWS_PER_HOUR_MAX, Policy
from gateway.promise import RISK_MAX
from gateway.quote import Plan, Quote, Said, Work
from gateway.registry import ModelVersion, version_name
from gateway.rules import Rules
from gateway.segments import Segment

_Optional = Literal["alpha", "delta", "reviews_per_hour_max", "expire_days"]
_WORK: Final = tuple(field.name for field in fields(Said))
_NOT_BEGUN: Final = (
    "the certifier has not begun with this model, or not yet with this policy; is `demur train --watch` running?"
)


def version_to_wire(version: ModelVersion, states: ModelStates) -> pb.ModelVersion:
    """Return a version and where it stands."""
    standing = lifecycle.shown(states, version.version, time=version.create_time.timestamp())
    wire = pb.ModelVersion(
        name=version_name(version.model, version.version),
        state=standing.state.name,
        reason=standing.reason,
        sha256=version.sha256,
        manifest=render(version.manifest),
    )
    wire.create_time.FromDatetime(version.create_time)
    return wire


def policy_to_wire(model: str, policy: Policy, revision: int, plan: Plan | None = None) -> pb.Policy:
    """Return a policy as it is in force, every field said, and what it costs where that was asked."""
    return pb.Policy(
        model=model,
        revision=revision,
        threshold=policy.threshold,
        class_thresholds=policy.class_thresholds,
        always_person=policy.always_person,
        audit_share=policy.audit_share,
        allow_model_wish=policy.allow_model_wish,
        alpha=policy.alpha,
        delta=policy.delta,
        scorer=policy.scorer,
        reviews_per_hour_max=policy.reviews_per_hour_max,
        expire_days=policy.expire_days,
        lifetime=policy.lifetime,
        until_proved=policy.until_proved,
        segments=[
            pb.Segment(name=each.name, attributes=each.attributes, alpha=each.alpha, delta=each.delta)
            for each in policy.segments
        ],
        plan=None if plan is None else plan_to_wire(plan),
    )


def plan_to_wire(plan: Plan) -> pb.Plan:
    """Return what a promise costs."""
    work, offer = plan.work, plan.quote
    return pb.Plan(
        work=pb.Work(**{field: getattr(work, field) for field in _WORK}),
        **{field.name: getattr(offer, field.name) for field in fields(offer)},
        reviews_per_hour_before=plan.reviews_per_hour_before,
        reviews_per_hour_after=plan.reviews_per_hour_after,
        problems=plan.problems,
    )


def plan_from_wire(wire: pb.Plan) -> Plan:
    """Read what a gateway says that a promise costs."""
    offer: dict[str, Any] = {
        name: getattr(wire, name) if wire.HasField(name) else None for name in (field.name for field in fields(Quote))
    }
    return Plan(
        work=Work(**{field: getattr(wire.work, field) for field in _WORK}),
        quote=Quote(**offer),
        reviews_per_hour_before=wire.reviews_per_hour_before,
        reviews_per_hour_after=wire.reviews_per_hour_after,
        problems=tuple(wire.problems),
    )


def work_from_wire(wire: pb.Work) -> Said:
    """Read what a caller knows of the work."""
    return Said(**{field: getattr(wire, field) if wire.HasField(field) else None for field in _WORK})


def policy_from_wire(wire: pb.Policy) -> Policy:
    """Read a policy; raises InvalidError naming the field, what was expected and got."""
    for field in ("threshold", "audit_share"):
        if not wire.HasField(field):
            raise InvalidError(
                f"policy.{field}: expected a number in [0, 1], got none; an update replaces the whole policy, "
                "so change what GetPolicy returned",
            )
    shares = {"threshold": wire.threshold, "audit_share": wire.audit_share}
    shares |= {f"class_thresholds[{label}]": share for label, share in wire.class_thresholds.items()}
    for field, share in shares.items():
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise InvalidError(f"policy.{field}: expected a number in [0, 1], got {share}")
    scorers = {"", *(scorer.value for scorer in Scorer)}
    if wire.scorer not in scorers:
        raise InvalidError(
            f"policy.scorer: expected {', '.join(sorted(scorers - {''}))} or none, got {wire.scorer[:40]!r}"
        )
    if wire.until_proved not in {"", "ask", "answer"}:
        raise InvalidError(f"policy.until_proved: expected ask or answer, got {wire.until_proved[:40]!r}")
    blank = Policy()
    return Policy(
        threshold=wire.threshold,
        class_thresholds=dict(wire.class_thresholds),
        always_person=tuple(wire.always_person),
        audit_share=wire.audit_share,
        allow_model_wish=wire.allow_model_wish,
        alpha=_positive(wire, "alpha", RISK_MAX),
        delta=_positive(wire, "delta", RISK_MAX) or blank.delta,
        scorer=wire.scorer,  # type: ignore[arg-type]  # one of them, as was looked after above
        reviews_per_hour_max=_positive(wire, "reviews_per_hour_max", REVIEWS_PER_HOUR_MAX),
        expire_days=_positive(wire, "expire_days", EXPIRE_DAYS_MAX) or blank.expire_days,
        lifetime=wire.lifetime,
        until_proved=wire.until_proved or blank.until_proved,  # type: ignore[arg-type]  # as above
        segments=tuple(_segment(each, f"policy.segments[{number}]") for number, each in enumerate(wire.segments)),
    )


def _segment(wire: pb.Segment, where: str) -> Segment:
    return Segment(
        name=wire.name,
        attributes=attributes_from_wire(wire.attributes, field=f"{where}.attributes"),
        alpha=_positive(wire, "alpha", RISK_MAX, where),
        delta=_positive(wire, "delta", RISK_MAX, where),
    )


def _positive(wire: pb.Policy | pb.Segment, field: _Optional, most: float, where: str = "policy") -> float | None:
    """Return a number above 0; None where it is not said."""
    if not wire.HasField(field):
        return None
    value: float = getattr(wire, field)
    if not 0 < value <= most:
        raise InvalidError(f"{where}.{field}: expected a number above 0 and at most {most:g}, got {value}")
    return value


def certificate_to_wire(
    model: str,
    policy: Policy,
    *,
    certification: Certification | None,
    standing: Standing | None,
    second: int,
) -> pb.Certificate:
    """Return how the proof that `policy` asks for stands at `second`; stage OFF where it asks for none.

    What gateways answer by counts: a threshold is told only where `certification` has it in force for this policy, so
    that what `standing` said a moment before an alarm, an end or a change of the policy is not told any more.
    """
    if policy.alpha is None:
        return pb.Certificate(model=model, stage=pb.Certificate.OFF)
    version = "" if certification is None else certification.version or next(iter(certification.versions), "")
    rules = Rules.compile(policy, (), certification=certification, version=version)
    wire = _proof_to_wire(model, rules, standing, second)
    told = {} if standing is None else standing.segments
    for segment in policy.segments:
        proof = None if certification is None else certification.proof(segment.name, version)
        own = Rules.compile(
            policy,
            (),
            certification=certification,
            version=version if proof is None else proof.version,
            segment=segment.name,
        )
        wire.segments.append(_proof_to_wire(model, own, told.get(segment.name), second))
    for challenger in () if standing is None else standing.challengers.values():
        found = _challenger_to_wire(model, "", challenger)
        found.segments.extend(_challenger_to_wire(model, name, each) for name, each in challenger.segments.items())
        wire.challengers.append(found)
    return wire


def _proof_to_wire(model: str, rules: Rules, standing: Standing | None, second: int) -> pb.Certificate:
    """Return how the proof of the segment of `rules` stands."""
    promise, certification, proof = rules.policy.promise(rules.segment), rules.certification, rules.proof
    assert promise is not None, "without a promise there is nothing to prove"
    tau = rules.tau(second)
    alarm = "" if tau is not None else rules.alarm
    if standing is not None and standing.alpha != promise.alpha:
        standing = None  # of another promise
    wire = pb.Certificate(
        model=model,
        alpha=promise.alpha,
        delta=promise.delta,
        stage=_stage(standing, tau, alarm).name,
        alarm=alarm,
        advice=_NOT_BEGUN,
        segment=rules.segment,
    )
    if standing is not None:
        _tell_standing(wire, model, standing)
    if certification is not None:
        wire.epoch = certification.epoch
    if proof is None or tau is None:
        return wire
    wire.version = version_name(model, proof.version)
    wire.tau, wire.certificate = tau, proof.certificate
    wire.expire_time.FromSeconds(proof.expire_second)
    if standing is not None and standing.certificate == proof.certificate:
        _tell_proved(wire, standing)
    return wire


def _challenger_to_wire(model: str, segment: str, standing: Standing) -> pb.Certificate:
    """Return what is proved of a version in shadow."""
    wire = pb.Certificate(
        model=model, alpha=standing.alpha, delta=standing.delta, stage=standing.stage.name, segment=segment
    )
    _tell_standing(wire, model, standing)
    if standing.tau is not None:
        wire.tau, wire.certificate = standing.tau, standing.certificate
        wire.expire_time.FromSeconds(standing.expire_second)
        _tell_proved(wire, standing)
    return wire


def _tell_proved(wire: pb.Certificate, standing: Standing) -> None:
    for field in ("coverage", "error_bound"):
        if (value := getattr(standing, field)) is not None:
            setattr(wire, field, value)


def amendment_to_wire(model: str, amendment: Amendment) -> pb.Amendment:
    """Return an answer that people overturned, with those near to it."""
    return pb.Amendment(
        deferral=amendment.deferral,
        version=version_name(model, amendment.version),
        client=amendment.client,
        predicted=amendment.predicted,
        confidence=amendment.confidence,
        answer=answer_to_wire(amendment.answer),
        amend_time=timestamp_to_wire(amendment.time),
        nearest=[
            pb.Amendment.Near(
                client=near.client,
                request=near.request,
                row=near.row,
                confidence=near.confidence,
                answer_time=timestamp_to_wire(near.time),
            )
            for near in amendment.nearest
        ],
    )


def _stage(standing: Standing | None, tau: float | None, alarm: str) -> Stage:
    if alarm:
        return Stage.ALARMED
    if tau is not None:
        return Stage.CERTIFIED
    if standing is None:
        return Stage.SURVEYING
    return Stage.SURVEYING if standing.stage is Stage.SURVEYING else Stage.PROVING


def _tell_standing(wire: pb.Certificate, model: str, standing: Standing) -> None:
    """Say what was counted so far."""
    wire.version = version_name(model, standing.version) if standing.version else ""
    wire.epoch = standing.epoch
    wire.audits, wire.requests = standing.audits, standing.requests
    for field in ("audits_needed", "miss", "reviewer_error", "share"):
        if (value := getattr(standing, field)) is not None:
            setattr(wire, field, value)
    if standing.watermark:
        wire.watermark_time.FromSeconds(standing.watermark)
    wire.advice, wire.digest = standing.advice, standing.digest
    needed = math.log(1 / standing.delta)
    for each in standing.thresholds:
        wire.thresholds.add(
            threshold=each.threshold,
            evidence=min(1.0, max(0.0, each.log_peak / (each.log_needed or needed))),
            proved=each.proved and not wire.alarm,
            coverage=each.coverage,
            audits=each.audits,
            errors=each.errors,
            seen_error=each.seen_error,
        )
