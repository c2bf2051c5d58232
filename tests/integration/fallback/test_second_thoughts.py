"""What a reviewer may do beside answering: think again, leave an item to others, flag it, keep a draft."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity, Label
from fallback.deferral import Deferral, Lease, Parking, Source, State
from fallback.errors import ConflictError, FullError, InvalidError, NotFoundError, StateError
from fallback.queue import Parked, Queue, Reaped

MakeParking = Callable[..., Parking]
OpenQueue = Callable[..., Queue]
WINDOW_SECONDS = 30.0


async def _parked(queue: Queue, parking: Parking) -> str:
    (parked,) = await queue.park([parking])
    assert isinstance(parked, Parked), parked
    return parked.name


async def _taken(queue: Queue, reviewer: Identity) -> Lease:
    (lease,) = await queue.lease("digits", reviewer=reviewer)
    return lease


async def _answered(queue: Queue, reviewer: Identity, label: str = "7") -> Deferral:
    lease = await _taken(queue, reviewer)
    return await queue.submit(lease.token, reviewer=reviewer, answer=Label(label), request_id="")


async def test_in_the_window_nobody_hears_of_an_outcome(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """It reads as OPEN with all its reviews in: no entry in the stream, no callback, no waiter let go."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await _parked(queue, parking())
    done = await _answered(queue, ann)
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
    name = await _parked(queue, parking())
    answered = await _answered(queue, ann)
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
    name = await _parked(queue, parking())
    await _answered(queue, ann)
    await asyncio.sleep(0.06)
    assert (await queue.get(name)).state is State.RESOLVED
    assert len(await queue.outcomes("digits", "0")) == 1


