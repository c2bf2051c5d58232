"""A reviewer goes on with what they hold in another place: another tab, another machine, after a crash."""

from __future__ import annotations

import asyncio

import pytest

from fallback import keys
from fallback.answer import Identity, Label
from fallback.deferral import Lease, State
from fallback.errors import StateError
from fallback.queue import Queue
from fallback.token import read
from tests.queueing import MakeParking, OpenQueue


async def _hold(queue: Queue, parking: MakeParking, who: Identity, count: int = 1) -> list[Lease]:
    await queue.park([parking() for _ in range(count)])
    return await queue.lease("digits", reviewer=who, limit=count)


async def test_what_one_holds_comes_back_under_a_new_token_with_its_draft(
    queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """The same items, the place that had them is told so at every call, and changes nothing any more."""
    (lease,) = await _hold(queue, parking, ann)
    await queue.save_draft(lease.token, reviewer=ann, draft='{"label": "7"}', request_id="1")
    (again,) = await queue.lease("digits", reviewer=ann, resume=True)
    assert again.token != lease.token
    assert (again.deferral.name, again.subject, again.draft) == (lease.deferral.name, b"a picture", '{"label": "7"}')
    assert (again.blind, again.resumed, lease.resumed) == (True, True, False)
    assert again.expire_time >= lease.expire_time
    for call in (
        queue.extend(lease.token, reviewer=ann, request_id="2"),
        queue.save_draft(lease.token, reviewer=ann, draft="1", request_id="3"),
        queue.release(lease.token, reviewer=ann, request_id="4"),
        queue.skip(lease.token, reviewer=ann, reason="", request_id="5"),
        queue.submit(lease.token, reviewer=ann, answer=Label("1"), request_id="6"),
    ):
        with pytest.raises(StateError, match="is over: it was taken over in another place; lease again"):
            await call
    assert await queue.reconcile() == []
    done = await queue.submit(again.token, reviewer=ann, answer=Label("7"), request_id="7")
    assert (done.state, done.outcome and done.outcome.answer) == (State.RESOLVED, Label("7"))
    assert await queue.lease("digits", reviewer=ann, resume=True) == []
    assert await queue.reconcile() == []


async def test_every_place_that_had_it_is_told_so_until_somebody_leases_it_anew(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """However often it moved on."""
    (first,) = await _hold(queue, parking, ann)
    (second,) = await queue.lease("digits", reviewer=ann, resume=True)
    (third,) = await queue.lease("digits", reviewer=ann, resume=True)
    for stale in (first, second):
        with pytest.raises(StateError, match="taken over in another place"):
            await queue.extend(stale.token, reviewer=ann, request_id="")
    await queue.release(third.token, reviewer=ann, request_id="1")
    (others,) = await queue.lease("digits", reviewer=bob)
    (moved,) = await queue.lease("digits", reviewer=bob, resume=True)
    for stale in (first, third):
        with pytest.raises(StateError, match="it ended, and the place was leased again"):
            await queue.extend(stale.token, reviewer=ann, request_id="")
    with pytest.raises(StateError, match="taken over in another place"):
        await queue.extend(others.token, reviewer=bob, request_id="")
    await queue.extend(moved.token, reviewer=bob, request_id="")


async def test_what_is_held_comes_before_what_waits_and_the_longest_held_first(
    queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """Up to the limit; what is left of it is leased as always."""
    await queue.park([parking() for _ in range(5)])
    held = []
    for _ in range(3):
        held += await queue.lease("digits", reviewer=ann)
        await asyncio.sleep(0.003)
    names = [lease.deferral.name for lease in held]
    some = await queue.lease("digits", reviewer=ann, limit=2, resume=True)
    assert [lease.deferral.name for lease in some] == names[:2]
    found = await queue.lease("digits", reviewer=ann, limit=4, resume=True)
    assert [lease.deferral.name for lease in found[:3]] == names
    assert [lease.resumed for lease in found] == [True] * 3 + [False]
    assert (await queue.states())[0].held == 4
    assert await queue.reconcile() == []


async def test_nobody_goes_on_with_what_others_hold(queue: Queue, parking: MakeParking) -> None:
    """However alike the names."""
    names = ("ann", "an", "ann b", "ann\x01", "Ann")
    held = {name: (await _hold(queue, parking, Identity(name=name)))[0] for name in names}
    assert (await queue.states())[0].reviewers == len(names)
    for name, lease in held.items():
        found = await queue.lease("digits", reviewer=Identity(name=name), limit=9, resume=True)
        assert [again.deferral.name for again in found] == [lease.deferral.name]
    assert await queue.lease("digits", reviewer=Identity(name="a"), resume=True) == []


async def test_what_is_overdue_is_not_gone_on_with(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """It is given out anew, in its turn, as if it had lapsed on time."""
    (lease,) = await _hold(queue, parking, ann)
    hold, redis = read(lease.token), queue._store.connection.redis
    await redis.hset(keys.record("digits", hold.id), "s0.until", "1")
    await redis.zadd(keys.index("digits", "leases"), {f"{hold.id}:0": 1})
    (again,) = await queue.lease("digits", reviewer=ann, resume=True)
    assert (again.deferral.name, again.resumed) == (lease.deferral.name, False)
    with pytest.raises(StateError, match="it ended, and the place was leased again"):
        await queue.extend(lease.token, reviewer=ann, request_id="")


async def test_what_was_taken_back_is_gone_on_with_too(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """An undo is a hold like any other."""
    queue = open_queue(reviews_wanted=2)
    (lease,) = await _hold(queue, parking, ann)
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    undone = await queue.undo(lease.deferral.name, reviewer=ann, request_id="2")
    (again,) = await queue.lease("digits", reviewer=ann, resume=True)
    with pytest.raises(StateError, match="taken over in another place"):
        await queue.extend(undone.token, reviewer=ann, request_id="")
    await queue.submit(again.token, reviewer=ann, answer=Label("1"), request_id="3")
    assert await queue.reconcile() == []


async def test_who_waits_takes_over_nothing_later(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """What they lease in one tab while another waits stays with the first."""
    waiting = asyncio.create_task(queue.lease("digits", reviewer=ann, resume=True, wait_seconds=5))
    await asyncio.sleep(0.1)
    leases: list[Lease] = []
    while not leases and not waiting.done():
        await queue.park([parking()])
        leases = await queue.lease("digits", reviewer=ann)
    await queue.park([parking()])
    (other,) = await waiting
    assert not other.resumed
    for lease in leases:
        await queue.extend(lease.token, reviewer=ann, request_id="")


async def test_a_reviewer_is_found_among_many_leases(open_queue: OpenQueue, parking: MakeParking) -> None:
    """A hundred hold a hundred items; each goes on with their own, and states say when the next frees."""
    queue = open_queue(lease_seconds=100)
    await queue.park([parking() for _ in range(100)])
    held = {f"r{at}": await queue.lease("digits", reviewer=Identity(name=f"r{at}")) for at in range(100)}
    for at in (0, 7, 99):
        (again,) = await queue.lease("digits", reviewer=Identity(name=f"r{at}"), resume=True)
        assert again.deferral.name == held[f"r{at}"][0].deferral.name
    (state,) = await queue.states()
    assert (state.reviewers, state.held) == (100, 100)
    assert state.next_free_time == min(lease.expire_time for at, (lease,) in held.items() if at != "r0")
    assert await queue.reconcile() == []
