"""Keeps the certificates of all models whose policy promises an error rate: the doing around `trainer.certifier`.

A step reads what gateways told and what people said, has the model's `Certifier` say what follows, writes that into its
chain, and only then tells the gateways (`certifications/<model>`) and people (`standings/<model>`). Whatever dies in
between, the next start finds in the chain how far it is, and tells again what follows from it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from fallback.arrivals import READ_MAX, START, Arrivals
from fallback.config import Config
from fallback.documents import Document, Documents
from fallback.errors import AbortedError, DemurError
from fallback.gold import Golds
from fallback.secret import secret
from gateway import lifecycle
from gateway.certification import CERTIFICATIONS, STANDINGS, Alarm, Certification, Standing
from gateway.manifest import Manifest
from gateway.policy import Policy
from gateway.promise import Promise
from gateway.segments import REST
from gateway.watch import MODELS, POLICIES
from trainer import chain, rows, snapshot, standing
from trainer.adjudicate import Share
from trainer.book import Book
from trainer.certifier import Certifier, Ground, News
from trainer.chain import BrokenError, Chain, Notes
from trainer.ledger import position_of
from trainer.retrain import Rooms
from trainer.rows import Arrived
from trainer.terms import Terms

# Outcomes of the last seconds may still be on their way into their stream.
REACHED_SECONDS: Final = 2
# Beside the time that people have: until a request is parked, and until what nobody answered has expired.
SLA_MARGIN_SECONDS: Final = 600
_STANDING_SECONDS: Final = 2.0
_GOLD_SECONDS: Final = 10.0
_NO_GOLD: Final = Share(count=0, total=0)
_LOOK_SECONDS: Final = 60.0
_NOTHING: Final = "0-0"
_DAY: Final = 86_400

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class Progress:
    """How far the ledger of outcomes is: its last row, and up to which second (server's clock) it has everything."""

    last_row: int = 0
    reached: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """One model under certification in this process."""

    chain: Chain
    certifier: Certifier
    told: float = 0.0
    looked: float = 0.0
    standing: tuple[str, Sequence[Terms], Share] | None = None
    alarms: frozenset[Alarm] = frozenset()
    rang: bool = False
    challenged: bool = False
    gold: Share = _NO_GOLD
    gold_looked: float = -math.inf


@dataclass(slots=True, kw_only=True, eq=False)
class Certify:
    """The certifiers of this process, which holds the ledger's lock. `golds`: what gold items say of reviewers."""

    config: Config
    rooms: Rooms
    arrivals: Arrivals
    documents: Documents
    progress: Progress
    golds: Golds
    _open: dict[str, _Open] = field(default_factory=dict)
    _manifests: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    async def step(self) -> bool:
        """Do one step for every model with a promise; True where there is more to do at once.

        One model's trouble does not keep the others waiting: it is raised when all have had their turn.
        """
        documents = await self.documents.read_all("")
        more, problems = False, list[DemurError]()
        for key, document in documents.items():
            model = key.removeprefix(MODELS)
            if not key.startswith(MODELS):
                continue
            try:
                found = await self._asked(model, document, documents.get(POLICIES + model))
                if found is not None:
                    more |= await self._step(model, *found, documents)
            except BrokenError as error:
                await self._take_back(model, documents, error)
                problems.append(error)
            except DemurError as error:
                problems.append(error)
            except Exception:
                # What nobody foresaw in one model must end neither the ledger nor the other models.
                log.exception("certifying failed for a reason that nobody foresaw", model=model)
                problems.append(DemurError(f"{model} could not be certified: internal error, see the log"))
        if problems:
            raise problems[0]
        return more

    def rang(self) -> bool:
        """Return whether an alarm rang since this was asked."""
        found = any(each.rang for each in self._open.values())
        for each in self._open.values():
            each.rang = False
        return found

    def challenged(self) -> set[str]:
        """Return the models that have a version in shadow under certification."""
        return {model for model, each in self._open.items() if each.challenged}

    def alarms(self) -> Mapping[str, int]:
        """Return the models whose promise is not kept, and the second up to which that was seen."""
        return {
            model: max(alarm.second for alarm in alarms)
            for model, each in self._open.items()
            if (alarms := _standing(each.certifier.book))
        }

    async def _asked(
        self, model: str, states: Document, policy: Document | None
    ) -> tuple[Sequence[Terms], Ground] | None:
        """Return what is asked for, None where nothing is live or promised."""
        decoded = lifecycle.decode(states.body)
        if not decoded.champion:
            return None
        manifests = await self._manifests_of(model, [decoded.champion, *lifecycle.shadows(decoded)])
        rule = None if policy is None else msgspec.json.decode(policy.body, type=Policy)
        asked = [
            terms for version, manifest in manifests.items() for terms in terms_of(rule or manifest.policy, version)
        ]
        # A challenger is judged beside what answers by a promise.
        if not asked or asked[0].version != decoded.champion:
            return None
        return asked, self._ground(manifests[decoded.champion])

    async def _manifests_of(self, model: str, versions: Sequence[str]) -> dict[str, Manifest]:
        """Return the manifests of some versions, which never change."""
        found = {}
        for version in versions:
            known = self._manifests.get((model, version))
            found[version] = known or (await asyncio.to_thread(self.rooms.registry.get, model, version)).manifest
        self._manifests = {key: kept for key, kept in self._manifests.items() if key[0] != model}
        self._manifests.update({(model, version): manifest for version, manifest in found.items()})
        return found

    def _ground(self, manifest: Manifest) -> Ground:
        queue, settings = self.config.queue(manifest.review_queue), self.rooms.settings
        seconds = queue.review_seconds * max(1, len(queue.tiers)) + queue.undo_seconds + SLA_MARGIN_SECONDS
        return Ground(
            sla_seconds=int(seconds),
            survey_requests=settings.survey_requests,
            lost_seconds=settings.lost_seconds,
        )

    async def _step(
        self, model: str, asked: Sequence[Terms], ground: Ground, documents: Mapping[str, Document]
    ) -> bool:
        mine = self._open.get(model)
        if mine is None:
            mine = self._open[model] = await asyncio.to_thread(self._open_chain, model, ground)
        mine.certifier.ground = ground
        await self._look_at_gold(mine, self._manifests[model, asked[0].version].review_queue)
        mine.challenged = asked[-1].version != asked[0].version
        # Before the ledger is read: what it says of an earlier moment holds of a later one.
        reached = self.progress.reached
        now = await self.arrivals.time(model)
        cursor = mine.chain.notes.arrivals
        came = await self.arrivals.read(model, cursor)
        if not came:
            cursor = await self._notice_lost_history(model, mine, cursor)
        news = News(now=now, reached=reached, arrived=_rows(model, [body for _, body in came]))
        cursor = came[-1][0] if came else cursor
        try:
            await asyncio.to_thread(self._work, model, mine, news, asked, cursor)
        except BaseException:
            # The book may be ahead of the disk: it is read again.
            self._open.pop(model, None)
            raise
        if came:
            await self.arrivals.trim(model, cursor)
        await self._tell(model, mine, asked, now, documents)
        return len(came) >= READ_MAX

    async def _look_at_gold(self, mine: _Open, queue: str) -> None:
        """See how reviewers do with gold items, now and then: it changes slowly."""
        if time.monotonic() - mine.gold_looked < _GOLD_SECONDS:
            return
        found = await self.golds.tried(queue)
        mine.gold, mine.gold_looked = Share(count=found.wrong, total=found.right + found.wrong), time.monotonic()

    def _open_chain(self, model: str, ground: Ground) -> _Open:
        started = time.monotonic()
        kept, key = Chain(self.rooms.data / chain.FOLDER, model), secret(self.config, "audit").encode()
        book, start = snapshot.read(kept, key) or (Book(model=model), None)
        before = book.rows
        kept.open(book.take, start)
        certifier = Certifier(
            book=book,
            secret=key,
            ground=ground,
            read_row=kept.notes.ledger_row,
            agreed=kept.notes.agreed,
            overturned=kept.notes.overturned,
        )
        log.info("read the chain", model=model, rows=kept.rows - before, seconds=round(time.monotonic() - started, 3))
        return _Open(chain=kept, certifier=certifier)

    def _work(self, model: str, mine: _Open, news: News, asked: Sequence[Terms], cursor: str) -> None:
        """Read what people said, take the step, and write what follows."""
        certifier, last = mine.certifier, self.progress.last_row
        if last > certifier.read_row:
            told = self.rooms.ledger.told(model, after=certifier.read_row)
            news = News(now=news.now, reached=news.reached, arrived=news.arrived, told=told)
        links = certifier.step(news, asked)
        # What came into the ledger meanwhile was perhaps read, and is read again.
        certifier.read_row = max(certifier.read_row, last)
        notes = Notes(
            arrivals=cursor,
            ledger_row=certifier.ledger_row,
            agreed=certifier.agreed,
            overturned=certifier.overturned,
            gold=mine.gold.total,
            gold_wrong=mine.gold.count,
        )
        if links or (cursor, notes.gold) != (mine.chain.notes.arrivals, mine.chain.notes.gold):
            mine.chain.append(links, notes)
            if mine.chain.full:
                snapshot.write(mine.chain, certifier.book, certifier.secret)
        for notice in certifier.notices:
            log.warning("evidence", model=model, notice=notice)
        alarms = _standing(certifier.book)
        for alarm in alarms - mine.alarms:
            mine.rang = True
            log.error("ALARM: a promise is not kept; everything goes to people", model=model, alarm=alarm.said)
        mine.alarms = alarms

    async def _tell(
        self, model: str, mine: _Open, asked: Sequence[Terms], now: int, documents: Mapping[str, Document]
    ) -> None:
        book = mine.certifier.book
        rule = standing.certification(book, asked, now, mine.certifier.lost)
        if rule is not None:
            await self._write(CERTIFICATIONS + model, msgspec.json.encode(rule), documents)
        gold = mine.gold
        if mine.standing == (book.digest, asked, gold) or time.monotonic() - mine.told < _STANDING_SECONDS:
            return
        mine.told, mine.standing = time.monotonic(), (book.digest, asked, gold)
        miss = Share(count=mine.certifier.overturned, total=mine.certifier.agreed)
        alarms = standing.standing_alarms(book, asked, now)
        ground = mine.certifier.ground

        def stands() -> Standing:
            found = {(terms.version, terms.segment): one(terms) for terms in asked}
            champion, *challengers = (
                msgspec.structs.replace(
                    found[version, REST],
                    segments={name: each for (whose, name), each in found.items() if whose == version and name},
                )
                for version in dict.fromkeys(terms.version for terms in asked)
            )
            return msgspec.structs.replace(champion, challengers={each.version: each for each in challengers})

        def one(terms: Terms) -> Standing:
            return standing.standing(book, terms, ground, now=now, miss=miss, gold=gold, alarms=alarms)

        told = await asyncio.to_thread(stands)
        await self._write(STANDINGS + model, msgspec.json.encode(told), documents)

    async def _write(self, key: str, body: bytes, documents: Mapping[str, Document]) -> None:
        """Write a document unless it says so already; nobody else writes these."""
        known = documents.get(key)
        if known is not None and known.body == body:
            return
        try:
            await self.documents.write(key, body, expected_revision=known.revision if known else 0)
        except AbortedError:
            log.info("a document changed meanwhile; it is written again in the next step", document=key)

    async def _take_back(self, model: str, documents: Mapping[str, Document], error: BrokenError) -> None:
        """Have everything go to people where the evidence is not what it was: nobody knows what is proved."""
        known = documents.get(CERTIFICATIONS + model)
        if known is None:
            return
        rule = msgspec.json.decode(known.body, type=Certification)
        changed = msgspec.structs.replace(
            rule, tau=None, certificate="", segments={}, others={}, alarm=error.message, alarms=()
        )
        await self._write(CERTIFICATIONS + model, msgspec.json.encode(changed), documents)

    async def _notice_lost_history(self, model: str, mine: _Open, cursor: str) -> str:
        """Begin at the start where the stream never came as far as was read: it is another one than it was."""
        if cursor == START or time.monotonic() - mine.looked < _LOOK_SECONDS:
            return cursor
        mine.looked = time.monotonic()
        newest = await self.arrivals.newest(model)
        if newest == _NOTHING or position_of(newest) >= position_of(cursor):
            return cursor
        log.warning("the server lost its history; what gateways tell is read anew", model=model, cursor=cursor)
        return START


def _standing(book: Book) -> frozenset[Alarm]:
    """Return the alarms of a book that no later version made up for."""
    return frozenset(alarm for alarm in book.alarms.values() if not alarm.outlived)


def terms_of(policy: Policy, version: str) -> tuple[Terms, ...]:
    """Return what a policy asks for: of the rest first, then of each segment; nothing where it has no alpha."""
    names = (REST, *(segment.name for segment in policy.segments))
    promises = ((name, policy.promise(name)) for name in names)
    return tuple(_terms(policy, version, name, promise) for name, promise in promises if promise is not None)


def _terms(policy: Policy, version: str, segment: str, promise: Promise) -> Terms:
    return Terms(
        promise=promise,
        version=version,
        segment=segment,
        scorer=policy.scored_by.value,
        eligibility=policy.eligibility,
        audit_share=policy.audit_share,
        expire_seconds=max(1, int(policy.expire_days * _DAY)),
        lifetime=policy.lifetime,
    )


def _rows(model: str, bodies: list[bytes]) -> list[Arrived]:
    """Return the rows that gateways told; what is none is left out, as it would be the next time."""
    found = []
    for body in bodies:
        try:
            found.append(rows.arrived(body))
        except DemurError as error:
            log.error("what a gateway told is no row", model=model, error=error.message)  # noqa: TRY400 - the sentence says all
    return found
