"""The queue as its callers see it, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from fallback import keys, token
from fallback.answer import Answer, CantTell, Identity, Label, Number, Task
from fallback.deferral import Deferral, OnExpiry, Parking, Prediction, Source, State
from fallback.errors import (
    ConflictError,
    DemurError,
    InvalidError,
    NotFoundError,
    OverError,
    StateError,
)
from fallback.queue import Parked, Queue

MakeParking = Callable[..., Parking]
OpenQueue = Callable[..., Queue]


async def _park(queue: Queue, parking: Parking) -> str:
    (parked,) = await queue.park([parking])
    assert isinstance(parked, Parked), parked
    return parked.name


async def _review(queue: Queue, reviewer: str, answer: Answer) -> Deferral:
    (lease,) = await queue.lease("digits", reviewer=Identity(name=reviewer))
    return await queue.submit(lease.token, reviewer=Identity(name=reviewer), answer=answer, request_id=lease.token)


async def test_what_is_parked_comes_back_as_it_was(queue: Queue, parking: MakeParking) -> None:
    """Record, subject and inputs are stored together and read apart."""
    name = await _park(queue, parking(priority=3, reasons=("threshold",)))
    found = await queue.get(name)
    assert (found.state, found.version, found.outcome, found.reviews) == (State.OPEN, 1, None, ())
    assert (found.client, found.priority, found.reasons) == ("shop", 3, ("threshold",))
    assert (found.attributes, found.media_type) == ({"site": "north"}, "image/png")
    assert (found.prediction, found.task, found.callback) == (
        parking().prediction,
        parking().task,
        parking().callback,
    )
    assert found.expire_time - found.create_time == 86_400
    assert await queue.subject(name) == b"a picture"
    assert await queue.inputs(name) == b"tensors"


async def test_content_outlives_its_orphan_time_once_it_is_accepted(
    queue: Queue, parking: MakeParking, redis_url: str
) -> None:
    """Acceptance takes the time to live away; what is refused loses its content at once."""
    name = await _park(queue, parking(idempotency_key="k"))
    await queue.park([parking(idempotency_key="k"), parking(idempotency_key="k", input_digest="1" * 64)])
    redis = Redis.from_url(redis_url)
    blobs = [key async for key in redis.scan_iter(match="*}:b:*")]
    one = name.rpartition("/")[2]
    assert sorted(blobs) == sorted(key.encode() for key in (keys.inputs("digits", one), keys.subject("digits", one)))
    assert [await redis.ttl(blob) for blob in blobs] == [-1, -1]
    await redis.aclose()


async def test_the_same_key_and_input_get_the_same_deferral(queue: Queue, parking: MakeParking) -> None:
    """A client's retry finds what its first call made, in one batch or in two."""
    first, second = await queue.park([parking(idempotency_key="order 7"), parking(idempotency_key="order 7")])
    (third,) = await queue.park([parking(idempotency_key="order 7")])
    assert isinstance(first, Parked)
    assert first.created
    assert second == third == Parked(name=first.name, created=False)


async def test_the_same_key_of_another_client_is_another_request(queue: Queue, parking: MakeParking) -> None:
    """Idempotency keys belong to their client."""
    ours = await _park(queue, parking(idempotency_key="order 7"))
    assert await _park(queue, parking(idempotency_key="order 7", client="bank")) != ours


async def test_a_task_that_nobody_could_answer_is_refused_alone(queue: Queue, parking: MakeParking) -> None:
    """Whatever comes with it is parked, requests that share another task too."""
    bad = Task(question=" ")
    verdicts = await queue.park([parking(task=bad), parking(), parking(task=bad), parking()])
    assert [type(verdict) for verdict in verdicts] == [InvalidError, Parked, InvalidError, Parked]
    assert "task.question: expected a question" in str(verdicts[0])


async def test_the_same_key_with_another_input_is_refused(queue: Queue, parking: MakeParking) -> None:
    """ALREADY_EXISTS, naming the key and the deferral that has it."""
    name = await _park(queue, parking(idempotency_key="order 7"))
    (verdict,) = await queue.park([parking(idempotency_key="order 7", input_digest="1" * 64)])
    assert isinstance(verdict, ConflictError)
    assert "'order 7'" in verdict.message
    assert name in verdict.message


