"""How much there is to do in a queue, how fast people do it, and so how long one more waits. Pure.

The scripts count, a minute a bucket: deferrals parked, by priority; reviews given, and how long they were held for.
From the last WINDOW_SECONDS of these and from what is open now follows the wait of a deferral with `ahead` deferrals
before it that need N reviews each, while people hold `held` places:

    speed    = max(reviews / window, held / mean hold)             reviews a second
    overtake = N x (arrivals of a higher priority / window)        reviews a second
    wait     = N x ahead / (speed - overtake) + mean hold + undo window

Little's law (J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9(3), 1961) gives
both: over all that is before us W = L / lambda, and over the places held now lambda = L / W. Of the two speeds the
reviews given are right while people always have work, and too low while they wait for some; the places held are
right as soon as somebody works. That those who come meanwhile go before us, and slow our own progress to `speed -
overtake`, is the wait behind higher classes of a queue without pre-emption (A. Cobham, "Priority assignment in
waiting line problems", Operations Research 2(1), 1954).

What is approximated: the rates are the past's, not the future's; everybody before us is taken to need N reviews and
no more; any higher priority is taken to go first, though a deadline may hold it back; nobody's tier, skill or earlier
review of the same deferral is looked at. Where work of a higher priority comes faster than people do it, no wait is
long enough: what is told is then the time that is left to review, after which it expires. Where nobody gave a review
within the window, nothing can be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

WINDOW_SECONDS: Final = 900.0
RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 3_600.0
PRIORITIES: Final = 10
_MINUTE: Final = 60.0
_HOUR_MINUTES: Final = 60
_MS: Final = 1000.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in a queue lately, and what it holds now.

    `window_seconds`: how far back `arrivals` (deferrals by priority), `reviews` and `hold_seconds` (of all reviews
    together) reach. `held`: places that somebody holds now. `asked`: reviews asked for in the last hour, counted where
    there is a budget. `content_bytes` and `draft_bytes` are what is stored.
    """

    window_seconds: float
    arrivals: tuple[int, ...]
    reviews: int
    hold_seconds: float
    held: int
    asked: int
    content_bytes: int
    draft_bytes: int

    @property
    def speed(self) -> float:
        """How many reviews people give in a second; 0 where nobody gave any lately."""
        if not self.reviews or not self.hold_seconds:
            return 0.0
        return max(self.reviews / self.window_seconds, self.held * self.reviews / self.hold_seconds)


def read(fields: Mapping[bytes, bytes], *, now: float, held: int) -> Load:
    """Return what the hash `load` of a queue says at `now`, Unix seconds of the server."""
    minute = int(now // _MINUTE)
    first = minute - int(WINDOW_SECONDS // _MINUTE)
    counted: dict[str, int] = {}
    oldest, asked, stored = now, 0, {b"bytes": 0, b"drafts": 0}
    for field, value in fields.items():
        head, _, what = field.partition(b":")
        if field in stored:
            stored[field] = int(value)
        elif head.isdigit():
            of = int(head)
            asked += int(value) if what == b"asked" and of >= minute - _HOUR_MINUTES else 0
            if of > first:
                counted[what.decode()] = counted.get(what.decode(), 0) + int(value)
                oldest = min(oldest, of * _MINUTE)
    return Load(
        window_seconds=max(1.0, now - oldest),
        arrivals=tuple(counted.get(str(priority), 0) for priority in range(PRIORITIES)),
        reviews=counted.get("reviews", 0),
        hold_seconds=counted.get("hold", 0) / _MS,
        held=held,
        asked=asked,
        content_bytes=stored[b"bytes"],
        draft_bytes=stored[b"drafts"],
    )


def expected_wait(
    load: Load, *, ahead: int, priority: int, wanted: int, undo_seconds: float, seconds_max: float
) -> float | None:
    """Return the expected seconds until there is an outcome, at most `seconds_max`; None where nothing can be said.

    `ahead` deferrals go before this one of `priority`; each needs `wanted` reviews.
    """
    if not load.speed:
        return None
    overtake = wanted * sum(load.arrivals[priority + 1 :]) / load.window_seconds
    progress = load.speed - overtake
    if ahead and progress <= 0:
        return seconds_max
    queued = wanted * ahead / progress if ahead else 0.0
    return min(seconds_max, queued + load.hold_seconds / load.reviews + undo_seconds)


def retry_seconds(load: Load, *, beyond: int, wanted: int, otherwise: float) -> float:
    """Return when `beyond` deferrals of `wanted` reviews each will have left; `otherwise` where nothing can be said.

    Between RETRY_SECONDS_MIN and RETRY_SECONDS_MAX: a client that comes back too late learns less than one that asks.
    """
    seconds = beyond * wanted / load.speed if load.speed else otherwise
    return min(RETRY_SECONDS_MAX, max(RETRY_SECONDS_MIN, seconds))
