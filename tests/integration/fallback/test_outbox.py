"""The outbox: what is told, to whom, at least once, and what becomes of what nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from structlog.testing import capture_logs

from fallback import keys
from fallback.answer import Answer, CantTell, Identity, Label
from fallback.config import Config
from fallback.connection import Connection
from fallback.deferral import Callback, Parking
from fallback.errors import UnavailableError
from fallback.outbox import Outbox, Untold
from fallback.queue import Delivery, Parked, Queue
from fallback.store import Store
from tests.queueing import MakeParking


async def _resolve(queue: Queue, parking: Parking, answer: Answer) -> str:
    ann = Identity(name="ann")
    (parked,) = await queue.park([parking])
    assert isinstance(parked, Parked)
    (lease,) = await queue.lease("digits", reviewer=ann)
    await queue.submit(lease.token, reviewer=ann, answer=answer, request_id="")
    return parked.name


@pytest.fixture
async def quick(queue: Queue, config: Config) -> AsyncIterator[Outbox]:
    """An outbox over the same queue whose claims are soon visible again."""
    store = Store(config)
    outbox = Outbox(store)
    outbox._visibility_ms = 50
    assert queue
    yield outbox
    await store.connection.close()


async def test_an_outcome_is_told_once_its_script_wrote_it(queue: Queue, parking: MakeParking) -> None:
    """The row carries the deferral as it ended, where to, and the deferral's id for every attempt."""
    name = await _resolve(queue, parking(), Label("7"))
    (delivery,) = await queue.due(limit=10)
    done = await queue.get(name)
    assert done.outcome is not None
    assert delivery == Delivery(
        id=done.id,
        type="deferral.resolved",
        deferral=done,
        callback=Callback(webhook_url="https://shop.example/hook"),
        attempt=1,
        create_time=done.outcome.create_time,
    )
    await queue.delivered(delivery)
    assert await queue.due(limit=10) == []


async def test_without_a_callback_nothing_is_told(queue: Queue, parking: MakeParking) -> None:
    """The stream of outcomes has it all the same."""
    await _resolve(queue, parking(callback=None), Label("7"))
    assert await queue.due(limit=10) == []
    assert len(await queue.outcomes("digits", "0")) == 1


@pytest.mark.parametrize(("answer", "told"), [(Label("7"), ["answer.amended"]), (Label("3"), []), (CantTell(), [])])
async def test_an_audit_tells_only_what_overturns(
    queue: Queue, parking: MakeParking, answer: Answer, told: list[str]
) -> None:
    """The client has its answer already: agreement, and a person who cannot tell, are no news."""
    await _resolve(queue, parking(audit=True), answer)
    assert [delivery.type for delivery in await queue.due(limit=10)] == told
    assert len(await queue.outcomes("digits", "0")) == 1


async def test_an_audit_that_was_cancelled_or_expired_tells_nothing(queue: Queue, parking: MakeParking) -> None:
    """Nothing was found out."""
    first, second = await queue.park([parking(audit=True), parking(audit=True, review_seconds=0.01)])
    assert isinstance(first, Parked)
    assert isinstance(second, Parked)
    await queue.cancel(first.name, request_id="1")
    await asyncio.sleep(0.02)
    assert (await queue.reap()).expired == 1
    assert await queue.due(limit=10) == []


async def test_a_claim_is_anothers_once_it_was_not_heard_of(queue: Queue, quick: Outbox, parking: MakeParking) -> None:
    """At least once: after the visibility time the row is due again, with the next attempt and the same id."""
    await _resolve(queue, parking(), Label("7"))
    (first,) = await quick.due(limit=10)
    assert await quick.due(limit=10) == []
    await asyncio.sleep(0.06)
    (second,) = await quick.due(limit=10)
    assert (second.id, second.attempt) == (first.id, 2)
    await quick.write([], [Untold(delivery=first, retry_seconds=None, reason="too late to say")])
    assert await queue.dead_letters("digits") == []
    await quick.write([first], [])
    await asyncio.sleep(0.06)
    assert await quick.due(limit=10) == []


async def test_what_failed_comes_again_when_it_was_asked_for(queue: Queue, parking: MakeParking) -> None:
    """Not before."""
    await _resolve(queue, parking(), Label("7"))
    (delivery,) = await queue.due(limit=10)
    await queue.failed(delivery, retry_seconds=0.1, reason="503")
    assert await queue.due(limit=10) == []
    await asyncio.sleep(0.12)
    (again,) = await queue.due(limit=10)
    assert (again.attempt, again.reason) == (2, "503")


