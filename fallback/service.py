"""demur.v1.ReviewService: what reviewers call. Wire in, wire out; every rule about deferrals stands behind `Queue`."""

from __future__ import annotations

from typing import Any, Final

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from demur.v1 import review_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.review_pb2_grpc import ReviewServiceServicer, add_ReviewServiceServicer_to_server
from fallback import gold_service
from fallback.answer import Identity, canonical
from fallback.config import Config, FallbackSettings
from fallback.deferral import TERMINAL, Deferral, Lease
from fallback.deferral_wire import deferral_to_wire, state_from_wire
from fallback.edge import GuardInterceptor
from fallback.errors import ConfigError, InvalidError
from fallback.identity import OPERATOR, REVIEWER, Credentials, require_role
from fallback.long_polls import DEADLINE_MARGIN_SECONDS, LongPolls
from fallback.queue import Queue, QueueState
from fallback.telling_wire import callback_state_from_wire, entry_to_wire, ids_from_wire
from fallback.tls import tls_of
from fallback.wire import (
    COMMENT_CHARS_MAX,
    REQUEST_ID_CHARS_MAX,
    TOKEN_CHARS_MAX,
    answer_from_wire,
    duration_from_wire,
    duration_to_wire,
    name_from_wire,
    queue_from_wire,
    text_from_wire,
    timestamp_to_wire,
)

SERVICE: Final = "demur.v1.ReviewService"
LEASES_MAX: Final = 100
WAIT_SECONDS_MAX: Final = 60.0
PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 1_000
PAGE_TOKEN_CHARS_MAX: Final = 1_024
CALLS_MAX: Final = 2_000

Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger(__name__)