async def test_a_batch_gives_each_its_own_verdict(open_queue: OpenQueue, parking: MakeParking) -> None:
    """What is wrong with one request is no other's fate; a full queue says when to come back."""
    queue = open_queue(depth_max=2, subject_bytes_max=10)
    verdicts = await queue.park(
        [parking(), parking(subject=b"x" * 11), parking(priority=10), parking(), parking(), parking(queue="a b")]
    )
    assert [type(verdict) for verdict in verdicts] == [
        Parked,
        InvalidError,
        InvalidError,
        Parked,
        OverError,
        InvalidError,
    ]
    texts = [str(verdict) for verdict in verdicts if isinstance(verdict, DemurError)]
    assert texts[0] == "subject.content: queue digits takes at most 10 bytes, got 11"
    assert texts[1] == "priority: expected 0 to 9, got 10"
    assert isinstance(verdicts[4], OverError)
    assert verdicts[4].retry_after_seconds
    assert await queue.reconcile() == []


async def test_the_most_urgent_comes_first_then_the_oldest(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """Priority orders, then age, within a batch too."""
    verdicts = await queue.park([parking(priority=priority) for priority in (0, 5, 9, 5, 0)])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    leased = [lease.deferral.name for lease in await queue.lease("digits", reviewer=ann, limit=5)]
    assert leased == [names[2], names[1], names[3], names[0], names[4]]


async def test_one_review_settles_where_one_is_wanted(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """N = 1: the person's answer is the outcome."""
    name = await _park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert (lease.subject, lease.blind, lease.deferral.name) == (b"a picture", True, name)
    done = await queue.submit(lease.token, reviewer=ann, answer=Label("7"), comment="a seven", request_id="1")
    assert done == await queue.get(name)
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("7"))
    assert done.outcome.reviewed
    (review,) = done.reviews
    assert (review.reviewer, review.comment, review.blind) == ("ann", "a seven", True)
    assert 0 <= review.duration_seconds < 60
    assert await queue.reconcile() == []


async def test_two_who_agree_settle_where_two_are_wanted(open_queue: OpenQueue, parking: MakeParking) -> None:
    """N = 2: after the first review the deferral is still open, after the second it is settled."""
    queue = open_queue(reviews_wanted=2)
    await _park(queue, parking())
    first = await _review(queue, "ann", Label("7"))
    assert (first.state, first.reviews_wanted, len(first.reviews)) == (State.OPEN, 2, 1)
    done = await _review(queue, "bob", Label("7"))
    assert done.outcome is not None
    assert (done.outcome.source, done.outcome.answer) == (Source.CONSENSUS, Label("7"))


async def test_two_who_disagree_bring_in_a_third(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """N = 2, M = 3: one more slot, for somebody else, whose word gives the majority."""
    queue = open_queue(reviews_wanted=2, reviews_max=3)
    await _park(queue, parking())
    await _review(queue, "ann", Label("7"))
    grown = await _review(queue, "bob", Label("1"))
    assert (grown.state, grown.reviews_wanted) == (State.OPEN, 3)
    assert await queue.lease("digits", reviewer=ann) == []
    done = await _review(queue, "cid", Label("1"))
    assert done.outcome is not None
    assert (done.outcome.answer, len(done.reviews)) == (Label("1"), 3)
    assert await queue.reconcile() == []


async def test_nobody_prevails_when_all_disagree_to_the_end(open_queue: OpenQueue, parking: MakeParking) -> None:
    """At M reviews without a majority the outcome has no answer."""
    queue = open_queue(reviews_wanted=2, reviews_max=3)
    await _park(queue, parking())
    for reviewer, digit in (("ann", "1"), ("bob", "2"), ("cid", "3")):
        done = await _review(queue, reviewer, Label(digit))
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, done.outcome.reviewed) == (State.RESOLVED, None, True)


async def test_nobody_reviews_the_same_deferral_twice(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Distinct reviewers, while one holds a slot and after they answered; who gave it back may take it again."""
    queue = open_queue(reviews_wanted=2)
    await _park(queue, parking())
    ann = Identity(name="ann")
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert await queue.lease("digits", reviewer=ann) == []
    await queue.release(lease.token, reviewer=ann, request_id="1")
    await _review(queue, "ann", Label("7"))
    assert await queue.lease("digits", reviewer=ann) == []


async def test_a_reviewer_finds_work_behind_thousands_that_they_answered(
    open_queue: OpenQueue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of the script looks at a bounded number of entries; the next one goes on from there."""
    monkeypatch.setattr("fallback.leases.LOOK_MAX", 64)
    queue = open_queue(reviews_wanted=2)
    await queue.park([parking() for _ in range(300)])
    ann, seen = Identity(name="ann"), set()
    while leases := await queue.lease("digits", reviewer=ann, limit=75):
        seen |= {lease.deferral.id for lease in leases}
    assert len(seen) == 300


async def test_extending_keeps_the_token_and_moves_the_end(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """The hold goes on for another lease time, never past the deferral's own end."""
    queue = open_queue(lease_seconds=30, review_seconds=60)
    await _park(queue, parking())
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
    await _park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    with pytest.raises(StateError, match="its review was submitted"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("8"), request_id="2")


async def test_an_answer_of_the_wrong_kind_is_refused_and_the_hold_goes_on(
    queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """The reviewer may answer again with the same token."""
    await _park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    for wrong in (Number(7.0), Label("eleven")):
        with pytest.raises(InvalidError, match="answer"):
            await queue.submit(lease.token, reviewer=ann, answer=wrong, request_id="1")
    done = await queue.submit(lease.token, reviewer=ann, answer=CantTell(), request_id="1")
    assert done.state is State.RESOLVED


async def test_a_lease_lapses_and_the_next_reviewer_gets_the_item(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Even while no reaper runs; the first holder is told."""
    queue = open_queue(lease_seconds=0.05)
    await _park(queue, parking())
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
    await _park(queue, parking())
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
    await _park(queue, parking())
    assert len(await queue.lease("digits", reviewer=ann)) == 1


async def test_waiting_for_an_outcome_ends_with_it(queue: Queue, parking: MakeParking) -> None:
    """As soon as the deferral has ended, with the time-out before."""
    name = await _park(queue, parking())
    assert (await queue.wait(name, timeout_seconds=0.05)).state is State.OPEN
    waiting = [asyncio.create_task(queue.wait(name, timeout_seconds=20)) for _ in range(200)]
    await asyncio.sleep(0.1)
    await _review(queue, "ann", Label("7"))
    done = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert {deferral.state for deferral in done} == {State.RESOLVED}
    started = time.monotonic()
    assert (await queue.wait(name, timeout_seconds=20)).state is State.RESOLVED
    assert time.monotonic() - started < 5
    with pytest.raises(NotFoundError):
        await queue.wait("queues/digits/deferrals/none", timeout_seconds=1)


async def test_outcomes_come_in_order_once_and_from_any_cursor(queue: Queue, parking: MakeParking) -> None:
    """From the oldest, from a cursor, from now on; waiting for the first one."""
    assert await queue.last_cursor("digits") == "0-0"
    await queue.park([parking(priority=priority) for priority in (9, 5, 0)])
    for digit in ("1", "2", "3"):
        await _review(queue, "ann", Label(digit))
    events = await queue.outcomes("digits", "0")
    answers = [event.deferral.outcome.answer for event in events if event.deferral.outcome]
    assert answers == [Label("1"), Label("2"), Label("3")]
    assert await queue.outcomes("digits", "0", count=2) == events[:2]
    assert await queue.outcomes("digits", events[1].cursor) == events[2:]
    assert await queue.outcomes("digits", "", wait_seconds=0.02) == []
    assert await queue.last_cursor("digits") == events[2].cursor
    waiting = asyncio.create_task(queue.outcomes("digits", events[2].cursor, wait_seconds=20))
    await asyncio.sleep(0.05)
    name = await _park(queue, parking())
    await queue.cancel(name, request_id="1")
    (event,) = await asyncio.wait_for(waiting, 5)
    assert (event.deferral.name, event.deferral.state) == (name, State.CANCELLED)


async def test_trimming_forgets_outcomes_up_to_the_cursor(queue: Queue, parking: MakeParking) -> None:
    """What the ledger has goes, what came after stays, and the newest cursor is still known."""
    await queue.park([parking() for _ in range(3)])
    for _ in range(3):
        await _review(queue, "ann", Label("1"))
    events = await queue.outcomes("digits", "0")
    await queue.trim_outcomes("digits", events[1].cursor)
    assert await queue.outcomes("digits", "0") == events[2:]
    await queue.trim_outcomes("digits", events[2].cursor)
    assert await queue.outcomes("digits", "0") == []
    assert await queue.last_cursor("digits") == events[2].cursor
    assert (await queue.get(events[0].deferral.name)).state is State.RESOLVED


@pytest.mark.parametrize("cursor", ["x", "-1", "1-", "1-2-3", "99999999999999999999"])
async def test_a_wrong_cursor_is_refused(queue: Queue, cursor: str) -> None:
    """INVALID_ARGUMENT, before the server sees it."""
    with pytest.raises(InvalidError, match="cursor"):
        await queue.outcomes("digits", cursor)


async def test_cancelling_takes_the_question_back(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """The outcome has no answer; who held it loses it; a second cancel is refused with the state."""
    name = await _park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    done = await queue.cancel(name, request_id="1")
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.CANCELLED, Source.CANCELLATION, None)
    with pytest.raises(StateError, match="is cancelled already"):
        await queue.cancel(name, request_id="2")
    with pytest.raises(StateError, match="is cancelled already"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="3")
    with pytest.raises(NotFoundError):
        await queue.cancel("queues/digits/deferrals/none", request_id="4")
    assert await queue.reconcile() == []


async def test_pages_go_from_the_youngest_to_the_oldest(queue: Queue, parking: MakeParking) -> None:
    """Each deferral once, whatever its state, or those of one state only."""
    verdicts = await queue.park([parking() for _ in range(7)])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    await queue.cancel(names[2], request_id="1")
    await _review(queue, "ann", Label("1"))
    seen, page_token = [], ""
    while True:
        page, page_token = await queue.list_deferrals("digits", page_size=3, page_token=page_token)
        seen += [deferral.name for deferral in page]
        if not page_token:
            break
    assert seen == names[::-1]
    (cancelled,), rest = await queue.list_deferrals("digits", state=State.CANCELLED)
    assert (cancelled.name, rest) == (names[2], "")
    assert len((await queue.list_deferrals("digits", state=State.OPEN))[0]) == 5
    assert await queue.list_deferrals("nothing") == ([], "")
    for wrong in ({"page_size": 0}, {"page_size": 1001}, {"page_token": "x"}):
        with pytest.raises(InvalidError):
            await queue.list_deferrals("digits", **wrong)


async def test_states_count_what_waits_and_who_holds(queue: Queue, parking: MakeParking) -> None:
    """Items with a free slot, items somebody holds, open ones, and the reviewers who hold something."""
    await queue.park([parking() for _ in range(5)])
    await queue.park([parking(queue="other")])
    for name, limit in (("ann", 2), ("bob", 1)):
        await queue.lease("digits", reviewer=Identity(name=name), limit=limit)
    digits, other = await queue.states()
    assert (digits.name, digits.waiting, digits.held, digits.open, digits.reviewers) == ("digits", 2, 3, 5, 2)
    assert (other.name, other.waiting, other.held, other.open, other.reviewers) == ("other", 1, 0, 1, 0)
    assert (digits.assisted, digits.lease_seconds) == (False, 120)


async def test_assisted_is_what_the_queue_said_when_the_lease_was_taken(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """The review records which it was, even if the setting changes while somebody looks."""
    queue = open_queue(assisted=True)
    await _park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert not lease.blind
    blind = open_queue(assisted=False)
    assert not (await blind.extend(lease.token, reviewer=ann, request_id="1")).blind
    done = await blind.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="2")
    assert not done.reviews[0].blind


async def test_without_a_prediction_expiry_abstains(open_queue: OpenQueue, parking: MakeParking) -> None:
    """The queue's setting cannot answer what no model said; a client that asks for it is told."""
    queue = open_queue(on_expiry="answer_unreviewed")
    name = await _park(queue, parking(prediction=None))
    assert (await queue.get(name)).on_expiry is OnExpiry.ABSTAIN
    (verdict,) = await queue.park([parking(prediction=None, on_expiry=OnExpiry.ANSWER_UNREVIEWED)])
    assert isinstance(verdict, InvalidError)
    name = await _park(queue, parking())
    assert (await queue.get(name)).on_expiry is OnExpiry.ANSWER_UNREVIEWED


async def test_answers_of_every_kind_survive_the_server(queue: Queue, parking: MakeParking) -> None:
    """Text in any script, and numbers as they were."""
    prediction = Prediction(model="m", version="1", answer=Number(0.1 + 0.2), confidence=1.0)
    name = await _park(queue, parking(prediction=prediction, attributes={"ort": "Zürich 東京 \x00"}))
    found = await queue.get(name)
    assert (found.prediction, found.attributes) == (prediction, {"ort": "Zürich 東京 \x00"})
