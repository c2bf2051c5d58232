"""What a gateway tells of the requests that were sampled, and of its seconds: the rows of a certificate's evidence.

A request that goes to a person, or whose answer is audited, is sampled: it has a record, made before anybody can know
its label. For each second a gateway says how many requests there were and how many of them were sampled, so that
nothing can go missing unseen. `trainer.rows` has the other rows and the chain that all of them stand in.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, TypeAlias

import msgspec

from fallback.errors import InvalidError

HISTOGRAM_BINS: Final = 20
# Of the requests where reviewer and model agree, those that two more people look at.
AGREEMENT_SHARE: Final = 0.1
SECRET_BYTES: Final = 32
Place: TypeAlias = tuple[int, str, int]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What one version said of a sampled request.

    `prediction` is its answer as canonical JSON; `eligible`: no rule but the threshold would keep the answer back, and
    of its request's rows it is the one that was drawn to be evidence. `eligibility` names the rules that this was
    judged by (`gateway.policy.Policy`).
    """

    version: str
    scorer: str
    confidence: float
    prediction: str
    eligible: bool
    eligibility: str = ""


class SampledRecord(msgspec.Struct, frozen=True, kw_only=True, tag="sampled"):
    """A request that was deferred or audited, as it was before anybody saw its label.

    `counter` counts the sampled requests of its gateway. `q` in (0, 1] is the probability of a blind review by the rule
    in force, `floor` <= q the lowest such probability that any request had at that moment (p in the mathematics);
    `draw` in [0, 1) is HMAC(secret of `epoch`, model | epoch | request_key), and a blind review was due if draw < q.
    `scored` has the version that served the request first, and every other that is under certification.
    A request that was refused because a queue was full is recorded too; its label never comes.
    """

    second: int
    gateway: str
    counter: int
    model: str
    epoch: str
    segment: str
    request_key: str
    q: float
    floor: float
    draw: float
    scored: tuple[Scored, ...]

    @property
    def place(self) -> Place:
        """Where it stands in the order that was fixed before any label was known."""
        return self.second, self.gateway, self.counter

    @property
    def drawn(self) -> bool:
        """Whether a blind review was due; the record has a factor other than 1 only then."""
        return self.draw < self.q


class ClosingRow(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """A gateway will put nothing more into this second, nor into an earlier one; each that it skipped had nothing.

    Counts are of this second: requests of the population (`eligible`, one row of each), rows answered automatically,
    sampled rows, and the confidences of the eligible by `HISTOGRAM_BINS` equal bins of [0, 1]. `final`: the gateway
    ended in good order.
    """

    second: int
    gateway: str
    eligible: int
    answered: int
    sampled: int
    histogram: tuple[int, ...]
    final: bool = False


class JoinRow(msgspec.Struct, frozen=True, kw_only=True, tag="join"):
    """A gateway (a name of this one start of it) will close every second from `second` on; others wait for it."""

    second: int
    gateway: str


class UnparkedRow(msgspec.Struct, frozen=True, kw_only=True, tag="unparked"):
    """Nobody will ever be asked about this record: its client went away before its row was parked, its queue was full.

    It comes after its record and is told to the certifier alone: in the chain it is a label without a truth.
    """

    second: int
    gateway: str
    counter: int

    @property
    def place(self) -> Place:
        """Which record it is of."""
        return self.second, self.gateway, self.counter


def commit(secret: bytes) -> str:
    """Return what an epoch's first row says of its secret; raises InvalidError for one short enough to be guessed."""
    if len(secret) < SECRET_BYTES:
        raise InvalidError(f"secret: expected {SECRET_BYTES} bytes or more, got {len(secret)}")
    return hashlib.sha256(b"demur draw 1\0" + secret).hexdigest()


def epoch_secret(secret: bytes, *, model: str, epoch: str) -> bytes:
    """Return what the draws of one epoch are made with, from what all processes of a system share.

    Revealing it when the epoch is over tells nothing of any other.
    """
    parts = (part.encode() for part in (model, epoch))
    message = b"demur epoch 1" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return hmac.digest(secret, message, hashlib.sha256)


def agreement_epoch(epoch: str) -> str:
    """Return the epoch that this share is drawn by; that of the audits is below their share for all that is audited."""
    return f"{epoch}/agreement"


def row_epoch(epoch: str) -> str:
    """Return the epoch by which the row that is evidence is drawn of a request's rows."""
    return f"{epoch}/row"


def place_text(place: Place) -> str:
    """Return a place as it stands in a deferral: <second>-<gateway>-<counter>."""
    second, gateway, counter = place
    return f"{second}-{gateway}-{counter}"


def place_of(text: str) -> Place:
    """Read a place; raises InvalidError."""
    match text.split("-"):
        case [second, gateway, counter] if second.isdecimal() and counter.isdecimal() and gateway:
            return int(second), gateway, int(counter)
        case _:
            raise InvalidError(f"place: expected <second>-<gateway>-<counter>, got {text[:100]!r}")
