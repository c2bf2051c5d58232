"""What everybody saw, one JSON object a line, one file a process: all that the checker knows.

Clients, reviewers and the receiver write down an intention before they act on it and a reply as soon as they have it,
so that what one of them had begun when it was killed is known too. Times are Unix seconds by the machine's clock,
which is also the server's; those in a field `outcome_time`, `until` or `create_time` are the server's own, to the ms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from benchmarks import journals
from benchmarks.journals import Tail

OK = "OK"


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="asked"):
    """A client is about to ask for a review under an idempotency key, for the first time or again."""

    time: float
    client: str
    key: str
    queue: str


class Replied(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="replied"):
    """What came of it: the deferral's name, or the code of the failure."""

    time: float
    client: str
    key: str
    code: str
    deferral: str = ""
    message: str = ""


class Cancelling(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="cancelling"):
    """A client is about to take a question back."""

    time: float
    deferral: str


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="cancelled"):
    """What came of it."""

    time: float
    deferral: str
    code: str
    message: str = ""


class Watched(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="watched"):
    """An event of a queue's stream of outcomes, which several clients follow."""

    time: float
    queue: str
    cursor: str
    deferral: str
    state: str
    label: str
    version: int
    outcome_time: float


class Got(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="got"):
    """What a client got when it asked how a deferral of its own stands, after it had ended."""

    time: float
    deferral: str
    code: str
    state: str = ""
    label: str = ""
    version: int = 0
    message: str = ""


class Leased(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="leased"):
    """A reviewer was given a lease, or more time for one. `slots`: reviews wanted by then."""

    sent: float
    time: float
    reviewer: str
    token: str
    deferral: str
    slots: int
    until: float
    extension: bool = False


class Acting(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="acting"):
    """A reviewer is about to submit, release or extend; `attempt` counts from 1 for each request id."""

    time: float
    reviewer: str
    token: str
    deferral: str
    act: str
    request: str
    attempt: int
    label: str = ""


class Acted(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="acted"):
    """What came of it. A reviewer that can be stopped may read a reply long after it was sent."""

    time: float
    reviewer: str
    request: str
    attempt: int
    code: str
    message: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="failed"):
    """A call that changes nothing, or whose loss is mended by time, failed."""

    time: float
    who: str
    call: str
    code: str
    message: str


class Called(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="called"):
    """An attempt to call back with a good signature; `status` is what the receiver answered."""

    time: float
    id: str
    type: str
    deferral: str
    state: str
    label: str
    status: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="refused"):
    """An attempt to call back that the receiver could not believe or read."""

    time: float
    reason: str


class KeptReview(msgspec.Struct, frozen=True, kw_only=True):
    """One review as the server keeps it; `request` is the comment, in which reviewers write their request id."""

    reviewer: str
    label: str
    request: str
    create_time: float


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag_field="entry", tag="kept"):
    """A deferral as the server holds it, read by the run itself once it had ended."""

    deferral: str
    state: str
    label: str
    version: int
    slots: int
    outcome_time: float
    reviews: tuple[KeptReview, ...]


Entry = (
    Asked
    | Replied
    | Cancelling
    | Cancelled
    | Watched
    | Got
    | Leased
    | Acting
    | Acted
    | Failed
    | Called
    | Refused
    | Kept
)
Journal = journals.Journal[Entry]
_decoder: Final = msgspec.json.Decoder(Entry)


def tail(path: Path) -> Tail[Entry]:
    """Return what reads the entries of one process as they come."""
    return Tail(path, _decoder)
