"""Skip, undo, flag and drafts over real channels: what the wire carries, and whom it tells what."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from demur.v1 import review_pb2 as pb
from demur.v1.review_pb2_grpc import ReviewServiceStub
from fallback.answer import Identity, Label, LabelOption, Task
from fallback.client import ReviewClient
from fallback.config import Config, QueueSettings
from fallback.deferral import Parking, Prediction, State
from fallback.errors import InvalidError, NotFoundError, StateError
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.service import Server

Park = Callable[..., Awaitable[str]]
ANN = [("demur-identity", "ann")]


@pytest.fixture
async def ann(review_address: str) -> AsyncIterator[ReviewClient]:
    """A reviewer's client on a queue without an undo window."""
    async with ReviewClient(review_address, identity="ann") as client:
        yield client


@asynccontextmanager
async def serving(
    config: Config, credentials: Credentials | None = None, **settings: Any
) -> AsyncIterator[tuple[Queue, str]]:
    """A review service whose [queues.default] is what the keywords say, and where it answers."""
    own = Config(data_folder=config.data_folder, queues={"default": QueueSettings(**settings)})
    queue = Queue.connect(own)
    server = Server(queue, credentials or Credentials(), own)
    yield queue, f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    await server.stop(0.5)
    await queue.close()


@pytest.fixture
async def patient(config: Config) -> AsyncIterator[str]:
    """Where a service answers whose queues have an undo window of half a minute."""
    async with serving(config, undo_seconds=30, skips_max=1) as (_, address):
        yield address


async def test_while_a_review_can_be_taken_back_the_guess_stays_hidden(patient: str, park: Park) -> None:
    """SubmitReview, GetDeferral and the lease of an undo say nothing of it: the corrected review is as blind."""
    name = await park()
    async with ReviewClient(patient, identity="ann") as ann:
        assert (await ann.queues())[0].undo_seconds == 30
        (lease,) = await ann.lease("digits")
        reviewed = await ann.submit(lease.token, Label("1"))
        assert (reviewed.deferral.state, reviewed.model_agreed) == (State.OPEN, None)
        for seen in (reviewed.deferral, await ann.get(name), (again := await ann.undo(name)).deferral):
            assert (seen.prediction, seen.outcome, seen.reasons) == (None, None, ())
        assert (again.blind, again.subject) == (True, b"image of a seven")
        reviewed = await ann.submit(again.token, Label("7"))
        assert reviewed.deferral.state is State.OPEN


async def test_what_is_final_is_not_taken_back(ann: ReviewClient, park: Park) -> None:
    """FAILED_PRECONDITION that says since when; NOT_FOUND, INVALID_ARGUMENT for what is no deferral."""
    name = await park()
    (lease,) = await ann.lease("digits")
    assert (await ann.submit(lease.token, Label("7"))).model_agreed is True
    with pytest.raises(StateError, match="could be taken back until"):
        await ann.undo(name)
    with pytest.raises(NotFoundError):
        await ann.undo("queues/digits/deferrals/" + "0" * 32)
    with pytest.raises(InvalidError, match="name: expected queues/"):
        await ann.undo("nonsense")


async def test_who_answered_first_hears_nothing_before_the_outcome(config: Config) -> None:
    """While another review is to come they may take theirs back, so they are not told the guess either."""
    parking = Parking(
        queue="digits",
        client="shop",
        idempotency_key="",
        input_digest="0" * 64,
        task=Task(question="Which digit is it?", labels=(LabelOption(label="7"),)),
        subject=b"image of a seven",
        media_type="image/png",
        attributes={},
        prediction=Prediction(model="digits", version="1", answer=Label("7"), confidence=0.62),
    )
    async with (
        serving(config, reviews_wanted=2) as (queue, address),
        ReviewClient(address, identity="ann") as ann,
        ReviewClient(address, identity="bob") as bob,
    ):
        await queue.park([parking])
        (first,), (second,) = await ann.lease("digits"), await bob.lease("digits")
        reviewed = await ann.submit(first.token, Label("7"))
        assert (reviewed.model_agreed, reviewed.deferral.prediction) == (None, None)
        assert (await ann.get(first.deferral.name)).prediction is None
        assert (await bob.submit(second.token, Label("7"))).model_agreed is True
        assert (await ann.get(first.deferral.name)).prediction is not None


