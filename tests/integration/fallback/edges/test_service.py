"""ReviewService over real channels and a real server."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from demur.v1 import review_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.review_pb2_grpc import ReviewServiceStub
from fallback.answer import AnswerKind, Identity, Json, Label, Task
from fallback.client import ReviewClient
from fallback.config import Config, load
from fallback.deferral import Prediction, State
from fallback.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StateError,
    UnauthenticatedError,
)
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.service import Server

CODE = grpc.StatusCode


@pytest.fixture
async def ann(review_address: str) -> AsyncIterator[ReviewClient]:
    async with ReviewClient(review_address, identity="ann") as client:
        yield client


@pytest.fixture
async def raw(review_address: str) -> AsyncIterator[Any]:
    """The stub itself, for what the client would not send."""
    async with grpc.aio.insecure_channel(review_address) as channel:
        yield ReviewServiceStub(channel)


ANN = [("demur-identity", "ann")]


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_review_settles_and_then_shows_the_guess(ann: ReviewClient, park: Any) -> None:
    """A blind lease carries the content and no guess; the answer settles it, and the reply says whether both agree."""
    name = await park()
    (lease,) = await ann.lease("digits")
    assert (lease.deferral.name, lease.subject, lease.blind) == (name, b"image of a seven", True)
    assert lease.deferral.prediction is None
    assert lease.deferral.reasons == ()
    assert lease.deferral.task.question == "Which digit is it?"
    reviewed = await ann.submit(lease.token, Label("7"), comment="clear")
    assert reviewed.model_agreed is True
    assert reviewed.deferral.state is State.RESOLVED
    assert reviewed.deferral.outcome is not None
    assert reviewed.deferral.outcome.answer == Label("7")
    assert reviewed.deferral.prediction is not None
    assert reviewed.deferral.prediction.confidence == 0.62


async def test_another_answer_than_the_models_is_told_as_such(ann: ReviewClient, park: Any) -> None:
    """model_agreed is False where the person says otherwise."""
    await park()
    (lease,) = await ann.lease("digits")
    assert (await ann.submit(lease.token, Label("1"))).model_agreed is False


async def test_the_models_answer_spelt_otherwise_agrees_with_it(ann: ReviewClient, park: Any) -> None:
    """JSON is compared by its values, and kept as it was given."""
    guess = Prediction(model="m", version="1", answer=Json('{"a":1,"b":2}'), confidence=0.5)
    await park(task=Task(question="What is on it?", kind=AnswerKind.JSON), prediction=guess)
    (lease,) = await ann.lease("digits")
    reviewed = await ann.submit(lease.token, Json('{"b": 2, "a": 1}'))
    assert reviewed.model_agreed is True
    assert reviewed.deferral.outcome is not None
    assert reviewed.deferral.outcome.answer == Json('{"b": 2, "a": 1}')


async def test_without_a_model_nothing_is_said_of_agreement(ann: ReviewClient, park: Any) -> None:
    """model_agreed is absent where no model was asked."""
    await park(prediction=None)
    (lease,) = await ann.lease("digits")
    assert (await ann.submit(lease.token, Label("1"))).model_agreed is None


async def test_an_assisted_queue_shows_the_guess_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, park: Any
) -> None:
    """Where the queue is assisted the lease carries the prediction, and the review records that it was not blind."""
    path = tmp_path / "assisted.toml"
    path.write_text("[queues.digits]\nassisted = true\n")
    monkeypatch.setenv("DEMUR_REDIS_URL", redis_url)
    name = await park()
    async with serving(load(path)) as (queue, address), ReviewClient(address, identity="ann") as client:
        assert (await client.queues())[0].assisted is True
        (lease,) = await client.lease("digits")
        assert lease.blind is False
        assert lease.deferral.prediction is not None
        await client.submit(lease.token, Label("7"))
        assert (await queue.get(name)).reviews[0].blind is False


class serving:  # noqa: N801  # reads as a verb where it is used
    """A review service of its own configuration."""

    def __init__(self, config: Config, credentials: Credentials | None = None) -> None:
        self._queue = Queue.connect(config)
        self._server = Server(self._queue, credentials or Credentials(), config)

    async def __aenter__(self) -> tuple[Queue, str]:
        return self._queue, f"127.0.0.1:{await self._server.start('127.0.0.1:0')}"

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0.5)
        await self._queue.close()


async def test_queues_are_counted(ann: ReviewClient, park: Any) -> None:
    """ListQueues counts what waits, what is held, what is open, and who holds something."""
    await park()
    await park()
    await ann.lease("digits")
    (state,) = await ann.queues()
    assert (state.name, state.waiting, state.held, state.open, state.reviewers) == ("digits", 1, 1, 2, 1)
    assert state.lease_seconds == 120


async def test_a_lease_can_be_extended_and_released(ann: ReviewClient, park: Any) -> None:
    """Extending moves the end, releasing gives the item to the next one who asks."""
    await park()
    (lease,) = await ann.lease("digits")
    await asyncio.sleep(0.01)
    longer = await ann.extend(lease.token)
    assert longer.expire_time > lease.expire_time
    await ann.release(lease.token)
    assert len(await ann.lease("digits")) == 1


async def test_a_long_poll_gets_what_comes(ann: ReviewClient, park: Any) -> None:
    """A waiting LeaseDeferrals returns as soon as something is parked."""
    waiting = asyncio.create_task(ann.lease("digits", wait_seconds=30))
    await asyncio.sleep(0.1)
    name = await park()
    (lease,) = await asyncio.wait_for(waiting, 10)
    assert lease.deferral.name == name


async def test_a_long_poll_ends_before_its_deadline(raw: Any) -> None:
    """A call whose deadline is nearer than its wait gets an empty reply in time, not DEADLINE_EXCEEDED."""
    request = pb.LeaseDeferralsRequest(queue="digits", wait={"seconds": 60})
    reply = await raw.LeaseDeferrals(request, metadata=ANN, timeout=1.0)
    assert list(reply.leases) == []


async def test_a_cancelled_long_poll_leaves_no_lease_behind(review_address: str, queue: Queue, park: Any) -> None:
    """What was leased for a caller who has gone goes back, and soon."""
    async with ReviewClient(review_address, identity="gone") as client:
        waiting = asyncio.create_task(client.lease("digits", wait_seconds=30))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await park()
    leases = await queue.lease("digits", reviewer=Identity(name="ben"), wait_seconds=8)
    assert len(leases) == 1


async def test_a_reply_holds_no_more_than_a_client_can_take(
    ann: ReviewClient, park: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit of a reply's bytes items go back at once; one item always fits."""
    monkeypatch.setattr("fallback.long_polls.LEASE_BYTES_MAX", 25)
    for number in range(5):
        await park(subject=b"%d" % number * 10)
    assert len(await ann.lease("digits", limit=5)) == 2
    await asyncio.sleep(0.05)
    (state,) = await ann.queues()
    assert (state.held, state.waiting) == (2, 3)


