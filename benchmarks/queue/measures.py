"""What is promised of the queue's speed, each measured in rounds, ours and the other side in turns within a round."""

from __future__ import annotations

import asyncio
import secrets
import time

from benchmarks.figures import Figure, figure, percentile
from benchmarks.queue.ground import ANSWER, PAYLOAD_BYTES, Ground, fill, park, parking, payload, timed
from fallback.answer import Identity
from fallback.deferral import Lease

PARK_MIN = 0.4
REVIEW_MIN = 0.4
DEPTH_MAX = 1.5
EXCLUDED_MAX = 3.0
REAPING_MAX = 3.0
BESIDE_BYTES_MAX = 1024.0
# How many lease at once while leases lapse.
_LESSEES = 4
_LEASED_AT_ONCE = 100


async def parked(here: Ground) -> Figure:
    """Park in batches, against a pipeline of one HSET and one ZADD each: items a second."""
    size, rounds = here.size, []
    count = size.batch * size.batches
    for number in range(size.rounds + 1):
        ours = [[parking("park", payload()) for _ in range(size.batch)] for _ in range(size.batches)]
        other = [[(secrets.token_hex(16), payload()) for _ in range(size.batch)] for _ in range(size.batches)]
        start = time.perf_counter()
        for plain in other:
            await here.bare.park(plain)
        middle = time.perf_counter()
        for batch in ours:
            await park(here.queue, batch)
        end = time.perf_counter()
        # The first round is to warm up.
        if number:
            rounds.append((count / (end - middle), count / (middle - start)))
    return figure("park, over a bare pipeline of HSET + ZADD", "items a second", rounds, limit=PARK_MIN, at_least=True)


async def reviewed(here: Ground) -> Figure:
    """Lease, submit and settle by several reviewers at once, against three bare EVALSHA: cycles a second."""
    size, rounds = here.size, []
    count = size.reviewers * size.reviews
    await fill(here, "review", count * (size.rounds + 1), content=payload())

    async def bare(who: int) -> None:
        for number in range(size.reviews):
            for script in "lss":
                await here.bare.write(f"{who}-{number}-{script}")

    async def ours(who: int) -> None:
        reviewer = Identity(name=f"reviewer {who}")
        for _ in range(size.reviews):
            (lease,) = await here.queue.lease("review", reviewer=reviewer)
            await _answer(here, lease, reviewer)

    for number in range(size.rounds + 1):
        other = await timed(asyncio.gather(*(bare(who) for who in range(size.reviewers))))
        own = await timed(asyncio.gather(*(ours(who) for who in range(size.reviewers))))
        if number:
            rounds.append((1000 * count / own, 1000 * count / other))
    name = f"lease + submit + settle by {size.reviewers} at once, over three bare EVALSHA"
    return figure(name, "cycles a second", rounds, limit=REVIEW_MIN, at_least=True)


async def deep(here: Ground) -> Figure:
    """Lease where many wait against where few do: p50, ms."""
    size, rounds = here.size, []
    await fill(here, "few", size.few)
    await fill(here, "many", size.many)
    for number in range(size.rounds + 1):
        few, many = await _in_turns(here, size.leases, ("many", Identity(name="ann")), ("few", Identity(name="ann")))
        if number:
            rounds.append((percentile(few, 0.5), percentile(many, 0.5)))
    name = f"p50 of lease with {size.many} waiting, over {size.few} waiting"
    return figure(name, "ms", rounds, limit=DEPTH_MAX)


