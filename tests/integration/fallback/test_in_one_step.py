"""What is done in one step of the server: a batch is accepted, the last review settles."""

from __future__ import annotations

from typing import Any

import pytest

from fallback import keys
from fallback.answer import Identity, Label
from fallback.deferral import State
from fallback.errors import ConflictError, DemurError, StateError, UnavailableError
from fallback.intake import RUN_MAX
from fallback.queue import Parked, Queue
from tests.queueing import MakeParking, OpenQueue


def _created(verdicts: list[Parked | DemurError]) -> list[Any]:
    return [verdict.created if isinstance(verdict, Parked) else type(verdict) for verdict in verdicts]


async def test_a_batch_of_several_queues_and_runs_has_a_verdict_for_each_in_order(
    queue: Queue, parking: MakeParking
) -> None:
    """However many runs of the script it takes; a key twice in a batch makes one, and a refusal spares the others."""
    many = [parking(idempotency_key=str(number), queue="xyz"[number % 3]) for number in range(3 * RUN_MAX + 9)]
    verdicts = await queue.park([*many, many[1], parking(idempotency_key="1", queue="y", input_digest="1" * 64)])
    assert _created(verdicts) == [True] * len(many) + [False, ConflictError]
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    assert names[-1] == names[1]
    assert [name.split("/")[1] for name in names[:6]] == list("xyzxyz")
    assert [state.open for state in await queue.states()] == [RUN_MAX + 3] * 3
    assert await queue.reconcile() == []


async def test_a_batch_is_accepted_up_to_the_queues_depth(open_queue: OpenQueue, parking: MakeParking) -> None:
    """The first ones, in order; what is refused leaves nothing behind."""
    queue = open_queue(depth_max=3)
    verdicts = await queue.park([parking() for _ in range(5)])
    assert [isinstance(verdict, Parked) for verdict in verdicts] == [True] * 3 + [False] * 2
    keys = [key async for key in queue._store.connection.redis.scan_iter(match="*}:b:*")]
    assert len(keys) == 2 * 3


@pytest.mark.parametrize("size", [10, 100_000])
async def test_content_record_and_indexes_are_written_in_one_step(
    queue: Queue, parking: MakeParking, size: int
) -> None:
    """A server reads some kilobytes at a time, and syncs its file after each step: one of many would take as long."""
    redis = queue._store.connection.redis
    await queue.park([parking(queue="x"), parking(queue="y")])
    before = await redis.info("commandstats")
    await queue.park([*(parking(queue="x", subject=bytes(size)) for _ in range(5)), parking(queue="y")])
    after = await redis.info("commandstats")
    steps = {
        command: after[f"cmdstat_{command}"]["calls"] - before[f"cmdstat_{command}"]["calls"]
        for command in ("multi", "exec", "evalsha", "mset")
    }
    assert steps == {"multi": 2, "exec": 2, "evalsha": 2, "mset": 2}


async def test_much_content_goes_step_by_step(queue: Queue, parking: MakeParking) -> None:
    """Others are served between two commands of a megabyte."""
    redis = queue._store.connection.redis
    await queue.park([parking()])
    before = await redis.info("commandstats")
    verdicts = await queue.park([parking(subject=bytes(800_000)) for _ in range(3)])
    after = await redis.info("commandstats")
    assert _created(verdicts) == [True] * 3
    assert after["cmdstat_mset"]["calls"] - before["cmdstat_mset"]["calls"] == 3
    assert after["cmdstat_multi"]["calls"] == before["cmdstat_multi"]["calls"]


async def test_a_server_that_grants_no_transactions_does_one_after_the_other(
    queue: Queue, parking: MakeParking
) -> None:
    """As the user that its administrator made may be kept from them."""
    redis = queue._store.connection.redis
    await redis.execute_command("ACL", "SETUSER", "default", "-multi", "-exec")
    try:
        verdicts = await queue.park([parking(), parking(queue="other")])
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+@all")
    assert _created(verdicts) == [True, True]
    assert await queue.reconcile() == []


async def test_a_queue_whose_key_is_of_the_wrong_kind_keeps_the_others_from_nothing(
    queue: Queue, parking: MakeParking
) -> None:
    """Whichever of its commands is refused; what could not be accepted is said so."""
    redis = queue._store.connection.redis
    await redis.set(keys.index("x", "arriving"), "no index")
    verdicts = await queue.park([parking(queue="x"), parking(queue="y")])
    assert _created(verdicts) == [UnavailableError, True]
    await redis.delete(keys.index("x", "arriving"))
    assert _created(await queue.park([parking(queue="x")])) == [True]


async def test_the_last_review_settles_in_the_same_step(
    queue: Queue, parking: MakeParking, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies right after leaves nothing to finish."""

    async def died(*_: object) -> None:
        raise StateError("died")

    monkeypatch.setattr("fallback.leases.conclude", died)
    await queue.park([parking()])
    (lease,) = await queue.lease("digits", reviewer=ann)
    with pytest.raises(StateError, match="died"):
        await queue.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    done = await queue.get(lease.deferral.name)
    assert (done.state, done.outcome and done.outcome.answer) == (State.RESOLVED, Label("7"))
    assert len(await queue.outcomes("digits", "0")) == 1
    assert await queue.reconcile() == []


async def test_what_was_foreseen_does_not_settle_when_something_came_in_between(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity, bob: Identity
) -> None:
    """Bob's would have been the last review; but ann took hers back after bob had begun to look."""
    queue = open_queue(reviews_wanted=2, reviews_max=2)
    await queue.park([parking()])
    (first,) = await queue.lease("digits", reviewer=ann)
    await queue.submit(first.token, reviewer=ann, answer=Label("7"), request_id="1")
    (second,) = await queue.lease("digits", reviewer=bob)
    again = await queue.undo(first.deferral.name, reviewer=ann, request_id="2")
    after = await queue.submit(second.token, reviewer=bob, answer=Label("7"), request_id="3")
    assert (after.state, [review.reviewer for review in after.reviews]) == (State.OPEN, ["bob"])
    done = await queue.submit(again.token, reviewer=ann, answer=Label("1"), request_id="4")
    assert (done.state, done.outcome and done.outcome.answer) == (State.RESOLVED, None)
    assert await queue.reconcile() == []


async def test_who_leased_elsewhere_settles_in_the_same_step_too(
    open_queue: OpenQueue, parking: MakeParking, ann: Identity
) -> None:
    """A process that does not know the deferral reads it first."""
    leasing, submitting = open_queue(), open_queue()
    await leasing.park([parking()])
    (lease,) = await leasing.lease("digits", reviewer=ann)
    done = await submitting.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1")
    assert done.state is State.RESOLVED
    assert await submitting.submit(lease.token, reviewer=ann, answer=Label("7"), request_id="1") == done
