"""The lifecycle of a deferral: the values it is made of and the two tables of what may follow what.

Theory of operation. A Deferral asks for reviews by distinct people; each review is given in a Slot, a place that one
person holds at a time by a Lease. Both move only along the edges of the two tables below, and each event is one Lua
script that finds the state, refuses or applies the edge, and keeps the indexes, all in one step of the server. What is
not in the tables is refused with the state it met. What several reviews add up to is not in a script: it is the pure
`fallback.consensus`, computed outside, and `settle` compares the deferral's version before it writes, so that a review
that came in between sends the caller back to compute again. SETTLING is the undo window: the outcome is known inside
and shown nowhere; everywhere outside it reads as OPEN with all its reviews in. `close` ends it, `undo` by one of its
reviewers reopens it and gives them their slot back. While an answer can be taken back its reviewer is not shown the
model's guess, so that a review which was blind still is when it is given anew.

A queue may have tiers of reviewers, each above the one before. `escalate` asks the next one: when a tier's reviews are
all in without a majority, when nobody came in time and the client chose so, or when a holder says that it is above
them. Whoever still looks loses their hold, and there is a new deadline. Answers that are in stay as reviews of the
tier that gave them, and count no more: the word of the tier that is asked last is final. They cannot be taken back
either, for the next tier is asked because of them; nor is anybody asked twice, at whatever tier. At the last tier what
would escalate ends.

A deferral with a SecondOpinion is evidence about a model: always reviewed blind, by three people unless the first one
agrees with the model. All three are waited for, though two may decide: what counts is one review or three.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

import msgspec

from fallback.answer import Answer, CantTell, Task, canonical


class State(StrEnum):
    """Where a deferral stands."""

    OPEN = "open"
    SETTLING = "settling"
    RESOLVED = "resolved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What may happen to a deferral."""

    SETTLE = "settle"
    CLOSE = "close"
    UNDO = "undo"
    EXPIRE = "expire"
    ESCALATE = "escalate"
    CANCEL = "cancel"


class SlotState(StrEnum):
    """Where a slot stands."""

    FREE = "free"
    HELD = "held"
    FILLED = "filled"


class SlotEvent(StrEnum):
    """What may happen to a slot."""

    LEASE = "lease"
    RESUME = "resume"
    EXTEND = "extend"
    RELEASE = "release"
    LAPSE = "lapse"
    SKIP = "skip"
    SUBMIT = "submit"
    UNDO = "undo"


# (state, event) -> the states that may follow. An event that is missing for a state is refused there.
DEFERRAL_TABLE: Final = MappingProxyType(
    {
        (State.OPEN, Event.SETTLE): frozenset({State.RESOLVED, State.SETTLING}),
        (State.OPEN, Event.EXPIRE): frozenset({State.EXPIRED}),
        (State.OPEN, Event.ESCALATE): frozenset({State.OPEN}),
        (State.OPEN, Event.CANCEL): frozenset({State.CANCELLED}),
        (State.SETTLING, Event.CLOSE): frozenset({State.RESOLVED}),
        (State.SETTLING, Event.UNDO): frozenset({State.OPEN}),
        (State.SETTLING, Event.CANCEL): frozenset({State.CANCELLED}),
    }
)
SLOT_TABLE: Final = MappingProxyType(
    {
        (SlotState.FREE, SlotEvent.LEASE): SlotState.HELD,
        (SlotState.HELD, SlotEvent.RESUME): SlotState.HELD,
        (SlotState.HELD, SlotEvent.EXTEND): SlotState.HELD,
        (SlotState.HELD, SlotEvent.RELEASE): SlotState.FREE,
        (SlotState.HELD, SlotEvent.LAPSE): SlotState.FREE,
        (SlotState.HELD, SlotEvent.SKIP): SlotState.FREE,
        (SlotState.HELD, SlotEvent.SUBMIT): SlotState.FILLED,
        (SlotState.FILLED, SlotEvent.UNDO): SlotState.HELD,
    }
)
AMENDED: Final = "answer.amended"
PANEL: Final = 3  # people whose majority is the truth where one is not enough; see `SecondOpinion`
TERMINAL: Final = frozenset({State.RESOLVED, State.EXPIRED, State.CANCELLED})


