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
from gateway.samples import ClosingRow, JoinRow, Place, SampledRecord, UnparkedRow


class LabelRow(msgspec.Struct, frozen=True, kw_only=True, tag="label"):
    """How the blind reviews of one sampled record ended; the first such row of a record stands.

    `truth` is the adjudicated answer as canonical JSON; None: skipped, expired, cancelled or without a majority, which
    counts as an error of every version. `wrong` has the versions whose prediction was wrong by the task's rule.
    `reviewed`: at least one person looked; where nobody did, that says nothing of the model, so no alarm counts it.
    """

    second: int
    gateway: str
    counter: int
    truth: str | None
    wrong: tuple[str, ...]
    reviewed: bool = True

    @property
    def place(self) -> Place:
        """Which record it is of."""
        return self.second, self.gateway, self.counter


class LostRow(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """A gateway died with its disk: its seconds that no earlier row closed are left out whole, for every threshold.

    `why` is for people.
    """

    gateway: str
    why: str = ""


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
    """One process begins: it counts records of `segment` ("": the rest) from `first_second` to `last_second`.

    `epoch` names the process, not the draws: overlapping processes share these. `delta` is what this process has,
    `grid` its thresholds from the strictest to the loosest. `shares` are those of delta that each has to itself; none
    were said before there were any, and then the strictest has all (see `trainer.certificate`). `eligibility`
    (`gateway.policy.Policy`) says which requests a rule lets through at all: with another one, another process.
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
    eligibility: str = ""
    shares: tuple[float, ...] = ()


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
# What gateways tell the certifier; not all of it stands in the chain as they tell it.
Arrived: TypeAlias = Row | UnparkedRow


# What msgspec raises for bytes that are no row, the last two for a text that is no UTF-8 and for brackets without end.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Made once: to look at the union of all rows takes ten times as long as to read one.
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Row]] = msgspec.json.Decoder(Row)
_ARRIVED: Final[msgspec.json.Decoder[Arrived]] = msgspec.json.Decoder(Arrived)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it is kept: its bytes and its digest (hex)."""

    body: bytes
    digest: str


def encode(row: Arrived) -> bytes:
    """Return a row's bytes: JSON in the order of the fields, numbers as short as they read back the same."""
    return _ENCODER.encode(row)


def decode(body: bytes) -> Row:
    """Return the row of `body`; raises InvalidError where it is none."""
    try:
        return _DECODER.decode(body)
    except UNREADABLE as error:
        raise InvalidError(f"ledger: expected a row, got {body[:100]!r}: {error}") from error


def arrived(body: bytes) -> Arrived:
    """Return what a gateway told; raises InvalidError where it is no row."""
    try:
        return _ARRIVED.decode(body)
    except UNREADABLE as error:
        raise InvalidError(f"arrivals: expected a row, got {body[:100]!r}: {error}") from error


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
