"""What the reviews of one deferral add up to. Pure."""

from __future__ import annotations

import msgspec

from fallback.answer import Answer, canonical
from fallback.deferral import PANEL, Review, SecondOpinion, Source


class NeedMore(msgspec.Struct, frozen=True):
    """More reviews are needed: one, or as many as it takes until there are `places` of this tier."""

    places: int = 0


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The reviews add up to an answer."""

    source: Source
    answer: Answer | None


class Escalate(msgspec.Struct, frozen=True):
    """The reviews do not agree, and there is a tier above to ask."""


def consensus(
    reviews: tuple[Review, ...],
    *,
    wanted: int,
    limit: int,
    places: int = 0,
    tier: str = "",
    higher: bool = False,
    opinion: SecondOpinion | None = None,
) -> NeedMore | Settled | Escalate:
    """Say what the `reviews` by distinct people of the current `tier` add up to; those of other tiers do not count.

    `wanted` (N) is how many must be in before anything is decided, `limit` (M >= N) how many there may be at most,
    `places` how many are asked for now, those whose review is in too. An answer that more than half of those gave
    decides: what is still to come cannot change it. While none does, one more review is asked for; at the limit
    without one the next tier is asked where there is a `higher` one, else nobody's word prevails: the answer is None.
    With an `opinion` the first review is enough, or PANEL are (as many as are wanted at first, if more), all to be in,
    and nobody after them. A panel that was asked once is asked to the end.
    """
    reviews = tuple(review for review in reviews if review.tier == tier)
    if opinion is not None and reviews and (max(places, wanted) > 1 or not opinion.suffices(reviews)):
        wanted = limit = max(PANEL, wanted)
        if len(reviews) < wanted:
            return NeedMore(places=wanted)
    if len(reviews) < wanted:
        return NeedMore()
    places = max(places, len(reviews))
    if places == 1:
        return Settled(source=Source.PERSON, answer=reviews[0].answer)
    alike: dict[bytes, list[Answer]] = {}
    for review in reviews:
        alike.setdefault(canonical(review.answer), []).append(review.answer)
    best = max(alike.values(), key=len)
    if 2 * len(best) > places:
        # As who said it first has spelt it.
        return Settled(source=Source.CONSENSUS, answer=best[0])
    if len(reviews) < max(places, limit):
        return NeedMore()
    return Escalate() if higher else Settled(source=Source.CONSENSUS, answer=None)
