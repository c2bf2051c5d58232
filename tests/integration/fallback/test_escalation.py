"""What goes to the tier above: by readers who differ, by time, by a holder; and who has the last word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fallback import keys
from fallback.answer import Label
from fallback.deferral import Deferral, OnExpiry, Source, State
from fallback.errors import StateError
from fallback.queue import Queue
from fallback.reaper import Reaped
from tests.integration.fallback.tiers import ANN, BOB, BOTH, CID, DORA, EVE, who
from tests.queueing import MakeParking, OpenQueue, park, review


async def _overdue(queue: Queue, name: str) -> None:
    """Move its end into the past, in record and index alike."""
    one, redis = name.rpartition("/")[2], queue._store.connection.redis
    await redis.hset(keys.record("digits", one), "expire_ms", "1")
    await redis.zadd(keys.index("digits", "expiry"), {one: 1}, xx=True)


async def _split(queue: Queue) -> Deferral:
    await review(queue, ANN, Label("7"))
    return await review(queue, BOB, Label("1"))


async def test_readers_who_do_not_agree_bring_in_a_doctor_whose_word_is_final(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """With a deadline of its own; the readers' answers stay beside the doctor's, and none of them is asked again."""
    queue = tiered(review_seconds=100)
    name = await park(queue, parking(review_seconds=50))
    first = await queue.get(name)
    await review(queue, BOTH, Label("7"))
    raised = await review(queue, BOB, Label("1"))
    assert (raised.state, raised.tier, raised.version) == (State.OPEN, "doctor", 4)
    assert [(review.reviewer, review.tier) for review in raised.reviews] == [("both", "reader"), ("bob", "reader")]
    assert raised.expire_time > first.create_time + 99
    assert (raised.reviews_wanted, raised.outcome) == (3, None)
    assert await queue.lease("digits", reviewer=BOTH) == await queue.lease("digits", reviewer=CID) == []
    done = await review(queue, DORA, Label("3"))
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("3"))
    assert [review.tier for review in done.reviews] == ["reader", "reader", "doctor"]
    assert len(await queue.outcomes("digits", "0")) == 1
    assert await queue.reconcile() == []


async def test_at_the_last_tier_nobody_prevails(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """As many doctors as the setting says; they may grow to M like the readers, and then it ends without an answer."""
    queue = tiered(tier_reviews_wanted=2, reviews_max=3, reviews_wanted=3)
    await park(queue, parking())
    for reviewer, digit in ((ANN, "1"), (BOB, "2"), (CID, "3"), (DORA, "1"), (EVE, "2")):
        done = await review(queue, reviewer, Label(digit))
    assert (done.state, done.tier, done.reviews_wanted) == (State.OPEN, "doctor", 6)
    done = await review(queue, who("fay", "doctor"), Label("3"))
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, done.outcome.reviewed) == (State.RESOLVED, None, True)
    assert await queue.reconcile() == []


@pytest.mark.parametrize("answer", [True, False])
async def test_nobody_in_time_asks_the_next_tier_and_after_the_last_it_expires(
    tiered: Callable[..., Queue], parking: MakeParking, *, answer: bool
) -> None:
    """Where the client chose so; the reaper does it, and says how often; at the last tier it is as ABSTAIN."""
    queue = tiered()
    name = await park(queue, parking(on_expiry=OnExpiry.ESCALATE))
    await review(queue, ANN, Label("7"))
    (held,) = await queue.lease("digits", reviewer=BOB)
    await _overdue(queue, name)
    assert await queue.reap() == Reaped(escalated=1)
    assert await queue.reap() == Reaped()
    raised = await queue.get(name)
    assert (raised.state, raised.tier, raised.reviews_wanted) == (State.OPEN, "doctor", 2)
    with pytest.raises(StateError, match="the next tier is asked"):
        await queue.submit(held.token, reviewer=BOB, answer=Label("7"), request_id="1")
    assert await queue.reconcile() == []
    if answer:
        done = await review(queue, DORA, Label("1"))
        assert done.outcome is not None
        assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("1"))
        return
    await _overdue(queue, name)
    assert await queue.reap() == Reaped(expired=1)
    done = await queue.get(name)
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, done.outcome.reviewed) == (State.EXPIRED, None, False)


async def test_without_tiers_to_escalate_is_to_abstain(open_queue: OpenQueue, parking: MakeParking) -> None:
    """The only tier is the last; where the setting says so without a model's answer too."""
    queue = open_queue(on_expiry="escalate")
    for one in (parking(), parking(prediction=None)):
        name = await park(queue, one)
        assert (await queue.get(name)).on_expiry is OnExpiry.ESCALATE
        await _overdue(queue, name)
        assert await queue.reap() == Reaped(expired=1)
        outcome = (await queue.get(name)).outcome
        assert outcome is not None
        assert (outcome.source, outcome.answer) == (Source.EXPIRY, None)