async def test_an_answer_taken_back_is_given_anew(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """The place is the reviewer's again, under another token and as blind as before."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await _parked(queue, parking())
    first = await _taken(queue, ann)
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
    name = await _parked(queue, parking())
    await _answered(queue, ann, "1")
    await _answered(queue, bob, "7")
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
    name = await _parked(queue, parking())
    await _answered(queue, ann, "1")
    assert (await _answered(queue, bob, "2")).reviews_wanted == 3
    third = await _taken(queue, cid)
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
    await _answered(queue, cid, "1")
    await open_queue()._store.connection.redis.zadd(keys.index("digits", "settling"), {name.rpartition("/")[2]: 1})
    done = await queue.get(name)
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, len(done.reviews)) == (State.RESOLVED, Label("1"), 3)


async def test_after_the_window_nothing_is_taken_back(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """The refusal says when it closed; who has no review there is told that, and who asks of a cancelled one too."""
    queue = open_queue(undo_seconds=0.05)
    name = await _parked(queue, parking())
    await _answered(queue, ann)
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
    gone = await _parked(queue, parking())
    await queue.cancel(gone, request_id="")
    with pytest.raises(StateError, match="is cancelled already"):
        await queue.undo(gone, reviewer=ann, request_id="")


async def test_cancelling_wins_over_the_window(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """Until the window closes the client may take the question back; its outcome is then none, and told once."""
    queue = open_queue(undo_seconds=WINDOW_SECONDS)
    name = await _parked(queue, parking())
    await _answered(queue, ann)
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

    name = await _parked(queue, parking())
    with monkeypatch.context() as patch:
        patch.setattr("fallback.leases.foresee", lambda *_: ())
        patch.setattr("fallback.leases.conclude", died)
        with pytest.raises(StateError, match="died"):
            await _answered(queue, ann)
    assert await queue.reap() == Reaped(finished=1)
    assert (await queue.get(name)).state is State.OPEN
    await asyncio.sleep(0.16)
    other = open_queue()
    assert await other.reap() == Reaped(closed=1)
    assert (await other.get(name)).state is State.RESOLVED
    assert await other.reconcile() == []


async def test_a_skipped_item_goes_to_others_at_once_and_never_back(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Who skipped it is not asked again; who waits for work gets it; the reason stays with it."""
    name = await _parked(queue, parking())
    lease = await _taken(queue, ann)
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
    name = await _parked(queue, parking())
    await _parked(queue, parking(priority=0))
    for number in range(3):
        reviewer = Identity(name=f"reviewer {number}")
        assert len((await queue.list_deferrals("digits", flagged=True))[0]) == (number >= 2)
        lease = await _taken(queue, reviewer)
        await queue.skip(lease.token, reviewer=reviewer, reason="", request_id="")
    (found,), _ = await queue.list_deferrals("digits", flagged=True)
    assert (found.name, found.state) == (name, State.OPEN)
    assert [skip.reviewer for skip in found.skips] == ["reviewer 0", "reviewer 1", "reviewer 2"]
    assert (await _answered(queue, Identity(name="dan"))).name == name
    assert (await queue.list_deferrals("digits", state=State.OPEN, flagged=True))[0] == []
    assert len((await queue.list_deferrals("digits", state=State.RESOLVED, flagged=True))[0]) == 1


async def test_a_flag_is_a_word_for_review_managers(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """From who holds or answered it; recorded once with who and when; the deferral stays as it is."""
    await queue.park([parking(), parking()])
    lease = await _taken(queue, ann)
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
    name = await _parked(queue, parking())
    with pytest.raises(StateError, match="only who holds or answered it"):
        await queue.flag(name, reviewer=ann, comment="?", request_id="")
    lease = await _taken(queue, ann)
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
    name = await _parked(queue, parking(callback=None))
    lease = await _taken(queue, ann)
    await queue.flag(name, reviewer=ann, comment="!", request_id="")
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 1
    assert await queue.list_deferrals("digits", flagged=True) == ([], "")


async def test_a_draft_comes_back_with_the_lease_after_a_lapse_or_a_crash(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """To its author only, the newest one, from any process, whatever others did meanwhile but answer."""
    queue = open_queue(lease_seconds=0.2)
    await _parked(queue, parking())
    lease = await _taken(queue, ann)
    assert lease.draft == ""
    for draft in ('{"label": "1"}', '{"label": "\u6771"}'):
        await queue.save_draft(lease.token, reviewer=ann, draft=draft, request_id="")
    await asyncio.sleep(0.21)
    with pytest.raises(StateError, match="it lapsed"):
        await queue.save_draft(lease.token, reviewer=ann, draft="{}", request_id="")
    others = await _taken(queue, bob)
    assert others.draft == ""
    await queue.save_draft(others.token, reviewer=bob, draft="[]", request_id="")
    await queue.release(others.token, reviewer=bob, request_id="")
    again = await _taken(open_queue(), ann)
    assert again.draft == '{"label": "\u6771"}'
    assert await queue.reconcile() == []


async def test_a_draft_is_gone_once_its_author_answered(
    open_queue: OpenQueue, parking: MakeParking, redis_url: str, ann: Identity, bob: Identity
) -> None:
    """Theirs alone: what others kept for the same place they may yet go on with in another."""
    queue = open_queue(reviews_wanted=2, undo_seconds=WINDOW_SECONDS)
    name = await _parked(queue, parking())
    redis, key = Redis.from_url(redis_url), keys.drafts("digits", name.rpartition("/")[2])
    for reviewer in (ann, bob):
        lease = await _taken(queue, reviewer)
        await queue.save_draft(lease.token, reviewer=reviewer, draft="{}", request_id="")
        await queue.release(lease.token, reviewer=reviewer, request_id="")
    assert sorted(await redis.hkeys(key)) == [b"0:ann", b"0:bob"]
    lease = await _taken(queue, ann)
    held = await _taken(queue, bob)
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
    name = await _parked(queue, parking())
    lease = await _taken(hasty, ann)
    await hasty.save_draft(lease.token, reviewer=ann, draft="[1]", request_id="")
    await asyncio.sleep(0.51)
    await _answered(queue, bob)
    again = await _taken(queue, ann)
    assert (again.draft, again.deferral.reviews_wanted) == ("[1]", 2)
    await queue.release(again.token, reviewer=ann, request_id="")
    await _answered(queue, cid)
    # In the undo window nobody is asked, and nothing of it is lost.
    assert await queue.reconcile() == []
    back = await queue.undo(name, reviewer=cid, request_id="")
    await queue.release(back.token, reviewer=cid, request_id="")
    again = await _taken(queue, ann)
    assert again.draft == "[1]"
    await queue.submit(again.token, reviewer=ann, answer=Label("7"), request_id="")
    assert await queue.reconcile() == []


@pytest.mark.parametrize("end", ["cancel", "skip"])
async def test_a_draft_ends_with_its_deferral_or_with_its_authors_interest(
    queue: Queue, parking: MakeParking, redis_url: str, ann: Identity, end: str
) -> None:
    """Nobody's unfinished work stays behind."""
    name = await _parked(queue, parking())
    lease = await _taken(queue, ann)
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
    name = await _parked(queue, parking())
    lease = await _taken(queue, ann)
    for wrong in ("", "{", "\ud800", '"' + "x" * 65_535 + '"', '"' + "\u6771" * 21_846 + '"'):
        with pytest.raises(InvalidError, match="draft: expected"):
            await queue.save_draft(lease.token, reviewer=ann, draft=wrong, request_id="")
    await queue.save_draft(lease.token, reviewer=ann, draft='"' + "x" * 65_534 + '"', request_id="1")
    with pytest.raises(StateError, match="another reviewer's"):
        await queue.save_draft(lease.token, reviewer=bob, draft="{}", request_id="")
    await queue.release(lease.token, reviewer=ann, request_id="")
    for number in range(40):
        reviewer = Identity(name=f"reviewer: {number}")
        lease = await _taken(queue, reviewer)
        await queue.save_draft(lease.token, reviewer=reviewer, draft=str(number), request_id="")
        await queue.release(lease.token, reviewer=reviewer, request_id="")
    redis = Redis.from_url(redis_url)
    assert await redis.hlen(keys.drafts("digits", name.rpartition("/")[2])) == 32
    assert (await _taken(queue, reviewer)).draft == "39"
    await redis.aclose()


class TestNeverTheSamePersonTwice:
    """Label Studio's annotators got their own items back; here nobody answers a deferral twice."""

    async def test_not_in_two_tabs(self, open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
        """Leases taken side by side by one person, before and after their answer, never share a deferral."""
        queue = open_queue(reviews_wanted=2)
        await _parked(queue, parking())
        tabs = await asyncio.gather(*(queue.lease("digits", reviewer=ann) for _ in range(6)))
        (lease,) = [lease for tab in tabs for lease in tab]
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
        assert await queue.lease("digits", reviewer=ann) == []

    async def test_not_by_releasing_what_was_answered(
        self, open_queue: OpenQueue, parking: MakeParking, ann: Identity
    ) -> None:
        """A release that comes after the answer frees nothing."""
        queue = open_queue(reviews_wanted=2)
        name = await _parked(queue, parking())
        lease = await _taken(queue, ann)
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
        name = await _parked(queue, parking())
        await _answered(queue, ann)
        again = await queue.undo(name, reviewer=ann, request_id="")
        await queue.release(again.token, reviewer=ann, request_id="")
        assert await queue.lease("digits", reviewer=ann) == []
        assert (await queue.get(name)).skips == ()
        assert (await _taken(queue, bob)).deferral.name == name

    async def test_but_a_crash_costs_nobody_their_place(
        self, open_queue: OpenQueue, parking: MakeParking, ann: Identity
    ) -> None:
        """A hold that lapsed after an undo may be taken up again: there is still no answer of theirs."""
        queue = open_queue(undo_seconds=WINDOW_SECONDS, lease_seconds=0.05)
        name = await _parked(queue, parking())
        await _answered(queue, ann)
        await queue.undo(name, reviewer=ann, request_id="")
        await asyncio.sleep(0.06)
        assert (await queue.reap()).lapsed == 1
        assert (await _taken(queue, ann)).deferral.name == name
