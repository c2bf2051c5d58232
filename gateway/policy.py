"""What an operator decides for one model, and the draw that says whether a request is audited. Pure."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, Final, Literal

import msgspec

from gateway.confidence import Scorer
from gateway.promise import RISK_MAX, Promise
from gateway.segments import REST, Segment

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Risk = Annotated[float, msgspec.Meta(gt=0.0, le=RISK_MAX)]
EXPIRE_DAYS_MAX: Final = 3_650
REVIEWS_PER_HOUR_MAX: Final = 1_000_000
_DRAW_BITS: Final = 53


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator decided; all shares and thresholds in [0, 1].

    `class_thresholds` override `threshold` by predicted label; `always_person` are labels that always go to a person;
    `audit_share` of the answered requests are also checked by one; `allow_model_wish`: a client may have the model's
    answer whatever its confidence, marked as unreviewed.

    `alpha`: at most this share of the automatic answers wrong, with confidence 1 - `delta`; None: no promise, and
    `threshold` answers. All that follows counts only beside an alpha. `scorer`: what the proved threshold is compared
    with, empty for the margin. `reviews_per_hour_max` is what people manage, None where nobody said. A certificate
    ends after `expire_days`. `lifetime`: delta is shared out over all certificates that the model will ever have.
    `until_proved`: while nothing is proved, "ask" a person about everything, or let the operator's own threshold
    "answer", marked as uncertified. `segments` have a promise and a proof each; what is in none of them is the rest.
    """

    threshold: Share = 0.9
    class_thresholds: dict[str, Share] = {}
    always_person: tuple[str, ...] = ()
    audit_share: Share = 0.1
    allow_model_wish: bool = False
    alpha: Risk | None = None
    delta: Risk = 0.05
    scorer: Literal["", "margin", "max_softmax", "energy", "learned"] = ""
    reviews_per_hour_max: Annotated[float, msgspec.Meta(gt=0.0, le=REVIEWS_PER_HOUR_MAX)] | None = None
    expire_days: Annotated[float, msgspec.Meta(gt=0.0, le=EXPIRE_DAYS_MAX)] = 30.0
    lifetime: bool = False
    until_proved: Literal["ask", "answer"] = "ask"
    segments: tuple[Segment, ...] = ()

    def promise(self, segment: str = REST) -> Promise | None:
        """Return what is promised of a segment, or of the rest; None where nothing is."""
        if self.alpha is None:
            return None
        found = next((each for each in self.segments if each.name == segment), None)
        if found is None:
            return Promise(alpha=self.alpha, delta=self.delta)
        return Promise(alpha=found.alpha or self.alpha, delta=found.delta or self.delta)

    @property
    def scored_by(self) -> Scorer:
        """What is compared with the threshold that answers: without an alpha always the largest probability."""
        if self.alpha is None:
            return Scorer.MAX_SOFTMAX
        return Scorer(self.scorer) if self.scorer else Scorer.MARGIN

    @property
    def eligibility(self) -> str:
        """Return a digest of what says which requests may be answered at all, and which are in which segment.

        Of these alone a proof says anything.
        """
        parts: list[Any] = [sorted(self.class_thresholds.items()), sorted(set(self.always_person))]
        if self.segments:
            parts.append([(each.name, sorted(each.attributes.items())) for each in self.segments])
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def draw(secret: bytes, *, model: str, epoch: str, request_key: str) -> float:
    """Return the number in [0, 1) that decides whether a request is audited; the same for a retry with the same key.

    HMAC-SHA-256 over the length-prefixed parts: whoever does not know `secret` can neither foresee nor steer it.
    """
    parts = (part.encode() for part in (model, epoch, request_key))
    message = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    digest = hmac.digest(secret, message, hashlib.sha256)
    return (int.from_bytes(digest[:8], "big") >> (64 - _DRAW_BITS)) / (1 << _DRAW_BITS)
