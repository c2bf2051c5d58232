"""Gateways, people and a clock around the real certifier and its real chain: what the running system does, in seconds.

Gateways draw and answer by the `Certification` that the certifier told; people answer after a while. Whatever the test
kills, the next certifier begins with what is on the disk, while the streams go on from the cursors found there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from fallback.answer import Label
from fallback.deferral import Review, Source
from gateway.certification import Certification, Standing
from gateway.policy import draw
from gateway.promise import Promise
from gateway.samples import ClosingRow, JoinRow, SampledRecord, Scored, UnparkedRow, epoch_secret, place_text
from trainer import rows, snapshot
from trainer.adjudicate import Share
from trainer.book import Book
from trainer.certifier import Certifier, Ground, News
from trainer.chain import Chain, Notes
from trainer.labels import Told
from trainer.rows import Arrived, Row
from trainer.standing import certification, standing
from trainer.terms import Terms
from trainer.verify import Finding, verify

MODEL = "m"
SECRET = bytes(range(32))
START = 1_700_000_000
TRUE, FALSE = (msgspec.json.encode(Label(label), order="sorted").decode() for label in ("true", "false"))
GROUND = Ground(sla_seconds=60, survey_requests=100, lost_seconds=120)


def terms(alpha: float = 0.1, **changes: object) -> Terms:
    """What the tests ask for, unless they say otherwise."""
    wanted: dict[str, object] = {
        "promise": Promise(alpha=alpha),
        "version": "1",
        "scorer": "margin",
        "eligibility": "e",
        "audit_share": 0.3,
        "expire_seconds": 100_000,
    }
    return Terms(**{**wanted, **changes})  # type: ignore[arg-type] # a test's own words


@dataclass(slots=True, kw_only=True)
class Gateway:
    """One start of a gateway: its name, by how much its clock is ahead, what it told and has not sent."""

    name: str
    skew: int = 0
    counter: int = 0
    version: str = "1"
    joined: bool = False
    dead: bool = False
    rules: str = ""
    cut_off: bool = False
    spool: list[Arrived] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class World:
    """Everything around one model; `risk` are the chances of an error at and above each tenth of confidence.

    A share `north_share` of the requests is in the segment, where there is one, and errs with `north_risk` besides.
    """

    folder: Path
    asked: Terms
    north: Terms | None = None
    north_share: float = 0.5
    north_risk: float = 0.0
    challenger: Terms | None = None
    challenger_risk: float = 0.0
    seed: int = 1
    per_second: int = 5
    risk: tuple[float, ...] = (0.6, 0.5, 0.4, 0.3, 0.2, 0.02, 0.02, 0.02, 0.02, 0.02)
    label_seconds: float = 4.0
    ground: Ground = GROUND
    gateways: list[Gateway] = field(default_factory=lambda: [Gateway(name="a"), Gateway(name="b", skew=3)])
    now: int = START
    stream: list[bytes] = field(default_factory=list)
    ledger: list[Told] = field(default_factory=list)
    due: list[tuple[int, Told]] = field(default_factory=list)
    rule: Certification | None = None
    sent: int = 0
    answered: int = 0
    answered_wrong: int = 0
    silent: bool = False
    unparked: bool = False
    hole_share: float = 0.0
    never_share: float = 0.0
    holes: int = 0
    skipped: int = 0
    secret: bytes = SECRET
    retries: list[SampledRecord] = field(default_factory=list)
    certifier: Certifier | None = None
    chain: Chain | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def run(self, seconds: int) -> None:
        """Let time pass, a step of the certifier each second."""
        for _ in range(seconds):
            self.tick()
            self.step()

    def run_until(self, condition: Callable[[], bool], *, most: int) -> None:
        """Let time pass until `condition` holds; raises AssertionError where it does not within `most` seconds."""
        for _ in range(most):
            if condition():
                return
            self.run(1)
        raise AssertionError(f"not within {most} seconds")

    def tick(self) -> None:
        """Let a second pass at the gateways and among the people."""
        self.now += 1
        for gateway in self.gateways:
            if not gateway.dead:
                self._serve(gateway)
            if not gateway.cut_off:
                self.stream += [rows.encode(row) for row in gateway.spool]
                gateway.spool = []
        ready = [told for when, told in self.due if when <= self.now]
        self.due = [(when, told) for when, told in self.due if when > self.now]
        for told in ready:
            self.ledger.append(msgspec.structs.replace(told, row=len(self.ledger) + 1))

    def open(self) -> tuple[Certifier, Chain]:
        """Begin with what is on the disk."""
        if self.certifier is None or self.chain is None:
            self.chain = Chain(self.folder, MODEL)
            book, start = snapshot.read(self.chain, self.secret) or (Book(model=MODEL), None)
            self.skipped = book.rows
            self.chain.open(book.take, start)
            self.certifier = Certifier(
                book=book,
                secret=self.secret,
                ground=self.ground,
                read_row=self.chain.notes.ledger_row,
                agreed=self.chain.notes.agreed,
                overturned=self.chain.notes.overturned,
            )
        return self.certifier, self.chain

    def step(self, *, write: bool = True, tell: bool = True) -> None:
        """Do what `trainer.certify` does in a step; without `write` or `tell` the process is killed before that."""
        certifier, chain = self.open()
        cursor = int(chain.notes.arrivals)
        arrived = [rows.arrived(body) for body in self.stream[cursor:]]
        told = self.ledger[certifier.read_row :]
        links = certifier.step(News(now=self.now, reached=self.now - 2, arrived=arrived, told=told), self.terms)
        certifier.read_row = len(self.ledger)
        notes = Notes(
            arrivals=str(cursor + len(arrived)),
            ledger_row=certifier.ledger_row,
            agreed=certifier.agreed,
            overturned=certifier.overturned,
        )
        if not write:
            self.kill()
            return
        if links or arrived:
            chain.append(links, notes)
            if chain.full:
                snapshot.write(chain, certifier.book, self.secret)
        if not tell:
            self.kill()
            return
        self.rule = certification(certifier.book, self.terms, self.now, certifier.lost)

    @property
    def terms(self) -> list[Terms]:
        """What is asked: of the rest, of the segment where there is one, of a challenger."""
        return [terms for terms in (self.asked, self.north, self.challenger) if terms is not None]

    def kill(self) -> None:
        """Forget everything that is not on the disk."""
        self.certifier = self.chain = None

    @property
    def book(self) -> Book:
        """What the certifier knows."""
        return self.open()[0].book

    def _serve(self, gateway: Gateway) -> None:
        second = self.now + gateway.skew
        if not gateway.joined:
            gateway.spool.append(JoinRow(second=second, gateway=gateway.name))
            gateway.joined = True
        sampled = answered = 0
        rule = self.rule
        confidences = self.rng.random(self.per_second)
        if rule is not None:
            for confidence in confidences:
                segment = self.north.segment if self.north is not None and self.rng.random() < self.north_share else ""
                proof = rule.proof(segment, gateway.version)
                tau = None if proof is None else proof.threshold(gateway.version, second)
                wrong = bool(self.rng.random() < self.risk[int(confidence * len(self.risk))])
                if segment and self.north_risk:
                    wrong = wrong or bool(self.rng.random() < self.north_risk)
                automatic = tau is not None and bool(confidence >= tau)
                sampled += self._decide(
                    gateway, rule, second, float(confidence), wrong, automatic, tau is not None, segment
                )
                answered += automatic
                self.answered += automatic
                self.answered_wrong += automatic and wrong
        while self.retries:
            gateway.counter += 1
            again = {"second": second, "gateway": gateway.name, "counter": gateway.counter}
            gateway.spool.append(msgspec.structs.replace(self.retries.pop(), **again))
            sampled, self.sent = sampled + 1, self.sent + 1
        histogram = np.bincount((confidences * 20).astype(int), minlength=20)
        gateway.spool.append(
            ClosingRow(
                second=second,
                gateway=gateway.name,
                eligible=len(confidences),
                answered=answered,
                sampled=sampled,
                histogram=tuple(histogram.tolist()),
            )
        )

    def _decide(
        self,
        gateway: Gateway,
        rule: Certification,
        second: int,
        confidence: float,
        wrong: bool,
        automatic: bool,
        certified: bool,
        segment: str,
    ) -> bool:
        share = max(self.asked.audit_share, rule.share)
        key = f"client/{gateway.name}/{second}/{gateway.counter}/{self.rng.integers(1 << 30)}"
        number = draw(
            epoch_secret(self.secret, model=MODEL, epoch=rule.epoch), model=MODEL, epoch=rule.epoch, request_key=key
        )
        q = share if automatic else 1.0
        if number >= q:
            return False
        gateway.counter += 1
        scored = Scored(
            version=gateway.version,
            scorer="margin",
            confidence=confidence,
            prediction=TRUE,
            eligible=True,
            eligibility=gateway.rules or self.asked.eligibility,
        )
        others: tuple[Scored, ...] = ()
        if self.challenger is not None:
            right, other_wrong = FALSE if wrong else TRUE, self.rng.random() < self.challenger_risk
            said = (TRUE if wrong else FALSE) if other_wrong else right
            other = {"version": self.challenger.version, "prediction": said}
            others = (msgspec.structs.replace(scored, **other, confidence=float(self.rng.random())),)
        record = SampledRecord(
            second=second,
            gateway=gateway.name,
            counter=gateway.counter,
            model=MODEL,
            epoch=rule.epoch,
            segment=segment,
            request_key=key,
            q=q,
            floor=share if certified else 1.0,
            draw=number,
            scored=(scored, *others),
        )
        if self.rng.random() < self.hole_share:
            self.holes += 1
            return True
        gateway.spool.append(record)
        self.sent += 1
        if self.silent and self.unparked:
            gateway.spool.append(UnparkedRow(second=second, gateway=gateway.name, counter=gateway.counter))
        if not self.silent and self.rng.random() >= self.never_share:
            # Errors take people longer.
            wait = self.rng.exponential(self.label_seconds) * (5 if wrong else 1)
            self.due.append((self.now + int(wait), told(record, FALSE if wrong else TRUE)))
        return True


def told(record: SampledRecord, *answers: str, source: Source = Source.PERSON, row: int = 0) -> Told:
    """What the ledger of outcomes has of a record that people answered so."""
    return Told(
        row=row,
        place=place_text(record.place),
        epoch=record.epoch,
        source=source,
        reviews=tuple(
            Review(
                reviewer=f"r{number}",
                answer=Label(msgspec.json.decode(answer)["label"]),
                create_time=float(number),
                blind=True,
                duration_seconds=1.0,
            )
            for number, answer in enumerate(answers)
        ),
    )


def new_world(folder: Path, **changes: object) -> World:
    return World(**{"folder": folder / "chains", "asked": terms(), **changes})  # type: ignore[arg-type] # a test's own words


def verified(world: World) -> Finding:
    return verify(MODEL, Chain(world.folder, MODEL).links())


def rows_written(world: World) -> list[Row]:
    return [rows.decode(link.body) for link in Chain(world.folder, MODEL).links()]


R = TypeVar("R", bound=Row)


def rows_of(kind: type[R], world: World) -> list[R]:
    return [row for row in rows_written(world) if isinstance(row, kind)]


def standing_of(world: World) -> Standing:
    return standing(world.book, world.asked, GROUND, now=world.now, miss=Share(count=0, total=0))
