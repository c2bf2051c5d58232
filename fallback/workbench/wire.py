"""The JSON that the page and its server exchange under /api; static/types.js is the other side.

What a reviewer must not see before answering (the prediction in a blind review, why the item was parked, who sent it,
what others answered) is left out here, not hidden by the page.

An answer that can be taken back is not given yet. Blindness is what makes a review count as evidence about the model,
so in a blind review nothing of the guess is told, not even whether it was right, before the deferral has its outcome:
then no answer can be taken back, by the state machine and not by a clock. It costs the reviewer the wait until the
window is over; the other way, telling at once and forbidding the undo, would take the undo from those it is for. So an
answer that was taken back is corrected as blind as it was given.
"""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from math import ceil
from typing import Annotated, Final, TypeVar

import msgspec
from starlette.responses import Response

from fallback.answer import Answer, CantTell, Json, Labels, Task, canonical, check_json
from fallback.deferral import TERMINAL, Content, Deferral, Lease, Prediction, Review
from fallback.errors import Code, DemurError, InvalidError, StateError, TakenOverError

T = TypeVar("T")

# google.rpc.Code's mapping to HTTP, but for FAILED_PRECONDITION: 409 tells it from a malformed request.
HTTP_STATUS: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 410,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
SIGNATURES: Final = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
TAKEN_OVER: Final = "taken_over"
LEASES_MAX: Final = 5
WAIT_SECONDS_MAX: Final = 20
COMMENT_CHARS_MAX: Final = 10_000
FLAG_CHARS_MAX: Final = 2_000
REASON_CHARS_MAX: Final = 500
DRAFT_BYTES_MAX: Final = 65_536