class ReviewService(ReviewServiceServicer):  # type: ignore[misc]  # the stubs are generated without types
    """The methods. One for a process; `drain` ends the long polls."""

    def __init__(self, queue: Queue, credentials: Credentials, config: Config) -> None:
        self._queue = queue
        self._credentials = credentials
        self._config = config
        self._polls = LongPolls(queue)

    def drain(self) -> None:
        """Let waiting calls return with nothing, soon."""
        self._polls.drain()

    async def close(self) -> None:
        """Wait until everything that nobody took has gone back."""
        await self._polls.close()

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:  # noqa: D102, N802  # named and described by the contract
        del request
        self._reader(context)
        return pb.ListQueuesResponse(queues=[_queue_to_wire(state) for state in await self._queue.states()])

    async def LeaseDeferrals(self, request: pb.LeaseDeferralsRequest, context: Context) -> pb.LeaseDeferralsResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        queue = queue_from_wire("queue", request.queue)
        limit = _within("limit", request.limit, default=1, most=LEASES_MAX)
        wait_seconds = duration_from_wire("wait", request.wait, seconds_max=WAIT_SECONDS_MAX)
        remaining = context.time_remaining()
        if remaining is not None:
            wait_seconds = min(wait_seconds, max(0.0, remaining - DEADLINE_MARGIN_SECONDS))
        skills = tuple(request.skills)
        leases = await self._polls.lease(queue, reviewer, limit, wait_seconds, skills, resume=request.resume)
        return pb.LeaseDeferralsResponse(leases=[_lease_to_wire(lease) for lease in leases])

    async def ExtendLease(self, request: pb.ExtendLeaseRequest, context: Context) -> pb.Lease:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        token, request_id = _token(request.token), _request_id(request.request_id)
        return _lease_to_wire(await self._queue.extend(token, reviewer=reviewer, request_id=request_id))

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, context: Context) -> pb.ReleaseLeaseResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        token, request_id = _token(request.token), _request_id(request.request_id)
        await self._queue.release(token, reviewer=reviewer, request_id=request_id)
        return pb.ReleaseLeaseResponse()

    async def SubmitReview(self, request: pb.SubmitReviewRequest, context: Context) -> pb.SubmitReviewResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        token, request_id = _token(request.token), _request_id(request.request_id)
        comment = text_from_wire("comment", request.comment, chars_max=COMMENT_CHARS_MAX)
        answer = answer_from_wire(request.answer)
        deferral = await self._queue.submit(
            token, reviewer=reviewer, answer=answer, comment=comment, request_id=request_id
        )
        show = self._may_show(deferral)
        guess = deferral.prediction if show else None
        agreed = None if guess is None else canonical(guess.answer) == canonical(answer)
        return pb.SubmitReviewResponse(deferral=deferral_to_wire(deferral, show_prediction=show), model_agreed=agreed)

    async def SkipDeferral(self, request: pb.SkipDeferralRequest, context: Context) -> pb.SkipDeferralResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        token, request_id = _token(request.token), _request_id(request.request_id)
        await self._queue.skip(
            token, reviewer=reviewer, reason=request.reason, request_id=request_id, escalate=request.escalate
        )
        return pb.SkipDeferralResponse()

    async def UndoReview(self, request: pb.UndoReviewRequest, context: Context) -> pb.Lease:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        name, request_id = _name(request.name), _request_id(request.request_id)
        return _lease_to_wire(await self._queue.undo(name, reviewer=reviewer, request_id=request_id))

    async def FlagDeferral(self, request: pb.FlagDeferralRequest, context: Context) -> pb.FlagDeferralResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        name, request_id = _name(request.name), _request_id(request.request_id)
        await self._queue.flag(name, reviewer=reviewer, comment=request.comment, request_id=request_id)
        return pb.FlagDeferralResponse()

    async def SaveDraft(self, request: pb.SaveDraftRequest, context: Context) -> pb.SaveDraftResponse:  # noqa: D102, N802  # named and described by the contract
        reviewer = self._reviewer(context)
        token, request_id = _token(request.token), _request_id(request.request_id)
        await self._queue.save_draft(token, reviewer=reviewer, draft=request.draft, request_id=request_id)
        return pb.SaveDraftResponse()

    async def EraseContent(self, request: pb.EraseContentRequest, context: Context) -> types_pb2.Deferral:  # noqa: D102, N802  # named and described by the contract
        operator = self._operator(context)
        name, request_id = _name(request.name), _request_id(request.request_id)
        deferral = await self._queue.erase(name, request_id=request_id)
        log.info("content erased", deferral=name, by=operator.name)
        return self._shown(deferral, operator)

    async def GetDeferral(self, request: pb.GetReviewDeferralRequest, context: Context) -> types_pb2.Deferral:  # noqa: D102, N802  # named and described by the contract
        reader = self._reader(context)
        deferral = await self._queue.get(_name(request.name))
        return self._shown(deferral, reader)

    async def ListDeferrals(self, request: pb.ListDeferralsRequest, context: Context) -> pb.ListDeferralsResponse:  # noqa: D102, N802  # named and described by the contract
        reader = self._reader(context)
        found, token = await self._queue.list_deferrals(
            queue_from_wire("queue", request.queue),
            state=state_from_wire(request.state),
            flagged=request.flagged,
            page_size=_within("page_size", request.page_size, default=PAGE_SIZE, most=PAGE_SIZE_MAX),
            page_token=text_from_wire("page_token", request.page_token, chars_max=PAGE_TOKEN_CHARS_MAX),
        )
        if not found and not request.page_token:
            await self._queue.expect(queue_from_wire("queue", request.queue))
        return pb.ListDeferralsResponse(
            deferrals=[self._shown(deferral, reader) for deferral in found], next_page_token=token
        )

    async def ListCallbacks(self, request: pb.ListCallbacksRequest, context: Context) -> pb.ListCallbacksResponse:  # noqa: D102, N802  # named and described by the contract
        self._operator(context)
        found, token = await self._queue.callbacks(
            queue_from_wire("queue", request.queue),
            state=callback_state_from_wire(request.state),
            page_size=_within("page_size", request.page_size, default=PAGE_SIZE, most=PAGE_SIZE_MAX),
            page_token=text_from_wire("page_token", request.page_token, chars_max=PAGE_TOKEN_CHARS_MAX),
        )
        if not found and not request.page_token:
            await self._queue.expect(queue_from_wire("queue", request.queue))
        return pb.ListCallbacksResponse(callbacks=[entry_to_wire(one) for one in found], next_page_token=token)

    async def GetCallback(self, request: pb.GetCallbackRequest, context: Context) -> pb.CallbackEntry:  # noqa: D102, N802  # named and described by the contract
        self._operator(context)
        return entry_to_wire(await self._queue.callback(request.name))

    async def RedeliverCallbacks(  # noqa: D102, N802  # named and described by the contract
        self, request: pb.RedeliverCallbacksRequest, context: Context
    ) -> pb.RedeliverCallbacksResponse:
        self._operator(context)
        queue, request_id = queue_from_wire("queue", request.queue), _request_id(request.request_id)
        ids = ids_from_wire("names", request.names, queue)
        if bool(ids) == request.all:
            raise InvalidError("names: expected names, or all, got " + ("both" if ids else "neither"))
        if request.all:
            count = await self._queue.redeliver_all(queue, request_id=request_id)
        else:
            count = await self._queue.redeliver(queue, ids, request_id=request_id)
        return pb.RedeliverCallbacksResponse(redelivered=count)

    async def AddGold(self, request: pb.AddGoldRequest, context: Context) -> pb.GoldItem:  # noqa: D102, N802  # named and described by the contract
        return await gold_service.add(self._queue, request, self._operator(context))

    async def ListGold(self, request: pb.ListGoldRequest, context: Context) -> pb.ListGoldResponse:  # noqa: D102, N802  # named and described by the contract
        self._operator(context)
        share = self._config.queue(queue_from_wire("queue", request.queue)).gold_share
        return await gold_service.listing(self._queue, request, share=share)

    async def RemoveGold(self, request: pb.RemoveGoldRequest, context: Context) -> pb.RemoveGoldResponse:  # noqa: D102, N802  # named and described by the contract
        return await gold_service.remove(self._queue, request, self._operator(context))

    def _operator(self, context: Context) -> Identity:
        return self._credentials.identify(_metadata(context), peer=context.peer(), require_name=True, role=OPERATOR)

    def _reviewer(self, context: Context) -> Identity:
        return self._credentials.identify(_metadata(context), peer=context.peer(), require_name=True, role=REVIEWER)

    def _reader(self, context: Context) -> Identity:
        identity = self._credentials.identify(_metadata(context), peer=context.peer(), require_name=True)
        require_role(identity, REVIEWER, OPERATOR)
        return identity

    def _shown(self, deferral: Deferral, reader: Identity) -> types_pb2.Deferral:
        show_notes = OPERATOR in reader.roles
        return deferral_to_wire(deferral, show_prediction=self._may_show(deferral), show_notes=show_notes)

    def _may_show(self, deferral: Deferral) -> bool:
        """Whether the guess may be told: not while somebody may yet answer, or take an answer back and give another."""
        assisted = not deferral.always_blind and self._config.queue(deferral.queue).assisted
        return deferral.state in TERMINAL or assisted


