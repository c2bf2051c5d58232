"""Tiers of reviewers: who is asked, and who never is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fallback.answer import Identity, Label
from fallback.deferral import State
from fallback.errors import ForbiddenError, InvalidError
from fallback.queue import Parked, Queue
from tests.integration.fallback.tiers import ANN, BOB, BOTH, DORA, TIERS, who
from tests.queueing import MakeParking, OpenQueue, park, review


async def test_a_tier_is_asked_of_those_who_have_its_skill(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """By order across all that a reviewer may answer; a wish for some of them narrows it."""
    queue = tiered()
    late = await park(queue, parking(tier="reader", review_seconds=300))
    soon = await park(queue, parking(tier="doctor", review_seconds=60))
    between = await park(queue, parking(review_seconds=120))
    assert [(await queue.get(name)).tier for name in (late, soon, between)] == ["reader", "doctor", "reader"]

    async def given(who: Identity, *skills: str) -> list[str]:
        leases = await queue.lease("digits", reviewer=who, limit=9, skills=skills)
        for lease in leases:
            await queue.release(lease.token, reviewer=who, request_id=lease.token)
        return [lease.deferral.name for lease in leases]

    assert await given(ANN) == [between, late]
    assert await given(DORA) == [soon]
    assert await given(BOTH) == await given(Identity(name="boss")) == [soon, between, late]
    assert await given(BOTH, "doctor") == [soon]
    assert await given(BOTH, "reader", "doctor") == [soon, between, late]
    (state,) = await queue.states()
    assert (state.waiting, state.tiers) == (3, (("reader", 2), ("doctor", 1)))
    assert await queue.reconcile() == []


async def test_who_may_answer_none_of_the_tiers_is_told_so(
    tiered: Callable[..., Queue], open_queue: OpenQueue, parking: MakeParking
) -> None:
    """Not with an empty list, which would mean that there is nothing to do."""
    queue = tiered()
    await park(queue, parking())
    with pytest.raises(ForbiddenError, match="'nina' may not answer these: queue digits takes the skill reader or doc"):
        await queue.lease("digits", reviewer=who("nina", "nurse"))
    with pytest.raises(ForbiddenError, match="takes the skill doctor"):
        await queue.lease("digits", reviewer=ANN, skills=["doctor"])
    with pytest.raises(InvalidError, match=r"skills: expected some of queue digits's \(reader, doctor\), got 'nurse'"):
        await queue.lease("digits", reviewer=ANN, skills=["nurse"])
    plain = open_queue()
    with pytest.raises(InvalidError, match="leave skills out"):
        await plain.lease("digits", reviewer=ANN, skills=["reader"])
    assert len(await plain.lease("digits", reviewer=who("nina", "nurse"))) == 1


async def test_a_long_way_through_two_tiers_gives_each_item_once(
    tiered: Callable[..., Queue], parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, also where the script has to be run again from where it stopped in both."""
    monkeypatch.setattr("fallback.leases.LOOK_MAX", 50)
    queue = tiered(reviews_wanted=1, reviews_max=1)
    verdicts = await queue.park([parking(tier=TIERS[at % 3 == 0], review_seconds=at + 60.0) for at in range(200)])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    # In front of what is left stands what they skipped.
    leases = await queue.lease("digits", reviewer=BOTH, limit=100)
    assert [lease.deferral.name for lease in leases] == names[:50]
    for lease in leases:
        await queue.skip(lease.token, reviewer=BOTH, reason="", request_id=lease.token)
    rest: list[str] = []
    while found := await queue.lease("digits", reviewer=BOTH, limit=7):
        rest += [lease.deferral.name for lease in found]
    assert rest == names[50:]
    assert await queue.reconcile() == []


async def test_an_excluded_reviewer_is_never_asked(tiered: Callable[..., Queue], parking: MakeParking) -> None:
    """At no tier; somebody else is, and what is not theirs does not keep the rest from them."""
    queue = tiered(reviews_wanted=1)
    name = await park(queue, parking(excluded_reviewers=("ann", "both", "with space")))
    other = await park(queue, parking(review_seconds=100_000))
    assert [lease.deferral.name for lease in await queue.lease("digits", reviewer=ANN, limit=9)] == [other]
    (lease,) = await queue.lease("digits", reviewer=BOB)
    assert (lease.deferral.name, lease.deferral.skips) == (name, ())
    await queue.skip(lease.token, reviewer=BOB, reason="", request_id="1", escalate=True)
    assert await queue.lease("digits", reviewer=BOTH) == []
    assert (await review(queue, DORA, Label("7"))).state is State.RESOLVED


async def test_what_is_left_of_a_tier_that_is_no_more_falls_to_the_last(
    tiered: Callable[..., Queue], open_queue: OpenQueue, parking: MakeParking
) -> None:
    """An operator who shortens the list leaves nothing that nobody may answer."""
    name = await park(tiered(), parking(tier="doctor"))
    for shorter, reviewer in ((("reader",), ANN), ((), who("nina"))):
        queue = open_queue(tiers=shorter, reviews_wanted=2)
        (lease,) = await queue.lease("digits", reviewer=reviewer)
        assert (lease.deferral.name, lease.deferral.tier) == (name, "tier 2")
        await queue.release(lease.token, reviewer=reviewer, request_id=lease.token)
    two = open_queue(tiers=("nurse", "reader"))
    assert (await two.get(name)).tier == "reader"


async def test_who_waits_at_a_higher_tier_is_told_of_those_before_it_there(
    tiered: Callable[..., Queue], parking: MakeParking
) -> None:
    """The last of many waits longer than the first."""
    queue = tiered(reviews_wanted=1, reviews_max=1)
    await park(queue, parking(tier="doctor"))
    await review(queue, DORA, Label("7"))
    first, *_, last = [await park(queue, parking(tier="doctor")) for _ in range(50)]
    # What was read of the load is good for a while: no review was in it yet.
    queue._limits._loads.clear()
    waits = [await queue.expected_wait(await queue.get(name)) for name in (first, last)]
    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[0] < waits[1]