async def test_deferrals_are_listed_page_by_page(ann: ReviewClient, park: Any, settle: Any) -> None:
    """Listing walks all pages and filters by state; open ones show no guess to those who may be asked."""
    done = await settle()
    names = {await park() for _ in range(3)}
    assert {found.name async for found in ann.list("digits", page_size=2)} == names | {done}
    opened = [found async for found in ann.list("queues/digits", state=State.OPEN)]
    assert {found.name for found in opened} == names
    assert all(found.prediction is None and not found.reasons for found in opened)
    (resolved,) = [found async for found in ann.list("digits", state=State.RESOLVED)]
    assert resolved.prediction is not None


async def test_a_settled_deferral_shows_everything(ann: ReviewClient, settle: Any) -> None:
    """Once there is an outcome nothing is hidden any more."""
    found = await ann.get(await settle())
    assert found.state is State.RESOLVED
    assert found.prediction is not None
    assert found.reasons == ("threshold",)


async def test_a_made_up_token_is_refused(ann: ReviewClient, raw: Any) -> None:
    """A token that nobody issued is refused whatever is done with it, and nothing is said of how tokens are made."""
    for token in ("made-up", "digits." + "A" * 40, "\u00e9", "x" * 1024):
        code, _ = await refusal(
            raw.SubmitReview(pb.SubmitReviewRequest(token=token, answer={"label": "7"}, request_id="r"), metadata=ANN)
        )
        assert code in {CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION}
    with pytest.raises((InvalidError, StateError)):
        await ann.extend("made-up")
    with pytest.raises((InvalidError, StateError)):
        await ann.release("made-up")