class Source(StrEnum):
    """Where an outcome came from."""

    PERSON = "person"
    CONSENSUS = "consensus"
    EXPIRY = "expiry"
    CANCELLATION = "cancellation"


class OnExpiry(StrEnum):
    """What happens when nobody came in time; at the last tier ESCALATE is as ABSTAIN."""

    ANSWER_UNREVIEWED = "answer_unreviewed"
    ABSTAIN = "abstain"
    ESCALATE = "escalate"


class Content(StrEnum):
    """What became of the content that a deferral came with: of its subject, or of its inputs where it had no subject.

    LOST is found out by looking: where nobody looked, it reads as PRESENT.
    """

    NONE = "none"
    PRESENT = "present"
    ERASED = "erased"
    LOST = "lost"


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What one model version says of one input; confidence in [0, 1].

    `shown` is how sure it is in truth, which people are told; None: no other than `confidence`.
    """

    model: str
    version: str
    answer: Answer
    confidence: float
    shown: float | None = None


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """Where an outcome is told; exactly one of the two is set."""

    webhook_url: str = ""
    grpc_target: str = ""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """One person's answer, given at `tier`. Times are Unix seconds by the server's clock."""

    reviewer: str
    answer: Answer
    comment: str = ""
    create_time: float
    blind: bool
    duration_seconds: float
    tier: str = ""


class Skip(msgspec.Struct, frozen=True, kw_only=True):
    """That somebody would not answer, and why; they are not asked again. The time is Unix seconds."""

    reviewer: str
    reason: str
    create_time: float
    escalated: bool = False


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody who held or answered a deferral would have review managers know. The time is Unix seconds."""

    reviewer: str
    comment: str
    create_time: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The final answer and where it came from; `answer` is None where there is none."""

    source: Source
    answer: Answer | None
    reviewed: bool
    create_time: float


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """How a request came to be sampled: its key, the probability `q` in (0, 1], and the number drawn in [0, 1).

    Where its model is under certification: the `place` of its record (`gateway.samples.place_text`), the `epoch` of the
    draw, and the `certificate` in force.
    """

    request_key: str
    q: float
    xi: float
    place: str = ""
    epoch: str = ""
    certificate: str = ""


class SecondOpinion(msgspec.Struct, frozen=True, kw_only=True):
    """That one review settles only what it agrees with, all `predictions`, and never with `always`; else PANEL do."""

    predictions: tuple[Answer, ...]
    always: bool = False

    def suffices(self, reviews: tuple[Review, ...]) -> bool:
        """Return whether one review is all there are, and enough."""
        said = {canonical(answer) for answer in (*self.predictions, reviews[0].answer)}
        return len(said) == len(reviews) == 1 and not self.always


class GoldMark(msgspec.Struct, frozen=True, kw_only=True):
    """That a deferral is a gold item that was planted (`fallback.gold`), and its known answer; for no reviewer."""

    id: str
    answer: Answer


class Parking(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a request when it is parked.

    `subject` and `inputs` (a serialised demur.v1.Tensors, or empty) are the payload: they never go through Lua.
    `input_digest` (sha256 hex over model, inputs and subject) tells a retry from another input under the same key.
    `tier` is the one to begin at, empty for the first; `excluded_reviewers` are never asked.
    """

    queue: str
    client: str
    idempotency_key: str
    input_digest: str
    task: Task
    subject: bytes
    media_type: str
    attributes: dict[str, str]
    inputs: bytes = b""
    prediction: Prediction | None = None
    draw: Draw | None = None
    reasons: tuple[str, ...] = ()
    audit: bool = False
    callback: Callback | None = None
    priority: int = 0
    review_seconds: float | None = None
    on_expiry: OnExpiry | None = None
    tier: str = ""
    excluded_reviewers: tuple[str, ...] = ()
    second_opinion: SecondOpinion | None = None
    gold: GoldMark | None = None


