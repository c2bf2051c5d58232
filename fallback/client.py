"""A reviewer's side of ReviewService, in a dozen lines of use.

    async with ReviewClient("127.0.0.1:8003", identity="ann") as client:
        while True:
            for lease in await client.lease("digits", wait_seconds=30):
                print(lease.deferral.task.question, lease.subject)
                reviewed = await client.submit(lease.token, Label("7"))
                print("the model had guessed the same:", reviewed.model_agreed)

Values are those of `fallback.answer` and `fallback.deferral`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
import msgspec

from demur.v1 import review_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.review_pb2_grpc import ReviewServiceStub
from fallback import channel
from fallback.answer import Answer, Subject
from fallback.deferral import Deferral, Lease, State
from fallback.deferral_wire import deferral_from_wire
from fallback.edge import error_of
from fallback.identity import AUTHORIZATION_KEY, IDENTITY_KEY
from fallback.telling import CallbackEntry, CallbackState
from fallback.telling_wire import entry_from_wire
from fallback.wire import (
    answer_to_wire,
    duration_from_wire,
    duration_to_wire,
    expected_wait_from_wire,
    timestamp_from_wire,
)

CALL_SECONDS: Final = 10.0
# How much longer redelivering very many may take.
REDELIVER_SECONDS: Final = 300.0
# What a reply may weigh: the subjects of one LeaseDeferrals and some room.
REPLY_BYTES_MAX: Final = 300 * 1024 * 1024
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md; a LeaseDeferrals that is lost lapses by itself.
_RETRIED: Final = (
    *("ListQueues", "GetDeferral", "ListDeferrals", "ExtendLease", "ReleaseLease", "SubmitReview"),
    *("SkipDeferral", "UndoReview", "FlagDeferral", "SaveDraft", "EraseContent"),
    *("ListCallbacks", "GetCallback", "RedeliverCallbacks", "AddGold", "ListGold"),
)
_SERVICE_CONFIG: Final = msgspec.json.encode(
    {
        "methodConfig": [
            {
                "name": [{"service": "demur.v1.ReviewService", "method": method} for method in _RETRIED],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.3s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """The deferral after a review, and whether the model had guessed the same (None: none was asked)."""

    deferral: Deferral
    model_agreed: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewQueue:
    """One queue's counts: items with a free slot, places that somebody holds, all open items, reviewers at work.

    `expected_wait_seconds`: for an item that came now; None where nobody answered lately. `over`: the limits that are
    reached, by the names of their settings.
    `tiers` maps each tier's name to its items with a free slot, the first tier first. `next_free_time`: when the next
    lease lapses (Unix seconds), None where nobody holds anything.
    """

    name: str
    waiting: int
    held: int
    open: int
    assisted: bool
    lease_seconds: float
    undo_seconds: float
    reviewers: int
    tiers: dict[str, int]
    next_free_time: float | None
    expected_wait_seconds: float | None = None
    over: tuple[str, ...] = ()
    content_bytes: int = 0
    asked_last_hour: int = 0
    budget_per_hour: int = 0
    depth_max: int = 0


class ReviewClient:
    """Calls ReviewService at `address` (host:port, or unix:path).

    `identity` is the reviewer's name on a server without credentials, `token` what shows who they are on one with them.
    With `credentials` (grpc.ssl_channel_credentials) it is reached by TLS; its certificate is for `server_name`, or
    else for the address's host.
    Every call may raise the DemurError that the server answered with; values carry what the wire tells (see
    `fallback.deferral_wire.deferral_from_wire`). Calls about a lease carry a request id made here and are tried again
    for a few seconds while the server is away; the id has the server do them once.
    """

    def __init__(
        self,
        address: str,
        *,
        identity: str = "",
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str = "",
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._server_name = server_name
        self._metadata = _metadata(identity, token)
        self._call_seconds = call_seconds

    async def __aenter__(self) -> Self:
        options = [("grpc.max_receive_message_length", REPLY_BYTES_MAX), ("grpc.service_config", _SERVICE_CONFIG)]
        self._channel = channel.opened(
            self._address, credentials=self._credentials, server_name=self._server_name, options=options
        )
        self._stub: Any = ReviewServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def queues(self) -> list[ReviewQueue]:
        """Return every queue with its counts."""
        reply = await self._call(self._stub.ListQueues, pb.ListQueuesRequest())
        return [_queue_from_wire(queue) for queue in reply.queues]

    async def lease(
        self,
        queue: str,
        *,
        limit: int = 1,
        wait_seconds: float = 0.0,
        skills: Sequence[str] = (),
        resume: bool = False,
    ) -> list[Lease]:
        """Take up to `limit` (1 to 100) items of `queue`, most urgent first; wait up to 60 s for the first one.

        Of all tiers that you have the skill for, or only those of `skills`. With `resume` first what you hold already,
        with its drafts: the tokens that you had for it elsewhere are stale then. A lease of a blind review holds no
        prediction. Raises InvalidError, UnauthenticatedError, ForbiddenError, UnavailableError.
        """
        wait = duration_to_wire(wait_seconds)
        request = pb.LeaseDeferralsRequest(queue=queue, limit=limit, wait=wait, skills=skills, resume=resume)
        reply = await self._call(self._stub.LeaseDeferrals, request, wait_seconds=wait_seconds)
        return [_lease_from_wire(lease) for lease in reply.leases]

    async def extend(self, token: str) -> Lease:
        """Hold a lease for longer; raises StateError if it lapsed, was settled meanwhile, or is not yours."""
        request = pb.ExtendLeaseRequest(token=token, request_id=_request_id())
        return _lease_from_wire(await self._call(self._stub.ExtendLease, request))

    async def release(self, token: str) -> None:
        """Give an item back unanswered; raises StateError as `extend` does."""
        await self._call(self._stub.ReleaseLease, pb.ReleaseLeaseRequest(token=token, request_id=_request_id()))

    async def submit(self, token: str, answer: Answer, *, comment: str = "") -> Reviewed:
        """Answer; raises InvalidError if the answer does not fit the task, StateError if the lease is stale."""
        request = pb.SubmitReviewRequest(
            token=token, answer=answer_to_wire(answer), comment=comment, request_id=_request_id()
        )
        reply = await self._call(self._stub.SubmitReview, request)
        agreed = reply.model_agreed if reply.HasField("model_agreed") else None
        return Reviewed(deferral=deferral_from_wire(reply.deferral), model_agreed=agreed)

    async def skip(self, token: str, *, reason: str = "", escalate: bool = False) -> None:
        """Leave an item to others for good, saying why in up to 500 characters; with `escalate` to the next tier.

        Raises StateError as `extend` does, and where there is no tier above.
        """
        request = pb.SkipDeferralRequest(token=token, reason=reason, request_id=_request_id(), escalate=escalate)
        await self._call(self._stub.SkipDeferral, request)

    async def undo(self, name: str) -> Lease:
        """Take your review of a deferral back and hold it again; raises StateError once its outcome is final."""
        request = pb.UndoReviewRequest(name=name, request_id=_request_id())
        return _lease_from_wire(await self._call(self._stub.UndoReview, request))

    async def flag(self, name: str, comment: str) -> None:
        """Leave a word of 1 to 2,000 characters at what you hold or answered; raises StateError at anything else."""
        request = pb.FlagDeferralRequest(name=name, comment=comment, request_id=_request_id())
        await self._call(self._stub.FlagDeferral, request)

    async def save_draft(self, token: str, draft: str) -> None:
        """Keep unfinished work, a JSON text of at most 64 KiB; it comes back with your next lease of the same item."""
        request = pb.SaveDraftRequest(token=token, draft=draft, request_id=_request_id())
        await self._call(self._stub.SaveDraft, request)

    async def erase(self, name: str) -> Deferral:
        """Erase subject, inputs and drafts of a deferral for good; returns it. For operators; raises NotFoundError."""
        request = pb.EraseContentRequest(name=name, request_id=_request_id())
        return deferral_from_wire(await self._call(self._stub.EraseContent, request))

    async def add_gold(
        self, queue: str, *, deferral: str = "", subject: Subject | None = None, answer: Answer | None = None
    ) -> str:
        """Add a gold item, made of a deferral (by its name) or a subject, and return its name. For operators.

        `answer` is known to be right; None: what people answered to `deferral`. Raises InvalidError, NotFoundError.
        """
        request = pb.AddGoldRequest(queue=queue)
        if subject is not None:
            request.subject.content, request.subject.media_type = subject.content, subject.media_type
            request.subject.attributes.update(subject.attributes)
        else:
            request.deferral = deferral
        if answer is not None:
            request.answer.CopyFrom(answer_to_wire(answer))
        added = await self._call(self._stub.AddGold, request)
        return str(added.name)

    async def gold(self, queue: str) -> pb.ListGoldResponse:
        """Return the gold items of a queue and how reviewers did with them. For operators."""
        listed: pb.ListGoldResponse = await self._call(self._stub.ListGold, pb.ListGoldRequest(queue=queue))
        return listed

    async def remove_gold(self, name: str) -> None:
        """Take a gold item away, and what it found out with it; raises NotFoundError. For operators."""
        await self._call(self._stub.RemoveGold, pb.RemoveGoldRequest(name=name))

    async def get(self, name: str) -> Deferral:
        """Return a deferral, without its prediction while you may still be asked about it; raises NotFoundError."""
        return deferral_from_wire(await self._call(self._stub.GetDeferral, pb.GetReviewDeferralRequest(name=name)))

    async def list(
        self, queue: str, *, state: State | None = None, flagged: bool = False, page_size: int = 50
    ) -> AsyncIterator[Deferral]:
        """Yield the deferrals of `queue`, all or those in one state or flagged, page by page."""
        request = pb.ListDeferralsRequest(queue=queue, page_size=page_size, flagged=flagged)
        if state is not None:
            request.state = getattr(types_pb2.Deferral, state.name)
        while True:
            reply = await self._call(self._stub.ListDeferrals, request)
            for deferral in reply.deferrals:
                yield deferral_from_wire(deferral)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def callbacks(self, queue: str, *, state: CallbackState, page_size: int = 50) -> AsyncIterator[CallbackEntry]:
        """Yield what is still told (PENDING) or was given up (DEAD), page by page; operators only."""
        wire_state = getattr(pb.CallbackEntry, state.name)
        request = pb.ListCallbacksRequest(queue=queue, state=wire_state, page_size=page_size)
        while True:
            reply = await self._call(self._stub.ListCallbacks, request)
            for callback in reply.callbacks:
                yield entry_from_wire(callback)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def callback(self, name: str) -> CallbackEntry:
        """Return one callback, queues/<queue>/callbacks/<id>; raises NotFoundError; operators only."""
        return entry_from_wire(await self._call(self._stub.GetCallback, pb.GetCallbackRequest(name=name)))

    async def redeliver(self, queue: str, names: Sequence[str] = (), *, every: bool = False) -> int:
        """Have those of `names`, or all, that were given up told again; returns how many; operators only."""
        request = pb.RedeliverCallbacksRequest(queue=queue, names=names, all=every, request_id=_request_id())
        reply = await self._call(self._stub.RedeliverCallbacks, request, wait_seconds=REDELIVER_SECONDS)
        return int(reply.redelivered)

    async def _call(self, method: Any, request: Any, *, wait_seconds: float = 0.0) -> Any:
        call: Awaitable[Any] = method(request, metadata=self._metadata, timeout=self._call_seconds + wait_seconds)
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error


def _metadata(identity: str, token: str) -> list[tuple[str, str]]:
    if token:
        return [(AUTHORIZATION_KEY, f"Bearer {token}")]
    return [(IDENTITY_KEY, identity)] if identity else []


def _request_id() -> str:
    return uuid.uuid4().hex


def _lease_from_wire(wire: pb.Lease) -> Lease:
    return Lease(
        token=wire.token,
        deferral=deferral_from_wire(wire.deferral),
        subject=wire.deferral.subject.content,
        expire_time=timestamp_from_wire(wire.expire_time),
        blind=wire.blind,
        draft=wire.draft,
    )


def _queue_from_wire(wire: pb.ReviewQueue) -> ReviewQueue:
    return ReviewQueue(
        name=wire.name.removeprefix("queues/"),
        waiting=wire.waiting,
        held=wire.held,
        open=wire.open,
        assisted=wire.assisted,
        lease_seconds=duration_from_wire("lease_duration", wire.lease_duration),
        undo_seconds=duration_from_wire("undo_window", wire.undo_window),
        reviewers=wire.reviewers,
        expected_wait_seconds=expected_wait_from_wire(wire),
        over=tuple(wire.over),
        content_bytes=wire.content_bytes,
        asked_last_hour=wire.asked_last_hour,
        budget_per_hour=wire.budget_per_hour,
        depth_max=wire.depth_max,
        tiers={tier.name: tier.waiting for tier in wire.tiers},
        next_free_time=timestamp_from_wire(wire.next_free_time) if wire.HasField("next_free_time") else None,
    )
