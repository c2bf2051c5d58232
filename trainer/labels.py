"""What an outcome says of a sampled record: its label, by the blind reviews of those who were asked last. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fallback.answer import Answer, CantTell
from fallback.deferral import Review, Source
from fallback.errors import InvalidError
from gateway.samples import Place, SampledRecord, place_of
from trainer import adjudicate
from trainer.rows import LabelRow

_DECIDED = frozenset({Source.PERSON, Source.CONSENSUS})


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger of outcomes whose request was sampled under an epoch; `place` is as in `Draw.place`."""

    row: int
    place: str
    epoch: str
    source: Source
    reviews: tuple[Review, ...]


def place(told: Told) -> Place | None:
    """Return which record it is of; None for what is no place."""
    try:
        return place_of(told.place)
    except InvalidError:
        return None


def label(told: Told, record: SampledRecord) -> LabelRow:
    """Return what the reviews say of `record`: the truth, and which versions missed it.

    One blind review, or the majority of three or more; with any other number, or where nobody decided in time, there
    is no truth.
    """
    said = _blind(told.reviews)
    truth = _truth(said) if told.source in _DECIDED else None
    predictions = {scored.version: scored.prediction for scored in record.scored}
    return LabelRow(
        second=record.second,
        gateway=record.gateway,
        counter=record.counter,
        truth=truth,
        wrong=adjudicate.wrong(truth, predictions),
        reviewed=bool(said),
    )


def missing(record: SampledRecord) -> LabelRow:
    """Return what stands in the place of a label that will never come."""
    predictions = {scored.version: scored.prediction for scored in record.scored}
    return LabelRow(
        second=record.second,
        gateway=record.gateway,
        counter=record.counter,
        truth=None,
        wrong=adjudicate.wrong(None, predictions),
        reviewed=False,
    )


def overturned(told: Told, record: SampledRecord) -> bool | None:
    """Return whether three people overturned what the first one and every version said; None: that was not asked.

    Three looked although all agreed only where the hash chose them, so these are a sample of all agreements.
    """
    said = _blind(told.reviews)
    if len(said) < adjudicate.PANEL or any(scored.prediction != said[0] for scored in record.scored):
        return None
    return _truth(said) != said[0]


def canonical(answer: Answer) -> str | None:
    """Return an answer as canonical JSON; None for "can't tell"."""
    return None if isinstance(answer, CantTell) else msgspec.json.encode(answer, order="sorted").decode()


def _blind(reviews: Sequence[Review]) -> list[str | None]:
    """Return the blind answers of the tier that was asked last, in the order in which they came."""
    ordered = sorted(reviews, key=lambda review: review.create_time)
    return [canonical(review.answer) for review in ordered if review.blind and review.tier == ordered[-1].tier]


def _truth(said: Sequence[str | None]) -> str | None:
    if len(said) in {1, adjudicate.PANEL}:
        return adjudicate.truth(said)
    # A queue may want more than three; two that agree are the majority of three already.
    wanted = max(len(said), adjudicate.PANEL)
    given = [answer for answer in said if answer is not None]
    return next((answer for answer in given if given.count(answer) * 2 > wanted), None)
