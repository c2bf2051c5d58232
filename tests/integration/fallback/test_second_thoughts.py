"""An answer that its reviewer takes back, within the undo window and before it."""

from __future__ import annotations

import asyncio

import pytest

from fallback import keys
from fallback.answer import Identity, Label
from fallback.deferral import Source, State
from fallback.errors import NotFoundError, StateError
from fallback.queue import Reaped
from tests.queueing import MakeParking, OpenQueue, park, review, take

WINDOW_SECONDS = 30.0


async def test_in_the_window_nobody_hears_of_an_outcome(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """It reads as OPEN with all its reviews in: no entry in the stream, no callback, no waiter let go."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await park(queue, parking())
    done = await review(queue, ann, Label("7"))
    assert (done.state, done.outcome, len(done.reviews), done.reviews_wanted) == (State.OPEN, None, 1, 1)
    assert await queue.get(name) == done == await queue.wait(name, timeout_seconds=0.05)
    assert await queue.outcomes("digits", "0") == []
    assert await queue.due(limit=10) == []
    assert (await queue.list_deferrals("digits", state=State.OPEN))[0] == [done]
    (state,) = await queue.states()
    assert (state.open, state.waiting, state.held, state.undo_seconds) == (1, 0, 0, WINDOW_SECONDS)
    assert await queue.reap() == Reaped()
    assert await queue.reconcile() == []


async def test_the_outcome_is_told_when_the_window_closes(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """By the reaper, once, with the time of the closing."""
    queue = open_queue(undo_seconds=0.1)
    name = await park(queue, parking())
    answered = await review(queue, ann, Label("7"))
    await asyncio.sleep(0.12)
    assert await queue.reap() == Reaped(closed=1)
    assert await queue.reap() == Reaped()
    done = await queue.get(name)
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("7"))
    assert done.version == answered.version + 1
    assert done.outcome.create_time - done.reviews[0].create_time >= 0.1
    assert [event.deferral for event in await queue.outcomes("digits", "0")] == [done]
    assert [delivery.deferral for delivery in await queue.due(limit=10)] == [done]
    assert await queue.reconcile() == []


async def test_whoever_looks_after_the_window_finds_the_outcome(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """Also while no reaper runs."""
    queue = open_queue(undo_seconds=0.05)
    name = await park(queue, parking())
    await review(queue, ann, Label("7"))
    await asyncio.sleep(0.06)
    assert (await queue.get(name)).state is State.RESOLVED
    assert len(await queue.outcomes("digits", "0")) == 1


async def test_an_answer_taken_back_is_given_anew(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """The place is the reviewer's again, under another token and as blind as before."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await park(queue, parking())
    first = await take(queue, ann)
    await queue.submit(first.token, reviewer=ann, answer=Label("1"), request_id="1")
    again = await queue.undo(name, reviewer=ann, request_id="2")
    assert (again.deferral.reviews, again.deferral.state, again.subject) == ((), State.OPEN, b"a picture")
    assert first.blind
    assert again.blind
    assert await queue.undo(name, reviewer=ann, request_id="2") == again
    with pytest.raises(StateError, match="leased again"):
        await queue.submit(first.token, reviewer=ann, answer=Label("1"), request_id="3")
    assert await queue.reconcile() == []
    done = await queue.submit(again.token, reviewer=ann, answer=Label("7"), request_id="4")
    (review,) = done.reviews
    assert (review.answer, review.blind) == (Label("7"), True)


async def test_an_answer_is_taken_back_while_others_are_still_to_come(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Without any window too: nothing was decided yet. The other's review stays."""
    queue = open_queue(reviews_wanted=3)
    name = await park(queue, parking())
    await review(queue, ann, Label("1"))
    await review(queue, bob, Label("7"))
    again = await queue.undo(name, reviewer=ann, request_id="1")
    assert [review.reviewer for review in again.deferral.reviews] == ["bob"]
    done = await queue.submit(again.token, reviewer=ann, answer=Label("7"), request_id="2")
    assert sorted(review.reviewer for review in done.reviews) == ["ann", "bob"]
    assert await queue.reconcile() == []


@pytest.mark.parametrize("died", [False, True])
async def test_people_who_come_to_agree_need_no_third(
    open_queue: OpenQueue,
    parking: MakeParking,
    monkeypatch: pytest.MonkeyPatch,
    ann: Identity,
    bob: Identity,
    *,
    died: bool,
) -> None:
    """Two differed, a third was asked; the first thought again: who holds the third place is told that it is settled.

    Where the process dies after that review, its time does not run out on their answer.
    """

    async def gone(*_: object) -> None:
        raise StateError("died")

    queue, cid = open_queue(reviews_wanted=2, reviews_max=3, undo_seconds=WINDOW_SECONDS), Identity(name="cid")
    name = await park(queue, parking())
    await review(queue, ann, Label("1"))
    assert (await review(queue, bob, Label("2"))).reviews_wanted == 3
    third = await take(queue, cid)
    again = await queue.undo(name, reviewer=ann, request_id="1")
    with monkeypatch.context() as patch:
        if died:
            patch.setattr("fallback.leases.foresee", lambda *_: ())
            patch.setattr("fallback.leases.conclude", gone)
            with pytest.raises(StateError, match="died"):
                await queue.submit(again.token, reviewer=ann, answer=Label("2"), request_id="2")
        else:
            await queue.submit(again.token, reviewer=ann, answer=Label("2"), request_id="2")
    if died:
        one, redis = name.rpartition("/")[2], queue._store.connection.redis
        await redis.hset(keys.record("digits", one), "expire_ms", "1")
        await redis.zadd(keys.index("digits", "expiry"), {one: 1}, xx=True)
        await queue.reap()
        done = await queue.get(name)
        assert done.outcome is not None
        assert (done.state, done.outcome.source, done.outcome.answer) == (
            State.RESOLVED,
            Source.CONSENSUS,
            Label("2"),
        )
        assert await queue.reconcile() == []
        return
    with pytest.raises(StateError):
        await queue.submit(third.token, reviewer=cid, answer=Label("1"), request_id="3")
    assert await queue.lease("digits", reviewer=cid) == []
    assert await queue.reconcile() == []
    # In the window they may yet differ again: the third place is there for somebody.
    again = await queue.undo(name, reviewer=ann, request_id="4")
    assert await queue.reconcile() == []
    await queue.submit(again.token, reviewer=ann, answer=Label("1"), request_id="5")
    await review(queue, cid, Label("1"))
    await open_queue()._store.connection.redis.zadd(keys.index("digits", "settling"), {name.rpartition("/")[2]: 1})
    done = await queue.get(name)
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, len(done.reviews)) == (State.RESOLVED, Label("1"), 3)


async def test_after_the_window_nothing_is_taken_back(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """The refusal says when it closed; who has no review there is told that, and who asks of a cancelled one too."""
    queue = open_queue(undo_seconds=0.05)
    name = await park(queue, parking())
    await review(queue, ann, Label("7"))
    with pytest.raises(StateError, match="holds no review of yours"):
        await queue.undo(name, reviewer=bob, request_id="")
    await asyncio.sleep(0.06)
    for _ in range(2):
        with pytest.raises(StateError, match=r"could be taken back until 20\d\d-.*T.*\+00:00"):
            await queue.undo(name, reviewer=ann, request_id="")
    assert (await queue.get(name)).state is State.RESOLVED
    with pytest.raises(StateError, match="is resolved already"):
        await queue.undo(name, reviewer=bob, request_id="")
    with pytest.raises(NotFoundError):
        await queue.undo("queues/digits/deferrals/none", reviewer=ann, request_id="")
    gone = await park(queue, parking())
    await queue.cancel(gone, request_id="")
    with pytest.raises(StateError, match="is cancelled already"):
        await queue.undo(gone, reviewer=ann, request_id="")


async def test_cancelling_wins_over_the_window(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """Until the window closes the client may take the question back; its outcome is then none, and told once."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await park(queue, parking())
    await review(queue, ann, Label("7"))
    done = await queue.cancel(name, request_id="1")
    assert done.outcome is not None
    assert (done.state, done.outcome.answer) == (State.CANCELLED, None)
    assert len(await queue.outcomes("digits", "0")) == 1
    assert await queue.reconcile() == []


async def test_a_process_that_dies_before_settling_or_in_the_window_loses_no_answer(
    open_queue: OpenQueue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch, ann: Identity
) -> None:
    """The reaper opens the window that the dead one did not, and closes it; nothing else is needed."""
    queue = open_queue(undo_seconds=0.15)

    async def died(*_: object) -> None:
        raise StateError("died")

    name = await park(queue, parking())
    with monkeypatch.context() as patch:
        patch.setattr("fallback.leases.foresee", lambda *_: ())
        patch.setattr("fallback.leases.conclude", died)
        with pytest.raises(StateError, match="died"):
            await review(queue, ann, Label("7"))
    assert await queue.reap() == Reaped(finished=1)
    assert (await queue.get(name)).state is State.OPEN
    await asyncio.sleep(0.16)
    other = open_queue()
    assert await other.reap() == Reaped(closed=1)
    assert (await other.get(name)).state is State.RESOLVED
    assert await other.reconcile() == []


class TestNeverTheSamePersonTwice:
    """Label Studio's annotators got their own items back; here nobody answers a deferral twice."""

    async def test_not_in_two_tabs(self, open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
        """Leases taken side by side by one person, before and after their answer, never share a deferral."""
        queue = open_queue(reviews_wanted=2)
        await park(queue, parking())
        tabs = await asyncio.gather(*(queue.lease("digits", reviewer=ann) for _ in range(6)))
        (lease,) = [lease for tab in tabs for lease in tab]
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
        assert await queue.lease("digits", reviewer=ann) == []

    async def test_not_by_releasing_what_was_answered(
        self, open_queue: OpenQueue, parking: MakeParking, ann: Identity
    ) -> None:
        """A release that comes after the answer frees nothing."""
        queue = open_queue(reviews_wanted=2)
        name = await park(queue, parking())
        lease = await take(queue, ann)
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
        with pytest.raises(StateError, match="its review was submitted"):
            await queue.release(lease.token, reviewer=ann, request_id="")
        assert await queue.lease("digits", reviewer=ann) == []
        assert len((await queue.get(name)).reviews) == 1

    async def test_not_after_taking_it_back_and_letting_it_go(
        self, open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
    ) -> None:
        """Who answered, took it back and released it has had their say; somebody else answers."""
        queue = open_queue(undo_seconds=WINDOW_SECONDS)
        name = await park(queue, parking())
        await review(queue, ann, Label("7"))
        again = await queue.undo(name, reviewer=ann, request_id="")
        await queue.release(again.token, reviewer=ann, request_id="")
        assert await queue.lease("digits", reviewer=ann) == []
        assert (await queue.get(name)).skips == ()
        assert (await take(queue, bob)).deferral.name == name

    async def test_but_a_crash_costs_nobody_their_place(
        self, open_queue: OpenQueue, parking: MakeParking, ann: Identity
    ) -> None:
        """A hold that lapsed after an undo may be taken up again: there is still no answer of theirs."""
        queue = open_queue(undo_seconds=WINDOW_SECONDS, lease_seconds=0.05)
        name = await park(queue, parking())
        await review(queue, ann, Label("7"))
        await queue.undo(name, reviewer=ann, request_id="")
        await asyncio.sleep(0.06)
        assert (await queue.reap()).lapsed == 1
        assert (await take(queue, ann)).deferral.name == name
