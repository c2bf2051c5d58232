"""What is parked: stored, told apart, refused, listed and counted, on a real server."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from fallback import keys
from fallback.answer import Identity, Label, Task
from fallback.deferral import State
from fallback.errors import ConflictError, DemurError, InvalidError, OverError
from fallback.queue import Parked, Queue
from tests.queueing import MakeParking, OpenQueue, park, review


async def test_what_is_parked_comes_back_as_it_was(queue: Queue, parking: MakeParking) -> None:
    """Record, subject and inputs are stored together and read apart."""
    name = await park(queue, parking(priority=3, reasons=("threshold",)))
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
    name = await park(queue, parking(idempotency_key="k"))
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
    ours = await park(queue, parking(idempotency_key="order 7"))
    assert await park(queue, parking(idempotency_key="order 7", client="bank")) != ours


async def test_a_task_that_nobody_could_answer_is_refused_alone(queue: Queue, parking: MakeParking) -> None:
    """Whatever comes with it is parked, requests that share another task too."""
    bad = Task(question=" ")
    verdicts = await queue.park([parking(task=bad), parking(), parking(task=bad), parking()])
    assert [type(verdict) for verdict in verdicts] == [InvalidError, Parked, InvalidError, Parked]
    assert "task.question: expected a question" in str(verdicts[0])


async def test_the_same_key_with_another_input_is_refused(queue: Queue, parking: MakeParking) -> None:
    """ALREADY_EXISTS, naming the key and the deferral that has it."""
    name = await park(queue, parking(idempotency_key="order 7"))
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


async def test_pages_go_from_the_youngest_to_the_oldest(queue: Queue, parking: MakeParking) -> None:
    """Each deferral once, whatever its state, or those of one state only."""
    verdicts = await queue.park([parking() for _ in range(7)])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    await queue.cancel(names[2], request_id="1")
    await review(queue, "ann", Label("1"))
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
