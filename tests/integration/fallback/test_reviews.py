"""How many people are asked, and whose answers are the outcome."""

from __future__ import annotations

import pytest

from fallback.answer import CantTell, Identity, Label, Number
from fallback.deferral import Prediction, Source, State
from fallback.errors import InvalidError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park, review


async def test_one_review_settles_where_one_is_wanted(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """N = 1: the person's answer is the outcome."""
    name = await park(queue, parking())
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
    await park(queue, parking())
    first = await review(queue, "ann", Label("7"))
    assert (first.state, first.reviews_wanted, len(first.reviews)) == (State.OPEN, 2, 1)
    done = await review(queue, "bob", Label("7"))
    assert done.outcome is not None
    assert (done.outcome.source, done.outcome.answer) == (Source.CONSENSUS, Label("7"))


async def test_two_who_disagree_bring_in_a_third(open_queue: OpenQueue, parking: MakeParking, ann: Identity) -> None:
    """N = 2, M = 3: one more slot, for somebody else, whose word gives the majority."""
    queue = open_queue(reviews_wanted=2, reviews_max=3)
    await park(queue, parking())
    await review(queue, "ann", Label("7"))
    grown = await review(queue, "bob", Label("1"))
    assert (grown.state, grown.reviews_wanted) == (State.OPEN, 3)
    assert await queue.lease("digits", reviewer=ann) == []
    done = await review(queue, "cid", Label("1"))
    assert done.outcome is not None
    assert (done.outcome.answer, len(done.reviews)) == (Label("1"), 3)
    assert await queue.reconcile() == []


async def test_nobody_prevails_when_all_disagree_to_the_end(open_queue: OpenQueue, parking: MakeParking) -> None:
    """At M reviews without a majority the outcome has no answer."""
    queue = open_queue(reviews_wanted=2, reviews_max=3)
    await park(queue, parking())
    for reviewer, digit in (("ann", "1"), ("bob", "2"), ("cid", "3")):
        done = await review(queue, reviewer, Label(digit))
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, done.outcome.reviewed) == (State.RESOLVED, None, True)


async def test_nobody_reviews_the_same_deferral_twice(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Distinct reviewers, while one holds a slot and after they answered; who gave it back may take it again."""
    queue = open_queue(reviews_wanted=2)
    await park(queue, parking())
    ann = Identity(name="ann")
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert await queue.lease("digits", reviewer=ann) == []
    await queue.release(lease.token, reviewer=ann, request_id="1")
    await review(queue, "ann", Label("7"))
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


async def test_an_answer_of_the_wrong_kind_is_refused_and_the_hold_goes_on(
    queue: Queue, parking: MakeParking, ann: Identity
) -> None:
    """The reviewer may answer again with the same token."""
    await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    for wrong in (Number(7.0), Label("eleven")):
        with pytest.raises(InvalidError, match="answer"):
            await queue.submit(lease.token, reviewer=ann, answer=wrong, request_id="1")
    done = await queue.submit(lease.token, reviewer=ann, answer=CantTell(), request_id="1")
    assert done.state is State.RESOLVED


async def test_assisted_is_what_the_queue_said_when_the_lease_was_taken(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """The review records which it was, even if the setting changes while somebody looks."""
    queue = open_queue(assisted=True)
    await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert not lease.blind
    blind = open_queue(assisted=False)
    assert not (await blind.extend(lease.token, reviewer=ann, request_id="1")).blind
    done = await blind.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="2")
    assert not done.reviews[0].blind


async def test_answers_of_every_kind_survive_the_server(queue: Queue, parking: MakeParking) -> None:
    """Text in any script, and numbers as they were."""
    prediction = Prediction(model="m", version="1", answer=Number(0.1 + 0.2), confidence=1.0)
    name = await park(queue, parking(prediction=prediction, attributes={"ort": "Zürich 東京 \x00"}))
    found = await queue.get(name)
    assert (found.prediction, found.attributes) == (prediction, {"ort": "Zürich 東京 \x00"})
