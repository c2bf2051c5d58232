"""How an outcome is waited for, followed from a cursor, and forgotten."""

from __future__ import annotations

import asyncio
import time

import pytest

from fallback.answer import Identity, Label
from fallback.deferral import OnExpiry, Source, State
from fallback.errors import InvalidError, NotFoundError, StateError
from fallback.queue import Queue
from tests.queueing import MakeParking, OpenQueue, park, review


async def test_waiting_for_an_outcome_ends_with_it(queue: Queue, parking: MakeParking) -> None:
    """As soon as the deferral has ended, with the time-out before."""
    name = await park(queue, parking())
    assert (await queue.wait(name, timeout_seconds=0.05)).state is State.OPEN
    waiting = [asyncio.create_task(queue.wait(name, timeout_seconds=20)) for _ in range(200)]
    await asyncio.sleep(0.1)
    await review(queue, "ann", Label("7"))
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
        await review(queue, "ann", Label(digit))
    events = await queue.outcomes("digits", "0")
    answers = [event.deferral.outcome.answer for event in events if event.deferral.outcome]
    assert answers == [Label("1"), Label("2"), Label("3")]
    assert await queue.outcomes("digits", "0", count=2) == events[:2]
    assert await queue.outcomes("digits", events[1].cursor) == events[2:]
    assert await queue.outcomes("digits", "", wait_seconds=0.02) == []
    assert await queue.last_cursor("digits") == events[2].cursor
    waiting = asyncio.create_task(queue.outcomes("digits", events[2].cursor, wait_seconds=20))
    await asyncio.sleep(0.05)
    name = await park(queue, parking())
    await queue.cancel(name, request_id="1")
    (event,) = await asyncio.wait_for(waiting, 5)
    assert (event.deferral.name, event.deferral.state) == (name, State.CANCELLED)


async def test_trimming_forgets_outcomes_up_to_the_cursor(queue: Queue, parking: MakeParking) -> None:
    """What the ledger has goes, what came after stays, and the newest cursor is still known."""
    await queue.park([parking() for _ in range(3)])
    for _ in range(3):
        await review(queue, "ann", Label("1"))
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
    name = await park(queue, parking())
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


async def test_without_a_prediction_expiry_abstains(open_queue: OpenQueue, parking: MakeParking) -> None:
    """The queue's setting cannot answer what no model said; a client that asks for it is told."""
    queue = open_queue(on_expiry="answer_unreviewed")
    name = await park(queue, parking(prediction=None))
    assert (await queue.get(name)).on_expiry is OnExpiry.ABSTAIN
    (verdict,) = await queue.park([parking(prediction=None, on_expiry=OnExpiry.ANSWER_UNREVIEWED)])
    assert isinstance(verdict, InvalidError)
    name = await park(queue, parking())
    assert (await queue.get(name)).on_expiry is OnExpiry.ANSWER_UNREVIEWED