async def test_a_skip_leaves_the_item_to_others(ann: ReviewClient, review_address: str, park: Park) -> None:
    """Its reviewer is not asked again, and cannot use the lease any more."""
    name = await park()
    (lease,) = await ann.lease("digits")
    await ann.skip(lease.token, reason="cut off")
    assert await ann.lease("digits") == []
    with pytest.raises(StateError, match="you skipped it"):
        await ann.extend(lease.token)
    async with ReviewClient(review_address, identity="bob") as bob:
        assert [lease.deferral.name for lease in await bob.lease("digits")] == [name]
    with pytest.raises(InvalidError, match="reason: expected at most 500 characters, got 501"):
        await ann.skip(lease.token, reason="x" * 501)


async def test_a_draft_comes_back_with_the_lease(ann: ReviewClient, park: Park) -> None:
    """After a release too; what is no JSON is refused."""
    await park()
    (lease,) = await ann.lease("digits")
    await ann.save_draft(lease.token, '{"label": "7"}')
    with pytest.raises(InvalidError, match="draft: expected a JSON text"):
        await ann.save_draft(lease.token, "{")
    await ann.release(lease.token)
    (again,) = await ann.lease("digits")
    assert (lease.draft, again.draft) == ("", '{"label": "7"}')


async def test_only_operators_see_flags_and_skips(config: Config, park: Park) -> None:
    """Reviewers are blind to each other; the listing of flagged ones is there for whoever manages the queue."""
    credentials = Credentials(
        (hashlib.sha256(name.encode()).digest(), Identity(name=name, roles=frozenset({role})))
        for name, role in (("ann", "reviewer"), ("bob", "reviewer"), ("olga", "operator"))
    )
    names = {await park(), await park()}
    async with (
        serving(config, credentials) as (_, address),
        ReviewClient(address, token="ann") as ann,
        ReviewClient(address, token="bob") as bob,
        ReviewClient(address, token="olga") as olga,
    ):
        (lease,) = await ann.lease("digits")
        await ann.flag(lease.deferral.name, "two digits in one picture")
        await ann.skip(lease.token, reason="which of them?")
        with pytest.raises(StateError, match="only who holds or answered it"):
            await bob.flag(lease.deferral.name, "?")
        found = [one async for one in olga.list("digits", flagged=True)]
        assert [one.name for one in found] == [lease.deferral.name]
        assert [(flag.reviewer, flag.comment) for flag in found[0].flags] == [("ann", "two digits in one picture")]
        assert [(skip.reviewer, skip.reason) for skip in found[0].skips] == [("ann", "which of them?")]
        assert {one.name async for one in olga.list("digits")} == names
        seen = [*[one async for one in bob.list("digits")], await bob.get(lease.deferral.name)]
        seen += [lease.deferral for lease in await bob.lease("digits", limit=2)]
        assert len(seen) == 5
        assert all(one.flags == () and one.skips == () for one in seen)


async def test_one_that_enough_people_skipped_is_listed_as_flagged(patient: str, park: Park) -> None:
    """Here one is enough."""
    name = await park()
    async with ReviewClient(patient, identity="ann") as ann:
        (lease,) = await ann.lease("digits")
        await ann.skip(lease.token)
        assert [one.name async for one in ann.list("digits", flagged=True)] == [name]
        assert [one async for one in ann.list("digits", state=State.RESOLVED, flagged=True)] == []


@pytest.mark.parametrize("verb", ["SkipDeferral", "UndoReview", "FlagDeferral", "SaveDraft"])
async def test_each_verb_needs_a_request_id(review_address: str, verb: str) -> None:
    """Without one a retry could do it twice."""
    requests = {
        "SkipDeferral": pb.SkipDeferralRequest(token="t"),
        "UndoReview": pb.UndoReviewRequest(name="queues/q/deferrals/1"),
        "FlagDeferral": pb.FlagDeferralRequest(name="queues/q/deferrals/1", comment="!"),
        "SaveDraft": pb.SaveDraftRequest(token="t", draft="{}"),
    }
    async with grpc.aio.insecure_channel(review_address) as channel:
        stub: Any = ReviewServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, verb)(requests[verb], metadata=ANN)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith("request_id: expected one")