class Deferral(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a parked request, as it stands. Times are Unix seconds by the server's clock.

    `state` is never SETTLING here: that shows as OPEN. `subject_digest` and `inputs_digest` are sha256 hex, empty
    where there is nothing. `tier` is asked now, or was last; empty where the queue has none.
    """

    id: str
    queue: str
    state: State
    version: int
    task: Task
    prediction: Prediction | None
    draw: Draw | None
    outcome: Outcome | None
    reviews: tuple[Review, ...]
    reviews_wanted: int
    create_time: float
    expire_time: float
    client: str
    priority: int
    attributes: dict[str, str]
    media_type: str
    reasons: tuple[str, ...]
    audit: bool
    callback: Callback | None
    on_expiry: OnExpiry
    subject_digest: str
    inputs_digest: str
    skips: tuple[Skip, ...] = ()
    flags: tuple[Flag, ...] = ()
    content: Content = Content.NONE
    tier: str = ""
    second_opinion: SecondOpinion | None = None
    gold: GoldMark | None = None

    @property
    def always_blind(self) -> bool:
        """Whether its reviewers are not shown the model's guess, whatever the queue says."""
        return self.second_opinion is not None or self.gold is not None

    @property
    def name(self) -> str:
        """The resource name, from which the queue can be found."""
        return deferral_name(self.queue, self.id)


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A reviewer's timed hold on one slot. `token` is opaque to its holder.

    `subject` is the content to look at, empty where it was erased or is lost: `deferral.content` says so.
    `draft` is the JSON text that this reviewer last saved of their work on it, empty where there is none. `resumed`:
    they held it already, and what they held it by is stale now.
    """

    token: str
    deferral: Deferral
    subject: bytes
    expire_time: float
    blind: bool
    draft: str = ""
    resumed: bool = False


def overdue(prediction: Prediction | None, on_expiry: OnExpiry) -> Answer | None:
    """Return the answer of a deferral that nobody came to in time."""
    match on_expiry:
        case OnExpiry.ANSWER_UNREVIEWED:
            return prediction.answer if prediction is not None else None
        case OnExpiry.ABSTAIN | OnExpiry.ESCALATE:
            return None
        case _:
            assert_never(on_expiry)


def telling(deferral: Deferral, state: State, answer: Answer | None) -> str:
    """Return the type of the event that a deferral which ends in `state` with `answer` tells its callback; empty: none.

    The client of an audited request already has its answer: it hears only of a person's answer that overturns it.
    """
    if deferral.callback is None:
        return ""
    if not deferral.audit:
        return f"deferral.{state.value}"
    return AMENDED if overturned(deferral, state, answer) else ""


def tried(deferral: Deferral, mark: GoldMark) -> str:
    """Return the event that a planted item ends with: who was right, who was wrong, and who skipped it. Pure."""
    known = canonical(mark.answer)
    said = [(review.reviewer, "right" if canonical(review.answer) == known else "wrong") for review in deferral.reviews]
    skipped = [(skip.reviewer, "skipped") for skip in deferral.skips]
    found = [(f"{mark.id} {reviewer}", how) for reviewer, how in {**dict(skipped), **dict(said)}.items()]
    return f"gold {msgspec.json.encode(found).decode()}"


def overturned(deferral: Deferral, state: State, answer: Answer | None) -> bool:
    """Return whether `answer`, in which an audit ends in `state`, says that the client was given a wrong one."""
    if not deferral.audit or state is not State.RESOLVED or answer is None or isinstance(answer, CantTell):
        return False
    return deferral.prediction is None or canonical(answer) != canonical(deferral.prediction.answer)


def tier_name(tiers: tuple[str, ...], number: int) -> str:
    """Return what the tier `number` (from 0) is called; empty for the only one of a queue without tiers.

    One that the queue's setting no longer names has a name that nobody's skill is.
    """
    if number < len(tiers):
        return tiers[number]
    return f"tier {number + 1}" if number else ""


def deferral_name(queue: str, deferral_id: str) -> str:
    """Return `queues/<queue>/deferrals/<id>`."""
    return f"queues/{queue}/deferrals/{deferral_id}"
