"""In which order what waits is given out: by deadline, less the boost of its priority, then by age."""

from __future__ import annotations

import random

from fallback import keys
from fallback.answer import Identity
from fallback.deferral import Parking
from fallback.queue import Parked, Queue
from tests.queueing import MakeParking, OpenQueue

HOUR = 3_600.0


async def _park(queue: Queue, *parkings: Parking) -> list[str]:
    verdicts = await queue.park(parkings)
    return [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]


async def _given(queue: Queue, limit: int = 100) -> list[str]:
    return [lease.deferral.name for lease in await queue.lease("digits", reviewer=Identity(name="ann"), limit=limit)]


async def test_the_earliest_deadline_comes_first(queue: Queue, parking: MakeParking) -> None:
    """Not the oldest."""
    late, soon, between = await _park(queue, *(parking(review_seconds=seconds) for seconds in (300, 60, 120)))
    assert await _given(queue) == [soon, between, late]


async def test_each_step_of_priority_is_worth_the_boost(open_queue: OpenQueue, parking: MakeParking) -> None:
    """At an hour a step, what is due in two and a half hours at priority 2 comes before what is due in one."""
    queue = open_queue(priority_boost_seconds=HOUR)
    plain, one, two = await _park(
        queue,
        parking(review_seconds=HOUR),
        parking(review_seconds=2.5 * HOUR, priority=1),
        parking(review_seconds=2.5 * HOUR, priority=2),
    )
    assert await _given(queue) == [two, plain, one]


async def test_any_mix_is_given_out_by_boosted_deadline_then_age(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Sixty items of ten priorities and few deadlines, so that many tie."""
    queue, draw = open_queue(priority_boost_seconds=HOUR), random.Random(7)
    asked = [(draw.randrange(10), draw.choice((12, 13, 14, 15))) for _ in range(60)]
    names = await _park(queue, *(parking(priority=step, review_seconds=hours * HOUR) for step, hours in asked))
    due = [hours - step for step, hours in asked]
    assert await _given(queue) == [names[at] for at in sorted(range(60), key=lambda at: (due[at], at))]


async def test_a_stream_of_high_priority_starves_nothing(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Two of the highest priority come for each that is taken; an old item of the lowest still gets its turn.

    Only those that came within nine boosts of it (0.27 s) are before it.
    """
    queue = open_queue(priority_boost_seconds=0.03, review_seconds=HOUR)
    (low,) = await _park(queue, parking())
    taken: list[str] = []
    while low not in taken:
        await _park(queue, parking(priority=9), parking(priority=9))
        taken += await _given(queue, limit=1)
        assert len(taken) < 3_000, "it starves"
    assert (await queue.states())[0].waiting > 0
    created = {name: (await queue.get(name)).create_time for name in taken}
    assert all(created[name] - created[low] < 0.28 for name in taken)


async def test_what_comes_back_has_its_old_turn(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """The place in the order is fixed when it is parked."""
    names = await _park(queue, *(parking() for _ in range(3)))
    (first,) = await queue.lease("digits", reviewer=ann)
    await queue.release(first.token, reviewer=ann, request_id="1")
    assert await _given(queue) == names


async def test_the_order_is_exact_as_a_score(queue: Queue, parking: MakeParking) -> None:
    """The latest and the earliest are whole numbers well below 2^53, and age tells two of a millisecond apart."""
    one = parking(review_seconds=365 * 86_400.0)
    await _park(queue, one, one, parking(review_seconds=0.001, priority=9))
    redis = queue._store.connection.redis
    scores = [score for _, score in await redis.zrange(keys.index("digits", "free"), 0, -1, withscores=True)]
    assert all(abs(score) < 2**53 / 4 and score == int(score) for score in scores)
    assert scores[2] - scores[1] == 1