Token = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
RequestId = Annotated[str, msgspec.Meta(min_length=8, max_length=128)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
# Its bytes are counted by the queue.
Draft = Annotated[str, msgspec.Meta(max_length=DRAFT_BYTES_MAX)]


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for up to `limit` items, waiting for the first; with `resume` for what the caller holds already before."""

    queue: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=LEASES_MAX)] = 1
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=WAIT_SECONDS_MAX)] = 0
    resume: bool = False


class Hold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names a lease, for extending it."""

    token: Token
    request_id: RequestId


class DraftRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keeps what was begun: for saving it, and for leaving the item with it."""

    token: Token
    draft: Draft = ""
    request_id: RequestId


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gives leases back, each with what was begun and not saved yet.

    `leaving`: because the page is left, perhaps only to be loaded anew.
    """

    releases: Annotated[tuple[DraftRequest, ...], msgspec.Meta(min_length=1, max_length=LEASES_MAX)]
    leaving: bool = False


class SkipRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Leaves an item to others for good; with `escalate` to those of the next tier."""

    token: Token
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CHARS_MAX)]
    escalate: bool = False
    request_id: RequestId


class FlagRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says that something is wrong with an item."""

    deferral: Name
    comment: Annotated[str, msgspec.Meta(min_length=1, max_length=FLAG_CHARS_MAX)]
    request_id: RequestId


class UndoRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Takes the caller's own answer back."""

    deferral: Name
    request_id: RequestId


class VerdictRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks what became of the caller's answer."""

    deferral: Name


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers."""

    token: Token
    answer: Answer
    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_CHARS_MAX)] = ""
    request_id: RequestId


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls; `name` is None where the page must ask, and `message` says why. `skills`: None for every one."""

    sign_in: str
    name: str | None
    message: str = ""
    skills: tuple[str, ...] | None = None


class SubjectView(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. `view` says how it may be shown: image, text, json, or file (never rendered).

    `state` says why there is nothing to look at.
    """

    view: str
    media_type: str
    content: str
    attributes: dict[str, str]
    state: Content


class LeaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A lease as its holder sees it. `tier` is asked now, `next_tier` is above it; empty where there is none."""

    token: str
    deferral: str
    task: Task
    subject: SubjectView
    blind: bool
    prediction: Prediction | None
    lease_seconds: float
    reviews_done: int
    reviews_wanted: int
    draft: str
    tier: str
    next_tier: str
    resumed: bool


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an answer. `model_agreed` is None where no model was asked or the person could not tell.

    Both it and `prediction` are None as long as a blind review can be taken back. `undo_seconds` is how long that is,
    from when the answer arrived; 0 where it cannot.
    """

    deferral: str
    open: bool
    reviews_done: int
    reviews_wanted: int
    model_agreed: bool | None
    prediction: Prediction | None
    undo_seconds: float


def decode(body: bytes, type_: type[T]) -> T:
    """Read a JSON body strictly. Raises InvalidError with msgspec's sentence, which names the field."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"body: {error}") from error


def view_of(media_type: str, content: bytes) -> str:
    """Say how content may be shown; an image only if its first bytes are those of its type."""
    kind = media_type.partition(";")[0].strip().lower()
    signature = SIGNATURES.get(kind)
    if signature is not None:
        return "image" if content.startswith(signature) else "file"
    return {"text/plain": "text", "application/json": "json"}.get(kind, "file")


def lease_view(lease: Lease, *, lease_seconds: float, tiers: tuple[str, ...] = ()) -> LeaseView:
    """Show a lease, without the prediction where the review is blind; `tiers` are the queue's, first to last."""
    deferral = lease.deferral
    return LeaseView(
        token=lease.token,
        deferral=deferral.name,
        task=deferral.task,
        subject=SubjectView(
            view=view_of(deferral.media_type, lease.subject),
            media_type=deferral.media_type.partition(";")[0].strip().lower(),
            content=b64encode(lease.subject).decode(),
            attributes=deferral.attributes,
            state=deferral.content,
        ),
        blind=lease.blind,
        prediction=None if lease.blind else deferral.prediction,
        lease_seconds=lease_seconds,
        reviews_done=len(deferral.reviews),
        reviews_wanted=deferral.reviews_wanted,
        draft=lease.draft,
        tier=deferral.tier,
        next_tier=tier_above(deferral.tier, tiers),
        resumed=lease.resumed,
    )


def tier_above(tier: str, tiers: tuple[str, ...]) -> str:
    """Return the tier after `tier`; empty at the last one, and for one that the queue's setting no longer names."""
    return dict(pairwise(tiers)).get(tier, "")


def own_review(deferral: Deferral, reviewer: str) -> Review:
    """Return this reviewer's review; raises StateError where there is none, or none any more."""
    for review in deferral.reviews:
        if review.reviewer == reviewer:
            return review
    raise StateError(f"{deferral.name}: there is no answer of yours; it may have been taken back in another tab")


def submitted(deferral: Deferral, review: Review, *, undo_seconds: float) -> Submitted:
    """Show what became of a review; see this module's beginning for when the prediction is shown."""
    final = deferral.state in TERMINAL
    prediction = deferral.prediction if final or not review.blind else None
    answer = review.answer
    return Submitted(
        deferral=deferral.name,
        open=not final,
        reviews_done=len(deferral.reviews),
        reviews_wanted=deferral.reviews_wanted,
        model_agreed=None if prediction is None or isinstance(answer, CantTell) else agrees(prediction, answer),
        prediction=prediction,
        undo_seconds=0.0 if final else undo_seconds,
    )


def normal(answer: Answer) -> Answer:
    """Sort what has no order, so that equal answers are equal; raises InvalidError for what is no JSON text."""
    match answer:
        case Labels(labels=labels):
            return Labels(labels=tuple(sorted(labels)))
        case Json(json=text):
            check_json("answer.json", text)
    return answer


def agrees(prediction: Prediction, answer: Answer) -> bool:
    """Say whether a model guessed what a person answered."""
    return canonical(prediction.answer) == canonical(answer)


def json_response(value: object, status: int = 200) -> Response:
    """Reply with JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error_response(error: DemurError) -> Response:
    """Reply with {"code", "message"}, the HTTP status that fits, and Retry-After in whole seconds where it is known.

    "reason" is there where the page does something about it that others of this code do not ask for.
    """
    told = {"code": error.code.name, "message": error.message}
    if isinstance(error, TakenOverError):
        told["reason"] = TAKEN_OVER
    response = json_response(told, HTTP_STATUS[error.code])
    if error.retry_after_seconds is not None:
        response.headers["retry-after"] = str(max(1, ceil(error.retry_after_seconds)))
    return response