class Server:
    """The gRPC server of one process: ReviewService, health and reflection behind the guard."""

    def __init__(self, queue: Queue, credentials: Credentials, config: Config) -> None:
        self.service = ReviewService(queue, credentials, config)
        self._health = health.HealthServicer()
        settings = config.table("fallback", FallbackSettings)
        self._tls = tls_of("fallback", settings)
        self._server = grpc.aio.server(
            interceptors=[GuardInterceptor()],
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", settings.message_bytes_max)],
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        add_ReviewServiceServicer_to_server(self.service, self._server)
        add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Listen on `address` (host:port, or unix:path) and return the port; raises ConfigError where that fails."""
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._tls.credentials())
        except RuntimeError as error:
            raise ConfigError(f"fallback.grpc_listen: cannot listen on {address}; is it in use?") from error
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those under way end within `grace_seconds`, and give back what nobody took."""
        await self._health.enter_graceful_shutdown()
        self.service.drain()
        await self._server.stop(grace_seconds)
        await self.service.close()


def _metadata(context: Context) -> list[tuple[str, str | bytes]]:
    return list(context.invocation_metadata() or ())


def _token(token: str) -> str:
    return text_from_wire("token", token, chars_max=TOKEN_CHARS_MAX, needed=True)


def _name(name: str) -> str:
    name_from_wire("name", name)
    return name


def _request_id(request_id: str) -> str:
    return text_from_wire("request_id", request_id, chars_max=REQUEST_ID_CHARS_MAX, needed=True)


def _within(field: str, number: int, *, default: int, most: int) -> int:
    """Return `number`, or the default for 0; raises InvalidError naming `field` beyond 1 to `most`."""
    if not 0 <= number <= most:
        raise InvalidError(f"{field}: expected 1 to {most}, or 0 for {default}, got {number}")
    return number or default


def _lease_to_wire(lease: Lease) -> pb.Lease:
    return pb.Lease(
        token=lease.token,
        deferral=deferral_to_wire(lease.deferral, show_prediction=not lease.blind, subject=lease.subject),
        expire_time=timestamp_to_wire(lease.expire_time),
        blind=lease.blind,
        draft=lease.draft,
    )


def _optional(seconds: float | None) -> Duration | None:
    return None if seconds is None else duration_to_wire(seconds)


def _queue_to_wire(state: QueueState) -> pb.ReviewQueue:
    return pb.ReviewQueue(
        name=f"queues/{state.name}",
        waiting=state.waiting,
        held=state.held,
        open=state.open,
        assisted=state.assisted,
        lease_duration=duration_to_wire(state.lease_seconds),
        reviewers=state.reviewers,
        undo_window=duration_to_wire(state.undo_seconds),
        expected_wait=_optional(state.expected_wait_seconds),
        over=state.over,
        content_bytes=state.content_bytes,
        asked_last_hour=state.asked_last_hour,
        budget_per_hour=state.budget_per_hour,
        depth_max=state.depth_max,
        tiers=[pb.ReviewTier(name=name, waiting=waiting) for name, waiting in state.tiers],
        next_free_time=None if state.next_free_time is None else timestamp_to_wire(state.next_free_time),
    )