async def test_a_repeated_submit_returns_the_stored_reply(raw: Any, ann: ReviewClient, park: Any) -> None:
    """The same request id a second time changes nothing and answers the same; another id finds the lease used up."""
    await park()
    (lease,) = await ann.lease("digits")
    request = pb.SubmitReviewRequest(token=lease.token, answer={"label": "7"}, request_id="once")
    first = await raw.SubmitReview(request, metadata=ANN)
    assert await raw.SubmitReview(request, metadata=ANN) == first
    request.request_id = "twice"
    code, _ = await refusal(raw.SubmitReview(request, metadata=ANN))
    assert code is CODE.FAILED_PRECONDITION


async def test_a_stale_token_is_refused(ann: ReviewClient, park: Any) -> None:
    """A lease that was given back is over for extend, release and submit alike."""
    await park()
    (lease,) = await ann.lease("digits")
    await ann.release(lease.token)
    for call in (ann.submit(lease.token, Label("7")), ann.extend(lease.token), ann.release(lease.token)):
        with pytest.raises(StateError):
            await call


async def test_somebody_elses_token_is_refused(ann: ReviewClient, review_address: str, park: Any) -> None:
    """A lease works for its holder alone; the holder's hold is not disturbed."""
    await park()
    (lease,) = await ann.lease("digits")
    async with ReviewClient(review_address, identity="ben") as ben:
        for call in (ben.submit(lease.token, Label("7")), ben.extend(lease.token), ben.release(lease.token)):
            with pytest.raises((StateError, ForbiddenError)):
                await call
    assert (await ann.submit(lease.token, Label("7"))).deferral.state is State.RESOLVED


async def test_the_wrong_kind_of_answer_is_refused(raw: Any, ann: ReviewClient, park: Any) -> None:
    """An answer that does not fit the task names what was expected and what came; the lease stays good."""
    await park()
    (lease,) = await ann.lease("digits")
    wrong: dict[str, types_pb2.Answer] = {
        "expects an answer of kind label, got number": types_pb2.Answer(number=7),
        "expected one of 0, 1, 2": types_pb2.Answer(label="eleven"),
        "expected one of label, labels, boxes": types_pb2.Answer(),
        "at most 256 characters": types_pb2.Answer(label="7" * 257),
        "expected a JSON text": types_pb2.Answer(json="[" * 60_000),
    }
    for sentence, answer in wrong.items():
        request = pb.SubmitReviewRequest(token=lease.token, answer=answer, request_id=uuid.uuid4().hex)
        code, details = await refusal(raw.SubmitReview(request, metadata=ANN))
        assert code is CODE.INVALID_ARGUMENT
        assert details.startswith("answer")
        assert sentence in details
    await ann.submit(lease.token, Label("7"))


@pytest.mark.parametrize(
    ("method", "request_", "sentence"),
    [
        ("LeaseDeferrals", pb.LeaseDeferralsRequest(), "queue: "),
        ("LeaseDeferrals", pb.LeaseDeferralsRequest(queue="../etc"), "queue: "),
        ("LeaseDeferrals", pb.LeaseDeferralsRequest(queue="digits", limit=101), "limit: expected 1 to 100"),
        ("LeaseDeferrals", pb.LeaseDeferralsRequest(queue="digits", limit=-1), "limit: "),
        ("LeaseDeferrals", pb.LeaseDeferralsRequest(queue="digits", wait={"seconds": 61}), "wait: expected 0 to 60 s"),
        ("ExtendLease", pb.ExtendLeaseRequest(request_id="r"), "token: "),
        ("ExtendLease", pb.ExtendLeaseRequest(token="t"), "request_id: "),
        ("ReleaseLease", pb.ReleaseLeaseRequest(token="t" * 1025, request_id="r"), "token: expected at most 1024"),
        ("SubmitReview", pb.SubmitReviewRequest(token="t", request_id="r" * 129), "request_id: expected at most 128"),
        (
            "SubmitReview",
            pb.SubmitReviewRequest(token="t", request_id="r", comment="c" * 10_001),
            "comment: expected at most 10000",
        ),
        ("GetDeferral", pb.GetReviewDeferralRequest(name="digits/1"), "name: expected queues/<queue>/deferrals/<id>"),
        ("ListDeferrals", pb.ListDeferralsRequest(queue="digits", page_size=1001), "page_size: "),
        ("ListDeferrals", pb.ListDeferralsRequest(queue="digits", page_token="\x00"), "page_token"),
        ("ListDeferrals", pb.ListDeferralsRequest.FromString(b"\n\x06digits\x10\x09"), "state: "),
    ],
)
async def test_a_field_out_of_bounds_is_named(raw: Any, method: str, request_: Any, sentence: str) -> None:
    """Each limit of a field answers INVALID_ARGUMENT with the field's name."""
    code, details = await refusal(getattr(raw, method)(request_, metadata=ANN))
    assert code is CODE.INVALID_ARGUMENT
    assert details.startswith(sentence)


