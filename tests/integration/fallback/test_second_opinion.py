"""Reviews that are evidence about a model: always blind, by one person where they agree with it, else by three."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fallback import keys
from fallback.answer import Identity, Label, Number
from fallback.deferral import Deferral, Draw, SecondOpinion, Source, State
from fallback.errors import InvalidError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park

AGREED = SecondOpinion(predictions=(Label("3"),))
ALWAYS = SecondOpinion(predictions=(Label("3"),), always=True)


def _who(name: str, *skills: str) -> Identity:
    return Identity(name=name, skills=frozenset(skills) or None)


async def _review(queue: Queue, reviewer: str | Identity, label: str) -> Deferral:
    who = _who(reviewer) if isinstance(reviewer, str) else reviewer
    (lease,) = await queue.lease("digits", reviewer=who)
    assert lease.blind
    return await queue.submit(lease.token, reviewer=who, answer=Label(label), request_id=lease.token)


async def test_one_person_who_agrees_settles_it_in_the_step_of_their_review(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreseen before the review is sent, as with any other; nothing else runs."""
    await park(queue, parking(second_opinion=AGREED))
    (lease,) = await queue.lease("digits", reviewer=_who("ann"))
    assert lease.deferral.second_opinion == AGREED
    ran: list[str] = []
    run = queue._store.run

    async def spy(event: str, *arguments: Any, **more: Any) -> Any:
        ran.append(event)
        return await run(event, *arguments, **more)

    monkeypatch.setattr(queue._store, "run", spy)
    done = await queue.submit(lease.token, reviewer=_who("ann"), answer=Label("3"), request_id="1")
    assert ran == ["submit"]
    assert done.outcome is not None
    assert (done.state, done.outcome.source, done.outcome.answer) == (State.RESOLVED, Source.PERSON, Label("3"))


@pytest.mark.parametrize(("opinion", "first"), [(AGREED, "7"), (ALWAYS, "3")])
@pytest.mark.parametrize(("wanted", "limit"), [(1, 1), (2, 2), (1, 9)])
async def test_who_disagrees_or_was_chosen_brings_in_two_more_at_once(
    open_queue: OpenQueue, parking: MakeParking, opinion: SecondOpinion, first: str, wanted: int, limit: int
) -> None:
    """All three are waited for, whatever the queue's numbers; their majority is the outcome."""
    queue = open_queue(reviews_wanted=wanted, reviews_max=limit)
    await park(queue, parking(second_opinion=opinion))
    after = await _review(queue, "ann", first)
    assert after.state is State.OPEN
    after = await _review(queue, "bob", first)
    assert (after.state, after.reviews_wanted, len(after.reviews)) == (State.OPEN, 3, 2)
    done = await _review(queue, "cid", "5")
    assert done.outcome is not None
    assert (done.outcome.source, done.outcome.answer) == (Source.CONSENSUS, Label(first))
    assert [review.blind for review in done.reviews] == [True] * 3
    assert await queue.reconcile() == []


async def test_three_who_all_say_another_thing_end_it_without_an_answer(
    open_queue: OpenQueue, parking: MakeParking
) -> None:
    """Whatever more reviews the queue would allow."""
    queue = open_queue(reviews_max=7)
    await park(queue, parking(second_opinion=AGREED))
    for name, label in (("ann", "7"), ("bob", "8")):
        await _review(queue, name, label)
    done = await _review(queue, "cid", "9")
    assert done.outcome is not None
    assert (done.state, done.outcome.answer, done.outcome.source) == (State.RESOLVED, None, Source.CONSENSUS)


async def test_it_is_blind_where_the_queue_is_not(open_queue: OpenQueue, parking: MakeParking) -> None:
    """In an assisted queue only what is no evidence is shown with the model's guess; so it is after an undo."""
    queue = open_queue(assisted=True, undo_seconds=60)
    await park(queue, parking(second_opinion=AGREED))
    name = await park(queue, parking())
    first, second = await queue.lease("digits", reviewer=_who("ann"), limit=2)
    assert (first.blind, second.blind, second.deferral.name) == (True, False, name)
    assert (await queue.extend(first.token, reviewer=_who("ann"), request_id="1")).blind
    both = await queue.lease("digits", reviewer=_who("ann"), limit=2, resume=True)
    (first,) = (lease for lease in both if lease.deferral.name != name)
    assert first.blind
    done = await queue.submit(first.token, reviewer=_who("ann"), answer=Label("3"), request_id="2")
    assert done.reviews[0].blind
    assert (await queue.undo(done.name, reviewer=_who("ann"), request_id="3")).blind


