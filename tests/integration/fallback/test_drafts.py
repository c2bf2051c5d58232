"""A draft: kept for its author while they work, and gone when it is of no more use."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity, Label
from fallback.errors import InvalidError, StateError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park, review, take

WINDOW_SECONDS = 30.0


async def test_a_draft_comes_back_with_the_lease_after_a_lapse_or_a_crash(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """To its author only, the newest one, from any process, whatever others did meanwhile but answer."""
    queue = open_queue(lease_seconds=0.2)
    await park(queue, parking())
    lease = await take(queue, ann)
    assert lease.draft == ""
    for draft in ('{"label": "1"}', '{"label": "\u6771"}'):
        await queue.save_draft(lease.token, reviewer=ann, draft=draft, request_id="")
    await asyncio.sleep(0.21)
    with pytest.raises(StateError, match="it lapsed"):
        await queue.save_draft(lease.token, reviewer=ann, draft="{}", request_id="")
    others = await take(queue, bob)
    assert others.draft == ""
    await queue.save_draft(others.token, reviewer=bob, draft="[]", request_id="")
    await queue.release(others.token, reviewer=bob, request_id="")
    again = await take(open_queue(), ann)
    assert again.draft == '{"label": "\u6771"}'
    assert await queue.reconcile() == []


async def test_a_draft_is_gone_once_its_author_answered(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str, ann: Identity, bob: Identity
) -> None:
    """Theirs alone: what others kept for the same place they may yet go on with in another."""
    queue = open_queue(reviews_wanted=2, undo_seconds=WINDOW_SECONDS)
    name = await park(queue, parking())
    redis, key = Redis.from_url(redis_url), keys.drafts("digits", name.rpartition("/")[2])
    for reviewer in (ann, bob):
        lease = await take(queue, reviewer)
        await queue.save_draft(lease.token, reviewer=reviewer, draft="{}", request_id="")
        await queue.release(lease.token, reviewer=reviewer, request_id="")
    assert sorted(await redis.hkeys(key)) == [b"0:ann", b"0:bob"]
    lease = await take(queue, ann)
    held = await take(queue, bob)
    assert held.draft == "{}"
    await queue.save_draft(held.token, reviewer=bob, draft="[1]", request_id="")
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    assert await redis.hgetall(key) == {b"1:bob": b"[1]"}
    assert await queue.reconcile() == []
    await queue.submit(held.token, reviewer=bob, answer=Label("7"), request_id="")
    assert await redis.exists(key) == 0
    assert (await queue.undo(name, reviewer=bob, request_id="")).draft == ""
    await redis.aclose()


async def test_a_draft_outlives_anothers_answer_in_the_place_that_lapsed(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Its author crashed and comes back to another place, or after the others thought again: it is there."""
    settings, cid = {"reviews_wanted": 2, "undo_seconds": WINDOW_SECONDS}, Identity(name="cid")
    queue, hasty = open_queue(**settings), open_queue(**settings, lease_seconds=0.5)
    name = await park(queue, parking())
    lease = await take(hasty, ann)
    await hasty.save_draft(lease.token, reviewer=ann, draft="[1]", request_id="")
    await asyncio.sleep(0.51)
    await review(queue, bob, Label("7"))
    again = await take(queue, ann)
    assert (again.draft, again.deferral.reviews_wanted) == ("[1]", 2)
    await queue.release(again.token, reviewer=ann, request_id="")
    await review(queue, cid, Label("7"))
    # In the undo window nobody is asked, and nothing of it is lost.
    assert await queue.reconcile() == []
    back = await queue.undo(name, reviewer=cid, request_id="")
    await queue.release(back.token, reviewer=cid, request_id="")
    again = await take(queue, ann)
    assert again.draft == "[1]"
    await queue.submit(again.token, reviewer=ann, answer=Label("7"), request_id="")
    assert await queue.reconcile() == []


@pytest.mark.parametrize("end", ["cancel", "skip"])
async def test_a_draft_ends_with_its_deferral_or_with_its_authors_interest(
    queue: Queue, parking: MakeParking, redis_url: str, ann: Identity, end: str
) -> None:
    """Nobody's unfinished work stays behind."""
    name = await park(queue, parking())
    lease = await take(queue, ann)
    await queue.save_draft(lease.token, reviewer=ann, draft="{}", request_id="")
    if end == "cancel":
        await queue.cancel(name, request_id="")
    else:
        await queue.skip(lease.token, reviewer=ann, reason="", request_id="")
    redis = Redis.from_url(redis_url)
    assert await redis.exists(keys.drafts("digits", name.rpartition("/")[2])) == 0
    assert await queue.reconcile() == []
    await redis.aclose()


async def test_a_draft_has_its_limits(
    queue: Queue, parking: MakeParking, redis_url: str, ann: Identity, bob: Identity
) -> None:
    """JSON of at most 64 KiB, from the holder; of those who let go only the last few keep theirs."""
    name = await park(queue, parking())
    lease = await take(queue, ann)
    for wrong in ("", "{", "\ud800", '"' + "x" * 65_535 + '"', '"' + "\u6771" * 21_846 + '"'):
        with pytest.raises(InvalidError, match="draft: expected"):
            await queue.save_draft(lease.token, reviewer=ann, draft=wrong, request_id="")
    await queue.save_draft(lease.token, reviewer=ann, draft='"' + "x" * 65_534 + '"', request_id="1")
    with pytest.raises(StateError, match="another reviewer's"):
        await queue.save_draft(lease.token, reviewer=bob, draft="{}", request_id="")
    await queue.release(lease.token, reviewer=ann, request_id="")
    for number in range(40):
        reviewer = Identity(name=f"reviewer: {number}")
        lease = await take(queue, reviewer)
        await queue.save_draft(lease.token, reviewer=reviewer, draft=str(number), request_id="")
        await queue.release(lease.token, reviewer=reviewer, request_id="")
    redis = Redis.from_url(redis_url)
    assert await redis.hlen(keys.drafts("digits", name.rpartition("/")[2])) == 32
    assert (await take(queue, reviewer)).draft == "39"
    await redis.aclose()
