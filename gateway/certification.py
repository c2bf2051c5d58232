"""What the certifier tells of a model: the threshold in force, and for people how its proof stands. Pure.

Both are shared documents (`fallback.documents`), written by the certifier alone. `Certification` changes rarely, and
every gateway follows it; `Standing` changes while evidence comes in, and is read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from gateway.promise import Promise

CERTIFICATIONS: Final = "certifications/"
STANDINGS: Final = "standings/"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What is proved of one segment's requests.

    `tau` is the threshold proved for `version`; None: nothing is proved, and everything goes to a person. It answers
    from `begin_second` until `expire_second`, exclusive; `certificate` is its name. `alpha`, `delta` and `eligibility`
    (`Policy.eligibility`) are what it was proved for: a gateway whose policy by now promises more, or lets other
    requests through, does not use it. 0 and empty: not said.
    """

    version: str = ""
    tau: float | None = None
    certificate: str = ""
    begin_second: int = 0
    expire_second: int = 0
    alpha: float = 0.0
    delta: float = 0.0
    eligibility: str = ""

    def threshold(self, version: str, second: int) -> float | None:
        """Return what `version` needs to answer at `second`; None: nothing is proved for it then."""
        in_time = self.begin_second <= second < self.expire_second
        return self.tau if in_time and version == self.version else None

    def unfit(self, promise: Promise, eligibility: str) -> str:
        """Say why what is proved is no proof of this promise; empty where it is one.

        A changed promise is not kept by an old proof. What the certifier did not say is not compared.
        """
        if self.alpha > promise.alpha or self.delta > promise.delta:
            return "the policy promises more than what is proved"
        if self.eligibility not in {"", eligibility}:
            return "the policy lets through other requests than those of the proof"
        return ""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Audits showed that `version` errs in `segment` more often than promised: `said` tells it.

    It rang when labels up to `second` were in, took back all that was proved of the model, and stands until its segment
    is proved anew of the version that answers. Where that is another version, it is `outlived`: it stands for its own
    alone, should that one answer again.
    """

    version: str
    segment: str
    said: str
    second: int
    outlived: bool = False


def said_of(alarms: Iterable[Alarm], version: str, segment: str) -> str:
    """Return what stands against `version`: its segment's own alarm where there is one, else the newest; "": nothing.

    An alarm keeps more than its segment with people: nobody knows what else is not as it was.
    """
    standing = [alarm for alarm in alarms if alarm.version == version or not alarm.outlived]
    own = [alarm for alarm in standing if alarm.segment == segment]
    return (own or standing)[-1].said if standing else ""


class Certification(Proof, frozen=True, kw_only=True):
    """The rule by which gateways answer and draw while the policy of `model` has an alpha; itself the rest's proof.

    `epoch` names the draws; thresholds are in the scale of `scorer`. `segments` are the proofs of the policy's
    segments, by name, and `others` those of other versions, by version and segment: a gateway answers by them as long,
    or as soon, as such a version is live there. `share` in (0, 1] of what is answered is audited, or the policy's share
    where that is more. `versions`: all that are under certification, for whom records say what they would have
    answered. `lost` are names that gateways went by and why nothing they tell counts any more: each takes another name.

    While any of `alarms` stands for a version, all requests go to people but those that a proof answers: whatever is
    proved here was proved after them. `alarm` says what stands for `version`. An `alarm` without `alarms` (the evidence
    is not what it was, or a certifier of before there were `alarms` wrote this) leaves no proof standing.
    """

    epoch: str
    scorer: str
    versions: tuple[str, ...] = ()
    segments: dict[str, Proof] = {}
    others: dict[str, dict[str, Proof]] = {}
    share: float = 0.0
    alarm: str = ""
    alarms: tuple[Alarm, ...] = ()
    lost: dict[str, str] = {}

    def proof(self, segment: str, version: str) -> Proof | None:
        """Return what is proved of a segment, or of the rest, for `version`; None: nothing was said."""
        if self.alarm and not self.alarms:
            return None
        if version != self.version and version in self.others:
            return self.others[version].get(segment)
        return self.segments.get(segment) if segment else self

    def alarm_of(self, version: str, segment: str) -> str:
        """Return what keeps with people all of a segment, or of the rest, that nothing is proved of; "": no alarm."""
        return said_of(self.alarms, version, segment) if self.alarms else self.alarm


class Stage(StrEnum):
    """How far the proof is: no alpha is set, confidences are gathered for a grid, evidence is, tau is in force, or an
    alarm took it back and it is not there anew.
    """  # noqa: D205 - one sentence needs two lines

    OFF = "off"
    SURVEYING = "surveying"
    PROVING = "proving"
    CERTIFIED = "certified"
    ALARMED = "alarmed"


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold that is to be proved, and what was counted from it on.

    `log_peak` is ln of the highest evidence so far, `log_needed` what it takes (0: not said, ln 1 / delta), `proved`
    whether it is. `coverage` in [0, 1] is the share of the population that it lets through; `audits` of these were
    counted, of which `errors` were wrong; `seen_error` is the share of wrong ones by weight, since the unsure are
    audited more often. None where nothing is known.
    """

    threshold: float
    log_peak: float = 0.0
    log_needed: float = 0.0
    proved: bool = False
    coverage: float | None = None
    audits: int = 0
    errors: int = 0
    seen_error: float | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the proof of a model stands at the second `watermark`, in words and numbers.

    `coverage` in [0, 1] is the share of the population that `tau` lets through, `error_bound` an upper bound on the
    wrong ones among these; `audits` have been counted, `audits_needed` more are expected to certify or to loosen, None
    where nobody can tell. `advice` is a sentence: what would change it. `miss` is the estimated share of wrong answers
    that a single reviewer let pass, `reviewer_error` what gold items say, `share` which share of all that the model is
    asked is in this segment, or in the rest; None where nothing is known.
    `thresholds` are of the process told of, strictest first. `digest` is that of the newest row of the chain.
    Where the policy has segments all this is of the rest, and `segments` has the same of each, by name; `challengers`
    has that of each version in shadow, by its number.
    Of what a plan goes by, whatever is promised: `requests_per_hour`, 0 where nobody knows, and by threshold of the
    newest process, strictest first, its coverage and what share of its answers is thought wrong (`risks`); `processes`
    is how many there were.
    """

    stage: Stage
    alpha: float
    delta: float
    version: str = ""
    epoch: str = ""
    certificate: str = ""
    tau: float | None = None
    coverage: float | None = None
    error_bound: float | None = None
    audits: int = 0
    audits_needed: int | None = None
    requests: int = 0
    watermark: int = 0
    expire_second: int = 0
    thresholds: tuple[Threshold, ...] = ()
    advice: str = ""
    miss: float | None = None
    reviewer_error: float | None = None
    digest: str = ""
    segments: dict[str, Standing] = {}
    challengers: dict[str, Standing] = {}
    share: float | None = None
    requests_per_hour: float = 0.0
    risks: tuple[tuple[float, float], ...] = ()
    processes: int = 0
