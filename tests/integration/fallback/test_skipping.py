"""An item that a reviewer leaves to others, or says a word about to review managers."""

from __future__ import annotations

import asyncio

import pytest

from fallback.answer import Identity, Label
from fallback.deferral import State
from fallback.errors import ConflictError, FullError, InvalidError, NotFoundError, StateError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park, review, take

WINDOW_SECONDS = 30.0


async def test_a_skipped_item_goes_to_others_at_once_and_never_back(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Who skipped it is not asked again; who waits for work gets it; the reason stays with it."""
    name = await park(queue, parking())
    lease = await take(queue, ann)
    waiting = asyncio.create_task(queue.lease("digits", reviewer=bob, wait_seconds=20))
    await asyncio.sleep(0.05)
    for _ in range(2):
        await queue.skip(lease.token, reviewer=ann, reason="cut off at the top", request_id="1")
    (others,) = await asyncio.wait_for(waiting, 5)
    assert others.deferral.name == name
    await queue.release(others.token, reviewer=bob, request_id="2")
    assert await queue.lease("digits", reviewer=ann) == []
    assert [lease.deferral.name for lease in await queue.lease("digits", reviewer=bob)] == [name]
    (skip,) = (await queue.get(name)).skips
    assert (skip.reviewer, skip.reason) == ("ann", "cut off at the top")
    with pytest.raises(StateError, match="leased again"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="3")
    assert await queue.reconcile() == []


async def test_skipping_is_refused_where_it_makes_no_sense(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Another's lease, one that is over, a reason too long or not text, a request id used for another reason."""
    await queue.park([parking(), parking()])
    one, two = await queue.lease("digits", reviewer=ann, limit=2)
    for wrong in ("x" * 501, "\ud800"):
        with pytest.raises(InvalidError, match="reason: expected"):
            await queue.skip(one.token, reviewer=ann, reason=wrong, request_id="")
    with pytest.raises(StateError, match="another reviewer's"):
        await queue.skip(one.token, reviewer=bob, reason="", request_id="")
    await queue.skip(one.token, reviewer=ann, reason="dark", request_id="1")
    with pytest.raises(ConflictError):
        await queue.skip(one.token, reviewer=ann, reason="bright", request_id="1")
    with pytest.raises(StateError, match="you skipped it"):
        await queue.skip(one.token, reviewer=ann, reason="dark", request_id="2")
    await queue.submit(two.token, reviewer=ann, answer=Label("7"), request_id="3")
    with pytest.raises(StateError, match="is resolved already"):
        await queue.skip(two.token, reviewer=ann, reason="dark", request_id="4")


async def test_an_item_that_enough_people_skipped_is_flagged_and_not_lost(
    open_queue: OpenQueue, parking: MakeParking
) -> None:
    """Review managers find it in their listing; whoever did not skip it may still answer."""
    queue = open_queue(skips_max=2)
    name = await park(queue, parking())
    await park(queue, parking(priority=0))
    for number in range(3):
        reviewer = Identity(name=f"reviewer {number}")
        assert len((await queue.list_deferrals("digits", flagged=True))[0]) == (number >= 2)
        lease = await take(queue, reviewer)
        await queue.skip(lease.token, reviewer=reviewer, reason="", request_id="")
    (found,), _ = await queue.list_deferrals("digits", flagged=True)
    assert (found.name, found.state) == (name, State.OPEN)
    assert [skip.reviewer for skip in found.skips] == ["reviewer 0", "reviewer 1", "reviewer 2"]
    assert (await review(queue, Identity(name="dan"), Label("7"))).name == name
    assert (await queue.list_deferrals("digits", state=State.OPEN, flagged=True))[0] == []
    assert len((await queue.list_deferrals("digits", state=State.RESOLVED, flagged=True))[0]) == 1


async def test_a_flag_is_a_word_for_review_managers(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """From who holds or answered it; recorded once with who and when; the deferral stays as it is."""
    await queue.park([parking(), parking()])
    lease = await take(queue, ann)
    before = await queue.get(lease.deferral.name)
    for _ in range(2):
        await queue.flag(before.name, reviewer=ann, comment="zwei Ziffern \u6771", request_id="1")
    found = await queue.get(before.name)
    (flag,) = found.flags
    assert (flag.reviewer, flag.comment) == ("ann", "zwei Ziffern \u6771")
    assert 0 <= flag.create_time - before.create_time < 60
    assert (found.version, found.state, found.reviews) == (before.version, before.state, ())
    assert (await queue.list_deferrals("digits", flagged=True)) == ([found], "")
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="2")
    await queue.flag(before.name, reviewer=ann, comment="and blurred", request_id="3")
    assert len((await queue.get(before.name)).flags) == 2
    assert await queue.reconcile() == []


async def test_a_flag_is_refused_from_strangers_and_has_its_limits(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Who never had it, no comment, one too long, the twenty-first, one of no deferral."""
    name = await park(queue, parking())
    with pytest.raises(StateError, match="only who holds or answered it"):
        await queue.flag(name, reviewer=ann, comment="?", request_id="")
    lease = await take(queue, ann)
    with pytest.raises(StateError, match="only who holds or answered it"):
        await queue.flag(name, reviewer=bob, comment="?", request_id="")
    for wrong in ("", " ", "x" * 2_001, "\udc00"):
        with pytest.raises(InvalidError, match="comment: expected"):
            await queue.flag(name, reviewer=ann, comment=wrong, request_id="")
    for number in range(20):
        await queue.flag(name, reviewer=ann, comment=str(number), request_id="")
    with pytest.raises(FullError, match="has 20 flags already"):
        await queue.flag(name, reviewer=ann, comment="one more", request_id="")
    assert [flag.comment for flag in (await queue.get(name)).flags] == [str(number) for number in range(20)]
    with pytest.raises(NotFoundError):
        await queue.flag("queues/digits/deferrals/none", reviewer=ann, comment="?", request_id="")
    await queue.release(lease.token, reviewer=ann, request_id="")
    with pytest.raises(StateError, match="only who holds or answered it"):
        await queue.flag(name, reviewer=ann, comment="?", request_id="")


async def test_flags_go_with_their_deferral(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """When its retention is over, no listing remembers it."""
    queue = open_queue(retention_seconds=1)
    name = await park(queue, parking(callback=None))
    lease = await take(queue, ann)
    await queue.flag(name, reviewer=ann, comment="!", request_id="")
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 1
    assert await queue.list_deferrals("digits", flagged=True) == ([], "")
