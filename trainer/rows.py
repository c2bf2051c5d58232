"""The rows from which a certificate can be computed again, and the chain that shows whether one was changed.

Everything that counts is a row, in one order: the chain. A row's digest is SHA-256 over the digest before it and the
row's own bytes, so that no row can be changed, left out or put in without breaking every later one. What a chain
alone cannot show is that its end was cut off; whoever keeps a later digest (a certificate names one) can.

The rows of a model: `EpochRow` and `ProcessRow` say beforehand what will be judged and how; `JoinRow`, `ClosingRow` and
`LostRow` say which seconds of which gateway are whole; `SampledRecord` and `LabelRow` are the evidence; `WatermarkRow`
and `CertificateRow` are what was concluded; `RevealRow` ends an epoch. `trainer.watermark` says how they are counted.
Seconds are Unix seconds of the gateway's clock, which it never lets run backwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from fallback.errors import InvalidError

HISTOGRAM_BINS: Final = 20
SECRET_BYTES: Final = 32
Place: TypeAlias = tuple[int, str, int]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What one version said of a sampled request.

    `prediction` is its answer as canonical JSON; `eligible`: no rule but the threshold would keep the answer back.
    """

    version: str
    scorer: str
    confidence: float
    prediction: str
    eligible: bool


class SampledRecord(msgspec.Struct, frozen=True, kw_only=True, tag="sampled"):
    """A request that was deferred or audited, as it was before anybody saw its label.

    `counter` counts the sampled requests of its gateway. `q` in (0, 1] is the probability of a blind review by the rule
    in force, `floor` <= q the lowest such probability that any request had at that moment (p in the mathematics);
    `draw` in [0, 1) is HMAC(secret of `epoch`, model | epoch | request_key), and a blind review was due if draw < q.
    `scored` has the version that served the request and every other that is under certification.
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


class LabelRow(msgspec.Struct, frozen=True, kw_only=True, tag="label"):
    """How the blind reviews of one sampled record ended; the first such row of a record stands.

    `truth` is the adjudicated answer as canonical JSON; None: skipped, expired, cancelled or without a majority, which
    counts as an error of every version. `wrong` has the versions whose prediction was wrong by the task's rule.
    """

    second: int
    gateway: str
    counter: int
    truth: str | None
    wrong: tuple[str, ...]

    @property
    def place(self) -> Place:
        """Which record it is of."""
        return self.second, self.gateway, self.counter


class ClosingRow(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """A gateway will put nothing more into this second, nor into an earlier one; each that it skipped had nothing.

    Counts are of this second: requests of the population (`eligible`), those answered automatically, sampled ones, and
    all confidences by `HISTOGRAM_BINS` equal bins of [0, 1]. `final`: the gateway ended in good order.
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


class LostRow(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """A gateway died with its disk: its seconds that no earlier row closed are left out whole, for every threshold."""

    gateway: str


class EpochRow(msgspec.Struct, frozen=True, kw_only=True, tag="epoch"):
    """The draws of `epoch` will be made with the secret of this `commitment` (`commit`); stands before all of them.

    The watermark waits for a label or a record until `sla_seconds` after its second. `exact`: a prediction is wrong
    where it is another than the truth, as with labels; otherwise by the task's rule, which the ledger does not hold.
    """

    model: str
    epoch: str
    commitment: str
    sla_seconds: int
    exact: bool = True


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True, tag="process"):
    """One process begins: it counts records of `segment` ("": of all) from `first_second` to `last_second`.

    `epoch` names the process, not the draws: overlapping processes share these. `delta` is what this process has,
    `grid` its thresholds from the strictest to the loosest.
    """

    epoch: str
    version: str
    scorer: str
    segment: str
    alpha: float
    delta: float
    grid: tuple[float, ...]
    first_second: int
    last_second: int


class WatermarkRow(msgspec.Struct, frozen=True, kw_only=True, tag="watermark"):
    """All records up to `second` are counted, by the rows before this one; labels were read up to second `reached`."""

    second: int
    reached: int


class CertificateRow(msgspec.Struct, frozen=True, kw_only=True, tag="certificate"):
    """What a process had proved by the watermark before this row; tau None: nothing yet.

    By threshold, `log_peaks` is ln sup K and `log_evidence` ln K as it stood then, both cut off at 490.
    """

    epoch: str
    version: str
    segment: str
    log_peaks: tuple[float, ...]
    log_evidence: tuple[float, ...]
    tau: float | None


class RevealRow(msgspec.Struct, frozen=True, kw_only=True, tag="reveal"):
    """The epoch's draws are over: its secret (hex), by which everybody can check them."""

    epoch: str
    secret: str


Row: TypeAlias = (
    SampledRecord
    | LabelRow
    | ClosingRow
    | JoinRow
    | LostRow
    | EpochRow
    | ProcessRow
    | WatermarkRow
    | CertificateRow
    | RevealRow
)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it is kept: its bytes and its digest (hex)."""

    body: bytes
    digest: str


def encode(row: Row) -> bytes:
    """Return a row's bytes: JSON in the order of the fields, numbers as short as they read back the same."""
    return msgspec.json.encode(row)


def decode(body: bytes) -> Row:
    """Return the row of `body`; raises InvalidError where it is none."""
    try:
        row: Row = msgspec.json.decode(body, type=Row)
    except msgspec.DecodeError as error:
        raise InvalidError(f"ledger: expected a row, got {body[:100]!r}: {error}") from error
    return row


def genesis(model: str) -> str:
    """Return the digest before the first row of `model`."""
    return hashlib.sha256(b"demur ledger 1\0" + model.encode()).hexdigest()


def chain(previous: str, body: bytes) -> str:
    """Return the digest (hex) of a row with these bytes after the one of digest `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + body).hexdigest()


def link(previous: str, rows: Iterable[Row]) -> list[Link]:
    """Return `rows` as they are kept after the one of digest `previous`."""
    links = []
    for row in rows:
        body = encode(row)
        previous = chain(previous, body)
        links.append(Link(body=body, digest=previous))
    return links


def first_break(first: str, links: Iterable[Link]) -> int | None:
    """Return the place (from 0) of the first row whose digest does not follow; None where all do."""
    for place, kept in enumerate(links):
        first = chain(first, kept.body)
        if first != kept.digest:
            return place
    return None


def commit(secret: bytes) -> str:
    """Return what an epoch's first row says of its secret; raises InvalidError for one short enough to be guessed."""
    if len(secret) < SECRET_BYTES:
        raise InvalidError(f"secret: expected {SECRET_BYTES} bytes or more, got {len(secret)}")
    return hashlib.sha256(b"demur draw 1\0" + secret).hexdigest()