async def excluded(here: Ground) -> Figure:
    """Lease behind items that this reviewer holds or answered against with none in front: p50, ms."""
    size, rounds = here.size, []
    await fill(here, "twice", size.few)
    ann, bob = Identity(name="ann"), Identity(name="bob")
    for _ in range(0, size.excluded, _LEASED_AT_ONCE):
        taken = await here.queue.lease("twice", reviewer=ann, limit=min(_LEASED_AT_ONCE, size.excluded))
        for lease in taken[: len(taken) // 2]:
            await _answer(here, lease, ann)
    for number in range(size.rounds + 1):
        own, other = await _in_turns(here, size.leases, ("twice", ann), ("twice", bob))
        if number:
            rounds.append((percentile(own, 0.5), percentile(other, 0.5)))
    name = f"p50 of lease with {size.excluded} in front that the reviewer holds or answered, over none"
    return figure(name, "ms", rounds, limit=EXCLUDED_MAX)


async def remembered(here: Ground) -> float:
    """Return what the server uses for a waiting item beside its payload, bytes."""
    # What grows in steps, and what is there once, is there before.
    await fill(here, "memory", here.size.batch, content=payload())
    before = await here.bare.memory_bytes()
    count = here.size.remembered
    await fill(here, "memory", count, content=payload())
    return (await here.bare.memory_bytes() - before) / count - PAYLOAD_BYTES


async def reaped(here: Ground) -> tuple[Figure, float]:
    """Lapse leases while others are taken, against no reaping: p99.9 of lease, ms; and how long all of it took, s."""
    size, rounds, seconds = here.size, [], 0.0
    each = size.lapsing // size.rounds
    holder = Identity(name="gone")
    await fill(here, "reap", each + 20 * _LEASED_AT_ONCE)
    for number in range(size.rounds):
        for _ in range(each // _LEASED_AT_ONCE):
            await here.queue.lease("reap", reviewer=holder, limit=_LEASED_AT_ONCE)
        here.tell(f"reap: round {number + 1} of {size.rounds}, {each} leases lapse")
        await here.bare.lapse_all("reap")
        under_way = asyncio.create_task(_reap(here, each))
        own = await _leases_until(here, under_way)
        spent = await under_way
        seconds += spent
        other = await _leases_until(here, asyncio.create_task(asyncio.sleep(spent)))
        rounds.append((percentile(own, 0.999), percentile(other, 0.999)))
    return figure("p99.9 of lease while leases lapse, over no reaping", "ms", rounds, limit=REAPING_MAX), seconds


async def _reap(here: Ground, count: int) -> float:
    start, done = time.perf_counter(), 0
    while done < count:
        lapsed = (await here.queue.reap()).lapsed
        # Whoever leases lapses some too.
        if not lapsed:
            break
        done += lapsed
    return time.perf_counter() - start


async def _leases_until(here: Ground, end: asyncio.Task[float] | asyncio.Task[None]) -> list[float]:
    """Lease and release by several at once until `end` is done; return how long each lease took, ms."""
    took: list[float] = []

    async def lessee(who: int) -> None:
        reviewer = Identity(name=f"lessee {who}")
        while not end.done():
            start = time.perf_counter()
            leases = await here.queue.lease("reap", reviewer=reviewer)
            took.append((time.perf_counter() - start) * 1000)
            for lease in leases:
                await here.queue.release(lease.token, reviewer=reviewer, request_id="")

    await asyncio.gather(*(lessee(who) for who in range(_LESSEES)))
    return took


async def _in_turns(
    here: Ground, count: int, ours: tuple[str, Identity], other: tuple[str, Identity]
) -> tuple[list[float], list[float]]:
    """Lease `count` items from each side in turns, then give them back; return how long each took, ms."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        held: list[tuple[Lease, Identity]] = []
        for side, (queue, reviewer) in zip(took, (ours, other), strict=True):
            start = time.perf_counter()
            (lease,) = await here.queue.lease(queue, reviewer=reviewer)
            side.append((time.perf_counter() - start) * 1000)
            held.append((lease, reviewer))
        for lease, reviewer in held:
            await here.queue.release(lease.token, reviewer=reviewer, request_id="")
    return took


async def _answer(here: Ground, lease: Lease, reviewer: Identity) -> None:
    await here.queue.submit(lease.token, reviewer=reviewer, answer=ANSWER, request_id=secrets.token_hex(16))
