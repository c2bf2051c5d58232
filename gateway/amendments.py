"""Answers that an audit found wrong, each beside those that are like it: same label, nearest confidence.

Theory of operation. Where people overturn one answer, others like it are likely to be wrong too. Each gateway follows
the outcomes of the queues of its models and looks among the last answers that it gave itself (`gateway.kept`); what it
finds it adds to the shared document `amendments/<model>`, where the nearest of all gateways stay. So whoever reads that
document sees all of them, and sees them still when the gateways have long forgotten. The client of a listed answer is
the one who has its input: it is named, with its own name for the request, and may ask again with a wish for a person.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import msgspec
import structlog

from fallback.answer import Answer, Label
from fallback.deferral import Deferral, overturned
from fallback.documents import Document, Documents
from fallback.errors import AbortedError, DemurError
from fallback.queue import Queue
from gateway.champion import Live
from gateway.internal import told
from gateway.kept import Kept, KeptAnswer

AMENDMENTS: Final = "amendments/"
# How many amended answers a model's document has, and what it may weigh; the oldest go.
AMENDMENTS_MAX: Final = 16
BYTES_MAX: Final = 256 * 1024
_LOOK_SECONDS: Final = 1.0
_COUNT: Final = 100
_WRITE_ATTEMPTS_MAX: Final = 8

log = structlog.get_logger(__name__)


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """An automatic answer that people overturned; `nearest` are answers of the same version with the same label.

    `predicted` is what `client` was told, with `confidence`; `answer` is what people say; `time` is when, Unix seconds.
    """

    deferral: str
    version: str
    client: str
    predicted: str
    answer: Answer
    confidence: float
    time: float
    nearest: tuple[KeptAnswer, ...] = ()


class Amendments(msgspec.Struct, frozen=True, kw_only=True):
    """A model's, the newest first."""

    amendments: tuple[Amendment, ...] = ()


class Champions(Protocol):
    """The models that are served here."""

    def live(self) -> list[Live]:
        """Return the live versions."""

    def kept(self, model: str) -> Kept | None:
        """Return the last automatic answers of a model."""


def amendment_of(deferral: Deferral) -> Amendment | None:
    """Return what an outcome amends; None where it amends no answer that is a label."""
    outcome, prediction = deferral.outcome, deferral.prediction
    if outcome is None or outcome.answer is None or prediction is None or not isinstance(prediction.answer, Label):
        return None
    if not overturned(deferral, deferral.state, outcome.answer):
        return None
    return Amendment(
        deferral=deferral.name,
        version=prediction.version,
        client=deferral.client,
        predicted=prediction.answer.label,
        answer=outcome.answer,
        confidence=prediction.confidence,
        time=outcome.create_time,
    )


def joined(known: Amendments, new: Amendment, *, nearest_max: int) -> Amendments:
    """Return `known` with what one gateway found: of one amended answer the nearest of all gateways stay."""
    same = next((each for each in known.amendments if each.deferral == new.deferral), new)
    nearest = sorted(
        {*same.nearest, *new.nearest}, key=lambda each: (abs(each.confidence - new.confidence), -each.time)
    )
    one = msgspec.structs.replace(new, nearest=tuple(nearest[:nearest_max]))
    others = [each for each in known.amendments if each.deferral != new.deferral]
    kept = sorted([one, *others], key=lambda each: each.time, reverse=True)[:AMENDMENTS_MAX]
    while len(kept) > 1 and len(msgspec.json.encode(Amendments(amendments=tuple(kept)))) > BYTES_MAX:
        kept.pop()
    return Amendments(amendments=tuple(kept))


def amendments_of(document: Document | None) -> Amendments:
    """Read a document `amendments/<model>`; an absent one has none."""
    return Amendments() if document is None else msgspec.json.decode(document.body, type=Amendments)


class Amending:
    """One gateway's part: follows outcomes, and lists what is near to an amended answer."""

    def __init__(self, *, queue: Queue, documents: Documents, champions: Champions, nearest_max: int) -> None:
        self._queue = queue
        self._documents = documents
        self._champions = champions
        self._nearest_max = nearest_max
        self._cursors: dict[str, str] = {}

    async def run(self) -> None:
        """Look again and again until cancelled; what cannot be read or written now is tried again."""
        away = False
        while True:
            try:
                for queue in {live.manifest.review_queue for live in self._champions.live() if live.judged}:
                    await self._look(queue)
                away = False
            except DemurError as error:
                if not away:
                    log.warning("what audits found is not followed; trying again", error=error.message)
                away = True
            except Exception as error:  # noqa: BLE001 - the root of the task
                told(error, where="amendments")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, queue: str) -> None:
        """Take the outcomes since the last look; the first one begins at what is to come."""
        newest = await self._queue.last_cursor(queue)
        cursor = self._cursors.setdefault(queue, newest)
        while cursor != newest:
            events = await self._queue.outcomes(queue, cursor, count=_COUNT)
            for event in events:
                await self._take(event.deferral)
                self._cursors[queue] = event.cursor
            if len(events) < _COUNT:
                # Also where nothing follows though there is something: the server has another history by now.
                self._cursors[queue] = events[-1].cursor if events else newest
                return
            cursor = events[-1].cursor

    async def _take(self, deferral: Deferral) -> None:
        new, model = amendment_of(deferral), deferral.prediction.model if deferral.prediction is not None else ""
        kept = self._champions.kept(model)
        if new is None or kept is None:
            return
        near = await asyncio.to_thread(kept.nearest, new.version, new.predicted, new.confidence, self._nearest_max)
        new = msgspec.structs.replace(new, nearest=tuple(near))
        for attempt in range(_WRITE_ATTEMPTS_MAX):
            document = await self._documents.read(AMENDMENTS + model)
            known = amendments_of(document)
            found = joined(known, new, nearest_max=self._nearest_max)
            if found == known:
                return
            try:
                revision = 0 if document is None else document.revision
                await self._documents.write(AMENDMENTS + model, msgspec.json.encode(found), expected_revision=revision)
            except AbortedError:
                # Another gateway was faster.
                if attempt == _WRITE_ATTEMPTS_MAX - 1:
                    raise
            else:
                log.warning("an audit found a wrong answer", model=model, deferral=new.deferral, nearest=len(near))
                return