async def test_dead_letters_are_listed_with_their_reason_and_can_be_sent_again(
    queue: Queue, parking: MakeParking
) -> None:
    """Redelivery begins with the first attempt; what is no dead letter is not counted."""
    await _resolve(queue, parking(), Label("7"))
    (delivery,) = await queue.due(limit=10)
    await queue.failed(delivery, retry_seconds=None, reason="410 Gone")
    assert await queue.due(limit=10) == []
    (dead,) = await queue.dead_letters("digits")
    assert (dead.id, dead.reason) == (delivery.id, "410 Gone")
    assert await queue.redeliver("digits", [delivery.id, "nothing"]) == 1
    assert await queue.dead_letters("digits") == []
    (again,) = await queue.due(limit=10)
    assert again.attempt == 1


async def test_a_dead_letter_whose_record_is_gone_is_not_sent_again(
    queue: Queue, parking: MakeParking, redis_url: str
) -> None:
    """Nor does asking for it make half a record, which would stop all the others."""
    await _resolve(queue, parking(), Label("7"))
    (delivery,) = await queue.due(limit=10)
    await queue.failed(delivery, retry_seconds=None, reason="410 Gone")
    with redis.Redis.from_url(redis_url) as client:
        client.delete(keys.record("digits", delivery.id))
        assert await queue.redeliver("digits", [delivery.id]) == 0
        assert not client.exists(keys.record("digits", delivery.id))
    assert await queue.dead_letters("digits") == []
    assert await queue.due(limit=10) == []


async def test_claims_are_bounded_and_shared(queue: Queue, parking: MakeParking) -> None:
    """Dispatchers never claim the same row, nor more than they asked for, and every queue gets its turn."""
    for name in ("digits", "letters"):
        verdicts = await queue.park([parking(queue=name) for _ in range(10)])
        for verdict in verdicts:
            assert isinstance(verdict, Parked)
            await queue.cancel(verdict.name, request_id="")
    first = await queue.due(limit=5)
    second = await queue.due(limit=5)
    assert len(first) == len(second) == 5
    assert {delivery.deferral.queue for delivery in (*first, *second)} == {"digits", "letters"}
    rest = await asyncio.gather(*(queue.due(limit=8) for _ in range(4)))
    ids = [delivery.id for batch in (first, second, *rest) for delivery in batch]
    assert len(ids) == len(set(ids)) == 20


@pytest.mark.parametrize("broken", ["outbox", "record"])
async def test_a_queue_whose_outcomes_cannot_be_claimed_keeps_no_other_waiting(
    queue: Queue, parking: MakeParking, redis_url: str, broken: str
) -> None:
    """The others are told; it is said once, and the queue goes on when it is repaired."""
    ann = Identity(name="ann")
    names = {}
    for each in ("a", "b", "c"):
        (parked,) = await queue.park([parking(queue=each)])
        assert isinstance(parked, Parked)
        (lease,) = await queue.lease(each, reviewer=ann)
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="")
        names[each] = parked.name
    key = keys.index("b", "outbox") if broken == "outbox" else keys.record("b", names["b"].rpartition("/")[2])
    with redis.Redis.from_url(redis_url) as client, capture_logs() as said:
        client.rename(key, key + ".away")
        client.set(key, "of another kind")
        found = [delivery for _ in range(3) for delivery in await queue.due(limit=10)]
        assert {delivery.deferral.name for delivery in found} == {names["a"], names["c"]}
        assert [(one["queue"], one["log_level"]) for one in said if "going on" in one["event"]] == [("b", "error")]
        client.rename(key + ".away", key)
        # As if the time for which it was claimed were over.
        client.zadd(keys.index("b", "outbox"), {names["b"].rpartition("/")[2]: 1})
        await asyncio.sleep(1.1)
        (delivery,) = await queue.due(limit=10)
    assert delivery.deferral.name == names["b"]


async def test_while_the_server_is_away_nothing_is_claimed_and_it_is_said(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no queue's trouble: who asks is told, and tries again later."""
    await _resolve(queue, parking(), Label("7"))

    async def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_run", away)
        patch.setattr(Connection, "_verdict", away)
        with pytest.raises(UnavailableError):
            await queue.due(limit=10)


async def test_a_queue_that_cannot_park_keeps_no_other_from_it(queue: Queue, parking: MakeParking) -> None:
    """Of a call for several queues, those of the broken one fail."""
    await queue._store.connection.redis.set(keys.index("b", "open"), "of another kind")
    verdicts = await queue.park([parking(queue=each) for each in ("a", "b", "c")])
    assert [isinstance(one, Parked) for one in verdicts] == [True, False, True]
    assert isinstance(verdicts[1], UnavailableError)
