"""How the proofs of the models stand, for the page; from the documents that the certifier writes.

The certifier's own words for what stands there are in packages above this one. Here is what the page shows of them,
and what it does not know is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from fallback.answer import Answer
from fallback.documents import Document

CERTIFICATIONS: Final = "certifications/"
STANDINGS: Final = "standings/"
AMENDMENTS: Final = "amendments/"

log = structlog.get_logger(__name__)


class _Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways answer a segment's requests by."""

    tau: float | None = None
    certificate: str = ""
    version: str = ""
    begin_second: int = 0
    expire_second: int = 0


class _Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What rang, in which segment."""

    segment: str
    said: str
    outlived: bool = False


class _Certification(_Proof, frozen=True, kw_only=True):
    """What gateways answer by: the requests of no segment, and each segment's.

    `alarm`: what keeps everything with people that has no proof; where there are no `alarms`, that with one, too.
    """

    alarm: str = ""
    alarms: tuple[_Alarm, ...] = ()
    segments: dict[str, _Proof] = {}


class _Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted at one threshold."""

    threshold: float
    log_peak: float = 0.0
    log_needed: float = 0.0
    proved: bool = False
    coverage: float | None = None
    audits: int = 0
    errors: int = 0
    seen_error: float | None = None


class _Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted so far."""

    stage: str
    alpha: float
    delta: float
    version: str = ""
    certificate: str = ""
    tau: float | None = None
    expire_second: int = 0
    coverage: float | None = None
    error_bound: float | None = None
    audits: int = 0
    audits_needed: int | None = None
    requests: int = 0
    watermark: int = 0
    thresholds: tuple[_Threshold, ...] = ()
    advice: str = ""
    miss: float | None = None
    reviewer_error: float | None = None
    segments: dict[str, _Standing] = {}
    challengers: dict[str, _Standing] = {}


class ThresholdView(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold that is to be proved; `evidence` in [0, 1] is the share of the way to its proof."""

    threshold: float
    evidence: float
    proved: bool
    coverage: float | None
    audits: int
    errors: int
    seen_error: float | None


class CertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """One model's, or one of its segments'. `thresholds`: the strictest first; times in seconds.

    `tau`, `coverage` and `error_bound` only where a certificate is in force; of a version in `shadow`, which answers
    nobody, where one would be.
    """

    model: str
    segment: str = ""
    shadow: bool = False
    stage: str
    alpha: float
    delta: float
    version: str
    certificate: str
    tau: float | None
    coverage: float | None
    error_bound: float | None
    audits: int
    audits_needed: int | None
    requests: int
    watermark: int
    expire_second: int
    thresholds: tuple[ThresholdView, ...]
    advice: str
    miss: float | None
    reviewer_error: float | None
    alarm: str


class NearView(msgspec.Struct, frozen=True, kw_only=True):
    """An answer like one that was wrong: whose, how they call it, and when, Unix seconds."""

    client: str
    request: str
    row: int
    confidence: float
    time: float


class AmendmentView(msgspec.Struct, frozen=True, kw_only=True):
    """An automatic answer that people overturned, and those near to it."""

    deferral: str
    version: str
    client: str
    predicted: str
    answer: Answer
    confidence: float
    time: float
    nearest: tuple[NearView, ...] = ()
    model: str = ""


class _Amendments(msgspec.Struct, frozen=True, kw_only=True):
    """A model's."""

    amendments: tuple[AmendmentView, ...] = ()


def amendments(documents: Mapping[str, Document]) -> list[AmendmentView]:
    """Return the overturned answers in `documents`, by model; what cannot be read is left out, and logged."""
    found = []
    for key, document in sorted(documents.items()):
        if not key.startswith(AMENDMENTS):
            continue
        model = key.removeprefix(AMENDMENTS)
        try:
            read = msgspec.json.decode(document.body, type=_Amendments)
        except msgspec.DecodeError as error:
            log.warning("what audits found cannot be read; not shown", model=model, error=str(error))
            continue
        found += [msgspec.structs.replace(one, model=model) for one in read.amendments]
    return found