async def test_a_holder_may_send_it_up(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """In one step: they are not asked again, the other holder is told why theirs is over, the doctor has one place."""
    queue = tiered()
    name = await park(queue, parking())
    (first,), (second,) = await queue.lease("digits", reviewer=BOTH), await queue.lease("digits", reviewer=BOB)
    await queue.submit(second.token, reviewer=BOB, answer=Label("7"), request_id="0")
    assert await queue.lease("digits", reviewer=CID) == []
    for _ in range(2):
        await queue.skip(first.token, reviewer=BOTH, reason="above me", request_id="1", escalate=True)
    raised = await queue.get(name)
    assert (raised.tier, raised.reviews_wanted, len(raised.reviews)) == ("doctor", 2, 1)
    assert [(skip.reviewer, skip.reason, skip.escalated) for skip in raised.skips] == [("both", "above me", True)]
    with pytest.raises(StateError):
        await queue.extend(first.token, reviewer=BOTH, request_id="2")
    assert await queue.lease("digits", reviewer=BOTH) == []
    done = await review(queue, DORA, Label("1"))
    assert done.outcome is not None
    assert done.outcome.answer == Label("1")
    assert await queue.reconcile() == []


async def test_what_is_sent_up_ends_the_other_holders_look(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """They may be asked at the next tier, if they have its skill: they did not answer. Their draft is there."""
    queue = tiered()
    await park(queue, parking())
    (first,), (second,) = await queue.lease("digits", reviewer=ANN), await queue.lease("digits", reviewer=BOTH)
    await queue.save_draft(second.token, reviewer=BOTH, draft="{}", request_id="1")
    await queue.skip(first.token, reviewer=ANN, reason="", request_id="2", escalate=True)
    with pytest.raises(StateError, match="is over: the next tier is asked; lease again"):
        await queue.extend(second.token, reviewer=BOTH, request_id="3")
    (again,) = await queue.lease("digits", reviewer=BOTH)
    assert (again.deferral.tier, again.draft, again.deferral.reviews_wanted) == ("doctor", "{}", 1)
    assert await queue.reconcile() == []


@pytest.mark.parametrize("filled", [(), (0,), (1,), (2,), (0, 2)])
async def test_what_is_sent_up_is_asked_of_as_many_as_the_setting_says(
    tiered: Callable[..., Queue], parking: MakeParking, filled: tuple[int, ...]
) -> None:
    """Whichever places the readers had: of three, one doctor. No token of a place that is over ever works again."""
    queue, readers = tiered(reviews_wanted=3, reviews_max=3), (ANN, BOB, CID)
    name = await park(queue, parking())
    (first,), (second,), (third,) = [await queue.lease("digits", reviewer=who) for who in readers]
    for number in filled:
        lease, who = (first, second, third)[number], readers[number]
        await queue.submit(lease.token, reviewer=who, answer=Label(str(number)), comment=who.name, request_id=who.name)
    before = await queue.get(name)
    number = next(number for number in range(3) if number not in filled)
    await queue.skip(
        (first, second, third)[number].token, reviewer=readers[number], reason="", request_id="up", escalate=True
    )
    raised = await queue.get(name)
    assert (raised.tier, raised.reviews_wanted, raised.reviews) == ("doctor", len(filled) + 1, before.reviews)
    assert await queue.reconcile() == []

    async def refuses_old_tokens() -> None:
        for lease, who in zip((first, second, third), readers, strict=True):
            with pytest.raises(StateError):
                await queue.submit(lease.token, reviewer=who, answer=Label("9"), request_id="late")

    await refuses_old_tokens()
    (up,) = await queue.lease("digits", reviewer=DORA)
    assert await queue.lease("digits", reviewer=EVE) == []
    await refuses_old_tokens()
    done = await queue.submit(up.token, reviewer=DORA, answer=Label("5"), request_id="up")
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("5"))
    assert done.reviews[:-1] == before.reviews
    assert await queue.reconcile() == []


async def test_places_that_vanished_come_back_when_the_doctors_differ(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """Under generations of their own: who held one of them as a reader cannot answer there."""
    queue = tiered(reviews_wanted=3, reviews_max=3, tier_reviews_wanted=2)
    await park(queue, parking())
    held = [await queue.lease("digits", reviewer=who) for who in (ANN, BOB, CID)]
    await queue.skip(held[0][0].token, reviewer=ANN, reason="", request_id="1", escalate=True)
    await review(queue, DORA, Label("1"))
    assert (await review(queue, EVE, Label("2"))).reviews_wanted == 3
    (lease,) = await queue.lease("digits", reviewer=who("fay", "doctor"))
    with pytest.raises(StateError):
        await queue.submit(held[2][0].token, reviewer=CID, answer=Label("9"), request_id="2")
    assert await queue.reconcile() == []
    done = await queue.submit(lease.token, reviewer=who("fay", "doctor"), answer=Label("2"), request_id="3")
    assert done.outcome is not None
    assert (done.state, done.outcome.answer) == (State.RESOLVED, Label("2"))


async def test_there_is_nothing_above_the_last_tier(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """The hold stays as it was; a skip without it does."""
    queue = tiered()
    await park(queue, parking(tier="doctor"))
    (lease,) = await queue.lease("digits", reviewer=DORA)
    with pytest.raises(StateError, match="there is no tier above to send it to"):
        await queue.skip(lease.token, reviewer=DORA, reason="", request_id="1", escalate=True)
    await queue.extend(lease.token, reviewer=DORA, request_id="2")
    await queue.skip(lease.token, reviewer=DORA, reason="", request_id="3")
    assert await queue.reconcile() == []


async def test_one_that_enough_people_sent_up_is_listed_as_flagged(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """To send it up is to skip it."""
    queue = tiered(skips_max=1)
    name = await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=ANN)
    await queue.skip(lease.token, reviewer=ANN, reason="", request_id="1", escalate=True)
    flagged, _ = await queue.list_deferrals("digits", flagged=True)
    assert [deferral.name for deferral in flagged] == [name]


async def test_what_the_next_tier_is_asked_because_of_stands(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """A reader cannot take an answer back once a doctor is asked; a doctor can, in the undo window."""
    queue = tiered(undo_seconds=60)
    name = await park(queue, parking())
    await _split(queue)
    with pytest.raises(StateError, match="the next tier is asked because of your review; it cannot be taken back"):
        await queue.undo(name, reviewer=ANN, request_id="1")
    settling = await review(queue, DORA, Label("1"))
    assert (settling.state, len(settling.reviews)) == (State.OPEN, 3)
    with pytest.raises(StateError, match="cannot be taken back"):
        await queue.undo(name, reviewer=BOB, request_id="2")
    lease = await queue.undo(name, reviewer=DORA, request_id="3")
    assert [review.reviewer for review in lease.deferral.reviews] == ["ann", "bob"]
    await queue.submit(lease.token, reviewer=DORA, answer=Label("7"), request_id="4")
    assert await queue.reconcile() == []


async def test_readers_who_agree_are_done_in_one_step_and_those_who_do_not_go_up_after_a_crash(
    tiered: Callable[..., Queue], parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies right after the last review leaves it to the reaper."""

    async def died(*_: object) -> None:
        raise StateError("died")

    queue = tiered()
    name = await park(queue, parking())
    await review(queue, ANN, Label("7"))
    with monkeypatch.context() as patched:
        patched.setattr("fallback.leases.conclude", died)
        with pytest.raises(StateError, match="died"):
            await review(queue, BOB, Label("1"))
    assert (await queue.get(name)).tier == "reader"
    await queue.reap()
    assert (await queue.get(name)).tier == "doctor"
    assert await queue.reconcile() == []


async def test_a_place_more_at_the_next_tier_uses_the_budget_too(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """One that nobody took before is not asked for twice."""
    queue = tiered(budget_per_hour=100)
    await park(queue, parking())
    await _split(queue)
    (state,) = await queue.states()
    assert state.asked_last_hour == 3
    await park(queue, parking())
    (lease,) = await queue.lease("digits", reviewer=CID)
    await queue.skip(lease.token, reviewer=CID, reason="not mine", request_id="1", escalate=True)
    (state,) = await queue.states()
    assert state.asked_last_hour == 5
