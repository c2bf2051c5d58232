"""What clients and reviewers do with a queue, in tests that are about what comes of it."""

from __future__ import annotations

from collections.abc import Callable

from fallback import keys
from fallback.answer import Answer, Identity
from fallback.deferral import Deferral, Lease, Parking
from fallback.listing import QueueState
from fallback.queue import Parked, Queue

# The fixtures `parking` and `open_queue`.
MakeParking = Callable[..., Parking]
OpenQueue = Callable[..., Queue]


async def park(queue: Queue, parking: Parking) -> str:
    """Park one request, which must be accepted; returns its deferral's name."""
    (verdict,) = await queue.park([parking])
    assert isinstance(verdict, Parked), verdict
    return verdict.name


async def take(queue: Queue, reviewer: Identity | str) -> Lease:
    """Lease the one item that comes next."""
    (lease,) = await queue.lease("digits", reviewer=_who(reviewer))
    return lease


async def review(queue: Queue, reviewer: Identity | str, answer: Answer) -> Deferral:
    """Lease the next item and answer it."""
    lease = await take(queue, reviewer)
    return await queue.submit(lease.token, reviewer=_who(reviewer), answer=answer, request_id=lease.token)


async def state_of(queue: Queue) -> QueueState:
    """Return how the one queue that is there stands."""
    (state,) = await queue.states()
    return state


async def load_of(queue: Queue) -> dict[str, int]:
    """Return the counters of its load, by field."""
    fields = await queue._store.connection.redis.hgetall(keys.index("digits", "load"))
    return {field.decode(): int(count) for field, count in fields.items()}


def _who(reviewer: Identity | str) -> Identity:
    return Identity(name=reviewer) if isinstance(reviewer, str) else reviewer