async def test_an_unknown_deferral_is_not_found(ann: ReviewClient) -> None:
    """A well-formed name of nothing answers NOT_FOUND."""
    with pytest.raises(NotFoundError):
        await ann.get("queues/digits/deferrals/00000000000000000000000000000000")


async def test_an_unknown_queue_has_nothing(ann: ReviewClient) -> None:
    """A queue comes up as something is parked in it, so one that nobody knows is empty."""
    assert await ann.lease("nobody-parked-here") == []


async def test_a_reviewer_must_have_a_name(raw: Any) -> None:
    """Without a name there is no distinct reviewer: UNAUTHENTICATED, or INVALID_ARGUMENT for what cannot be a name."""
    request = pb.LeaseDeferralsRequest(queue="digits")
    assert await refusal(raw.LeaseDeferrals(request)) == (
        CODE.UNAUTHENTICATED,
        "demur-identity: expected your name in the call's metadata, got none",
    )
    code, details = await refusal(raw.LeaseDeferrals(request, metadata=[("demur-identity", "x" * 65)]))
    assert code is CODE.INVALID_ARGUMENT
    assert details.startswith("demur-identity: expected 1 to 64 printable characters")


async def test_bytes_that_are_no_request_are_refused(review_address: str) -> None:
    """A message that does not parse is INVALID_ARGUMENT, without the parser's words."""
    async with grpc.aio.insecure_channel(review_address) as channel:
        call: Any = channel.unary_unary("/demur.v1.ReviewService/GetDeferral")
        assert await refusal(call(b"\xff\xff", metadata=ANN)) == (
            CODE.INVALID_ARGUMENT,
            "request: expected this method's message, got bytes that are none",
        )


async def test_a_message_beyond_the_limit_is_refused(raw: Any) -> None:
    """A request larger than message_bytes_max is RESOURCE_EXHAUSTED and the service goes on."""
    request = pb.SubmitReviewRequest(token="t", request_id="r", comment="c" * (17 * 1024 * 1024))
    code, _ = await refusal(raw.SubmitReview(request, metadata=ANN))
    assert code is CODE.RESOURCE_EXHAUSTED
    await raw.ListQueues(pb.ListQueuesRequest(), metadata=ANN)


async def test_with_credentials_the_token_says_who_calls(config: Config) -> None:
    """A bearer token is an identity with roles; a name in the metadata, or no token, is nobody."""
    credentials = Credentials(
        (hashlib.sha256(token).digest(), Identity(name=name, roles=frozenset({role})))
        for token, name, role in ((b"a-token", "ann", "reviewer"), (b"s-token", "shop", "client"))
    )
    async with serving(config, credentials) as (_, address):
        async with ReviewClient(address, token="a-token") as ann:
            assert await ann.lease("digits") == []
        async with ReviewClient(address, token="s-token") as shop:
            with pytest.raises(ForbiddenError):
                await shop.lease("digits")
        for client in (ReviewClient(address, identity="ann"), ReviewClient(address, token="wrong")):
            async with client as nobody:
                with pytest.raises(UnauthenticatedError):
                    await nobody.queues()


async def test_health_and_reflection_are_served(review_address: str) -> None:
    """grpc.health.v1 says SERVING without credentials, and reflection lists the service."""
    async with grpc.aio.insecure_channel(review_address) as channel:
        for service in ("", "demur.v1.ReviewService"):
            health = await HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        call: Any = ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        names = {each.name async for reply in call for each in reply.list_services_response.service}
    assert "demur.v1.ReviewService" in names


async def test_draining_ends_long_polls_with_an_empty_reply(config: Config) -> None:
    """A stopping service lets a waiting reviewer go with nothing instead of an error."""
    queue = Queue.connect(config)
    server = Server(queue, Credentials(), config)
    port = await server.start("127.0.0.1:0")
    async with ReviewClient(f"127.0.0.1:{port}", identity="ann") as client:
        waiting = asyncio.create_task(client.lease("digits", wait_seconds=30))
        await asyncio.sleep(0.2)
        await server.stop(10)
        assert await waiting == []
    await queue.close()
