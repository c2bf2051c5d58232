"""Holding an item: how long, under which token, and who gets it next."""

from __future__ import annotations

import asyncio

import pytest

from fallback import token
from fallback.answer import Identity, Label
from fallback.errors import ConflictError, InvalidError, NotFoundError, StateError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park


async def test_extending_keeps_the_token_and_moves_the_end(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """The hold goes on for another lease time, never past the deferral's own end."""
    queue = open_queue(lease_seconds=30, review_seconds=60)
    await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    await asyncio.sleep(0.01)
    extended = await queue.extend(lease.token, reviewer=ann, request_id="1")
    assert extended.token == lease.token
    assert lease.expire_time < extended.expire_time < lease.expire_time + 30
    assert extended.subject == b"a picture"
    longer = open_queue(lease_seconds=3600)
    last = await longer.extend(lease.token, reviewer=ann, request_id="2")
    assert last.expire_time == last.deferral.expire_time


async def test_a_repeat_gets_the_stored_reply(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """The same request id does nothing twice, for every call of a holder and for cancel."""
    await queue.park([parking(), parking(), parking()])
    one, two, three = await queue.lease("digits", reviewer=ann, limit=3)
    first = await queue.extend(one.token, reviewer=ann, request_id="e")
    await asyncio.sleep(0.01)
    assert (await queue.extend(one.token, reviewer=ann, request_id="e")).expire_time == first.expire_time
    done = await queue.submit(one.token, reviewer=ann, answer=Label("7"), request_id="s")
    assert await queue.submit(one.token, reviewer=ann, answer=Label("7"), request_id="s") == done
    await queue.release(two.token, reviewer=ann, request_id="r")
    await queue.release(two.token, reviewer=ann, request_id="r")
    cancelled = await queue.cancel(three.deferral.name, request_id="c")
    assert await queue.cancel(three.deferral.name, request_id="c") == cancelled
    assert len(await queue.outcomes("digits", "0")) == 2


async def test_a_request_id_belongs_to_one_call(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """Used for another answer, another lease or another event it is refused; another person may have the same."""
    await queue.park([parking(), parking(), parking()])
    one, two = await queue.lease("digits", reviewer=ann, limit=2)
    await queue.submit(one.token, reviewer=ann, answer=Label("7"), request_id="1")
    with pytest.raises(ConflictError, match="request_id"):
        await queue.submit(one.token, reviewer=ann, answer=Label("8"), request_id="1")
    with pytest.raises(ConflictError, match="request_id"):
        await queue.submit(two.token, reviewer=ann, answer=Label("7"), request_id="1")
    with pytest.raises(ConflictError, match="request_id"):
        await queue.release(two.token, reviewer=ann, request_id="1")
    bob = Identity(name="bob")
    (third,) = await queue.lease("digits", reviewer=bob)
    await queue.submit(third.token, reviewer=bob, answer=Label("7"), request_id="1")


@pytest.mark.parametrize("call", ["extend", "release", "submit"])
async def test_each_wrong_token_is_refused_in_its_own_words(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity, call: str
) -> None:
    """Made up, somebody else's, released, taken again, submitted, ended: each says what happened."""
    await queue.park([parking(), parking()])
    one, two = await queue.lease("digits", reviewer=ann, limit=2)

    async def use(text: str, who: Identity) -> None:
        if call == "submit":
            await queue.submit(text, reviewer=who, answer=Label("7"), request_id="")
        else:
            await getattr(queue, call)(text, reviewer=who, request_id="")

    hold = token.read(one.token)
    for made_up in ("", "nonsense", "a" * 600, one.token[:-4], "\u00e9"):
        with pytest.raises(InvalidError, match=r"token: expected a token that a lease came with"):
            await use(made_up, ann)
    for forged in (
        token.Hold("digits", hold.id, 0, 1, "guess"),
        token.Hold("digits", hold.id, 0, 9, hold.nonce),
        token.Hold("digits", hold.id, 7, 1, hold.nonce),
        token.Hold("digits", hold.id, 0, 0, ""),
    ):
        with pytest.raises(InvalidError, match=r"token: expected a token that a lease came with"):
            await use(token.write(forged), ann)
    with pytest.raises(NotFoundError, match="no such deferral"):
        await use(token.write(token.Hold("digits", "f" * 32, 0, 1, hold.nonce)), ann)
    with pytest.raises(StateError, match=r"another reviewer's"):
        await use(one.token, bob)

    await queue.release(one.token, reviewer=ann, request_id="")
    with pytest.raises(StateError, match="it was released; lease again"):
        await use(one.token, ann)
    (again,) = await queue.lease("digits", reviewer=bob)
    with pytest.raises(StateError, match="it ended, and the place was leased again"):
        await use(one.token, ann)
    await queue.submit(again.token, reviewer=bob, answer=Label("7"), request_id="")
    with pytest.raises(StateError, match="is resolved already"):
        await use(again.token, bob)
    await queue.cancel(two.deferral.name, request_id="")
    with pytest.raises(StateError, match="is cancelled already"):
        await use(two.token, ann)


async def test_a_submitted_slot_is_no_longer_held(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """While the deferral waits for others, the first reviewer's token is over."""
    queue = open_queue(reviews_wanted=2)
    await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    with pytest.raises(StateError, match="its review was submitted"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("8"), request_id="2")


async def test_a_lease_lapses_and_the_next_reviewer_gets_the_item(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Even while no reaper runs; the first holder is told."""
    queue = open_queue(lease_seconds=0.05)
    await park(queue, parking())
    (lost,) = await queue.lease("digits", reviewer=ann)
    await asyncio.sleep(0.06)
    with pytest.raises(StateError, match="it lapsed"):
        await queue.submit(lost.token, reviewer=ann, answer=Label("7"), request_id="1")
    (lease,) = await queue.lease("digits", reviewer=bob)
    assert lease.deferral.id == lost.deferral.id
    assert await queue.reconcile() == []


async def test_who_waits_for_work_gets_it_when_it_comes(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """A waiting lease returns with the item that is parked, released or lapsed meanwhile."""
    waiting = asyncio.create_task(queue.lease("digits", reviewer=ann, wait_seconds=20))
    await asyncio.sleep(0.1)
    await park(queue, parking())
    (lease,) = await asyncio.wait_for(waiting, 5)
    waiting = asyncio.create_task(queue.lease("digits", reviewer=Identity(name="bob"), wait_seconds=20))
    await asyncio.sleep(0.1)
    await queue.release(lease.token, reviewer=ann, request_id="1")
    assert len(await asyncio.wait_for(waiting, 5)) == 1
    assert await queue.lease("digits", reviewer=ann, wait_seconds=0.05) == []


async def test_many_who_wait_share_what_comes(queue: Queue, parking: MakeParking) -> None:
    """Nobody gets what another got, and nobody waits while there is work."""
    tasks = [
        asyncio.create_task(queue.lease("digits", reviewer=Identity(name=f"r{number}"), wait_seconds=20))
        for number in range(12)
    ]
    await asyncio.sleep(0.1)
    for _ in range(3):
        await queue.park([parking() for _ in range(4)])
    leased = [lease.deferral.id for leases in await asyncio.gather(*tasks) for lease in leases]
    assert len(set(leased)) == len(leased) == 12


async def test_giving_up_waiting_leaves_nothing_behind(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """Cancelled waits keep no connection and take no item."""
    for _ in range(100):
        waiting = asyncio.create_task(queue.lease("digits", reviewer=ann, wait_seconds=20))
        await asyncio.sleep(0.002)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await park(queue, parking())
    assert len(await queue.lease("digits", reviewer=ann)) == 1