def views(documents: Mapping[str, Document], *, second: int) -> list[CertificateView]:
    """Return what stands in `documents` at `second`, by model; what cannot be read is left out, and logged."""
    found = []
    for key, document in sorted(documents.items()):
        if not key.startswith(STANDINGS):
            continue
        model = key.removeprefix(STANDINGS)
        try:
            standing = msgspec.json.decode(document.body, type=_Standing)
            written = documents.get(CERTIFICATIONS + model)
            proved = _Certification() if written is None else msgspec.json.decode(written.body, type=_Certification)
        except msgspec.DecodeError as error:
            log.warning("a proof's standing cannot be read; not shown", model=model, error=str(error))
            continue
        if standing.stage == "off":
            continue
        found.append(_view(model, "", standing, _proof(proved, ""), _alarm(proved, ""), second))
        for segment, each in standing.segments.items():
            found.append(_view(model, segment, each, _proof(proved, segment), _alarm(proved, segment), second))
        for challenger in standing.challengers.values():
            found += [_shadow_view(model, segment, each, second) for segment, each in _parts(challenger)]
    return found


def _proof(proved: _Certification, segment: str) -> _Proof:
    if proved.alarm and not proved.alarms:
        return _Proof()
    return proved.segments.get(segment, _Proof()) if segment else proved


def _alarm(proved: _Certification, segment: str) -> str:
    """Return what stands against a segment: its own alarm where there is one, else what keeps all with people."""
    own = [alarm.said for alarm in proved.alarms if alarm.segment == segment and not alarm.outlived]
    return own[-1] if own else proved.alarm


def _parts(standing: _Standing) -> list[tuple[str, _Standing]]:
    return [("", standing), *standing.segments.items()]


def _shadow_view(model: str, segment: str, standing: _Standing, second: int) -> CertificateView:
    proof = _Proof(
        tau=standing.tau,
        certificate=standing.certificate,
        version=standing.version,
        expire_second=standing.expire_second,
    )
    return msgspec.structs.replace(_view(model, segment, standing, proof, "", second), shadow=True)


def _view(model: str, segment: str, standing: _Standing, proved: _Proof, alarm: str, second: int) -> CertificateView:
    in_time = proved.begin_second <= second < proved.expire_second
    in_force = in_time and proved.tau is not None
    alarm = "" if in_force else alarm
    # Numbers that were counted for another certificate than the one in force say nothing of it.
    counted = in_force and standing.certificate == proved.certificate
    stage = "certified" if in_force else "surveying" if standing.stage == "surveying" else "proving"
    return CertificateView(
        model=model,
        segment=segment,
        stage="alarmed" if alarm else stage,
        alpha=standing.alpha,
        delta=standing.delta,
        version=proved.version if in_force else standing.version,
        certificate=proved.certificate if in_force else "",
        tau=proved.tau if in_force else None,
        coverage=standing.coverage if counted else None,
        error_bound=standing.error_bound if counted else None,
        audits=standing.audits,
        audits_needed=standing.audits_needed,
        requests=standing.requests,
        watermark=standing.watermark,
        expire_second=proved.expire_second if in_force else 0,
        thresholds=tuple(_threshold_view(each, standing.delta, alarmed=alarm != "") for each in standing.thresholds),
        advice=standing.advice,
        miss=standing.miss,
        reviewer_error=standing.reviewer_error,
        alarm=alarm,
    )


def _threshold_view(counted: _Threshold, delta: float, *, alarmed: bool) -> ThresholdView:
    return ThresholdView(
        threshold=counted.threshold,
        evidence=min(1.0, max(0.0, counted.log_peak / (counted.log_needed or math.log(1 / delta)))),
        proved=counted.proved and not alarmed,
        coverage=counted.coverage,
        audits=counted.audits,
        errors=counted.errors,
        seen_error=counted.seen_error,
    )