async def test_who_thinks_again_may_bring_in_the_panel_and_not_send_it_away(
    open_queue: OpenQueue, parking: MakeParking
) -> None:
    """Once three are asked, three answer."""
    queue = open_queue(undo_seconds=60)
    name = await park(queue, parking(second_opinion=AGREED))
    await _review(queue, "ann", "3")
    lease = await queue.undo(name, reviewer=_who("ann"), request_id="1")
    after = await queue.submit(lease.token, reviewer=_who("ann"), answer=Label("7"), request_id="2")
    assert (after.reviews_wanted, len(after.reviews)) == (3, 1)
    lease = await queue.undo(name, reviewer=_who("ann"), request_id="3")
    after = await queue.submit(lease.token, reviewer=_who("ann"), answer=Label("3"), request_id="4")
    assert (after.state, after.reviews_wanted, len(after.reviews)) == (State.OPEN, 3, 1)
    await _review(queue, "bob", "3")
    done = await _review(queue, "cid", "3")
    assert (await queue.reap()).closed == 0
    assert len(done.reviews) == 3
    assert await queue.reconcile() == []


async def test_a_panel_that_does_not_agree_is_followed_by_one_of_the_next_tier(
    open_queue: OpenQueue, parking: MakeParking
) -> None:
    """Of its own people: one of them is enough who agrees with the model, three where not."""
    queue = open_queue(tiers=("reader", "doctor"))
    for name in "abcd":
        await park(queue, parking(second_opinion=AGREED, idempotency_key=name))
    for number, label in enumerate(("7", "8", "9")):
        for _ in range(4):
            await _review(queue, _who(f"reader {number}", "reader"), label)
    done = await _review(queue, _who("dora", "doctor"), "3")
    assert done.outcome is not None
    assert (done.outcome.source, done.outcome.answer, done.tier) == (Source.PERSON, Label("3"), "doctor")
    after = await _review(queue, _who("dora", "doctor"), "5")
    assert (after.state, after.reviews_wanted, after.tier) == (State.OPEN, 6, "doctor")
    assert await queue.reconcile() == []


async def test_the_reaper_asks_the_panel_where_who_took_the_first_review_died(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the review and the growing."""
    name = await park(queue, parking(second_opinion=AGREED))
    (lease,) = await queue.lease("digits", reviewer=_who("ann"))

    async def die(*_: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("fallback.leases.conclude", die)
        with pytest.raises(RuntimeError):
            await queue.submit(lease.token, reviewer=_who("ann"), answer=Label("7"), request_id="1")
    await queue.reap()
    assert (await queue.get(name)).reviews_wanted == 3


async def test_what_asks_for_no_second_opinion_is_stored_as_it_was(queue: Queue, parking: MakeParking) -> None:
    """Not a byte more, and no field."""
    redis = queue._store.connection.redis
    for opinion, draw, length, how in (
        (None, Draw(request_key="k", q=0.5, xi=0.1), 12, False),
        (AGREED, None, 14, True),
    ):
        name = await park(queue, parking(second_opinion=opinion, draw=draw))
        fields = await redis.hgetall(keys.record("digits", name.rpartition("/")[2]))
        assert (len(msgspec.json.decode(fields[b"body"])), b"how" in fields) == (length, how)


async def test_predictions_that_cannot_be_kept_are_refused(queue: Queue, parking: MakeParking) -> None:
    """Too many, or a number that JSON has no word for."""
    many = SecondOpinion(predictions=(Label("3"),) * 17)
    for opinion in (many, SecondOpinion(predictions=(Number(float("nan")),))):
        (verdict,) = await queue.park([parking(second_opinion=opinion)])
        assert isinstance(verdict, InvalidError)
        assert "second_opinion.predictions" in str(verdict)
