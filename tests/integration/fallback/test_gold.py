"""Gold items: asked like any other, blind, once of each person; told to nobody, counted for the operator."""

from __future__ import annotations

import pytest

from fallback import gold, keys
from fallback.answer import Answer, Box, Boxes, CantTell, Identity, Label, Labels, Subject, Task
from fallback.deferral import Deferral, Lease, State
from fallback.errors import InvalidError, NotFoundError, StateError
from fallback.gold import GoldItem, Tried
from fallback.queue import Queue
from tests.integration.fallback.conftest import TASK
from tests.queueing import MakeParking, OpenQueue

# Each that is taken is followed by a gold item.
ALWAYS = 0.5


def _item(subject: bytes = b"a seven", answer: Answer | None = None) -> GoldItem:
    return GoldItem(task=TASK, answer=answer or Label("7"), subject=subject, media_type="image/png")


async def _take(queue: Queue, reviewer: str) -> Lease | None:
    found = await queue.lease("digits", reviewer=Identity(name=reviewer))
    return found[0] if found else None


async def _say(queue: Queue, lease: Lease | None, reviewer: str, answer: Answer) -> Deferral:
    assert lease is not None
    return await queue.submit(lease.token, reviewer=Identity(name=reviewer), answer=answer, request_id=lease.token)


async def _plant(queue: Queue, parking: MakeParking, reviewer: str, answer: Answer) -> Lease:
    """Have `reviewer` answer an item, and the gold item that was planted by it."""
    await queue.park([parking()])
    await _say(queue, await _take(queue, reviewer), reviewer, Label("3"))
    lease = await _take(queue, reviewer)
    assert lease is not None
    assert lease.deferral.gold is not None
    assert (lease.blind, lease.deferral.prediction, lease.subject) == (True, None, b"a seven")
    await _say(queue, lease, reviewer, answer)
    return lease


async def test_a_gold_item_is_up_next_told_to_nobody_and_counted(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Before what waits longer; no outcome that anybody follows has it, and nothing is left over."""
    queue = open_queue(gold_share=ALWAYS)
    one = await queue.gold.add("digits", _item())
    await queue.park([parking(), parking()])
    await _say(queue, await _take(queue, "ann"), "ann", Label("3"))
    lease = await _take(queue, "ann")
    ended = await _say(queue, lease, "ann", Label("7"))
    assert ended.gold is not None
    assert ended.state is State.RESOLVED
    told = [event.deferral.name for event in await queue.outcomes("digits", "0")]
    assert len(told) == 1
    assert ended.name not in told
    assert {due.deferral.name for due in await queue.due(limit=9)} == set(told)
    found = await queue.gold.state("digits")
    assert (found.answers, found.items) == ({one: Label("7")}, {one: Tried(right=1)})
    assert await queue.reconcile() == []


async def test_nobody_gets_the_same_gold_item_twice(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Neither who answered nor who skipped it; how each did is kept apart."""
    queue = open_queue(gold_share=ALWAYS)
    await queue.gold.add("digits", _item())
    await _plant(queue, parking, "ann", Label("7"))
    await _plant(queue, parking, "bob", Label("1"))
    await queue.park([parking()])
    await _say(queue, await _take(queue, "cy"), "cy", Label("3"))
    lease = await _take(queue, "cy")
    assert lease is not None
    await queue.skip(lease.token, reviewer=Identity(name="cy"), reason="blurred", request_id="skip")
    for again in ("ann", "bob", "cy"):
        assert await _take(queue, again) is None
    await _say(queue, await _take(queue, "dee"), "dee", CantTell())
    for again in ("ann", "bob", "cy", "dee"):
        await queue.park([parking()])
        await _say(queue, await _take(queue, again), again, Label("3"))
        assert await _take(queue, again) is None
    found = await queue.gold.state("digits")
    assert found.all == Tried(right=1, wrong=2)
    assert found.reviewers == {"ann": Tried(right=1), "bob": Tried(wrong=1), "dee": Tried(wrong=1)}


async def test_where_several_are_asked_each_answer_counts(open_queue: OpenQueue) -> None:
    """A gold item asks as many as any other, and a taken-back answer never was."""
    queue = open_queue(gold_share=ALWAYS, reviews_wanted=2, undo_seconds=60.0)
    await queue.gold.add("digits", _item())
    await queue.gold._plant("digits")
    first, second = await _take(queue, "ann"), await _take(queue, "bob")
    assert first is not None
    assert first.deferral.reviews_wanted == 2
    await _say(queue, first, "ann", Label("1"))
    lease = await queue.undo(first.deferral.name, reviewer=Identity(name="ann"), request_id="undo")
    await _say(queue, lease, "ann", Label("7"))
    await _say(queue, second, "bob", Label("7"))
    assert (await queue.gold.state("digits")).all == Tried()
    key = keys.index("digits", "settling")
    (one,) = [member.decode() for member in await queue._store.connection.redis.zrange(key, 0, -1)]
    await queue._store.connection.redis.zadd(key, {one: 1})
    await queue.close_windows(["digits"])
    assert (await queue.gold.state("digits")).reviewers == {"ann": Tried(right=1), "bob": Tried(right=1)}


async def test_without_items_or_a_share_nothing_is_planted(open_queue: OpenQueue, parking: MakeParking) -> None:
    """And one item is planted once at a time, however often it is due."""
    queue = open_queue(gold_share=ALWAYS)
    await queue.park([parking()])
    await _take(queue, "ann")
    assert await _take(queue, "ann") is None
    await queue.gold.add("digits", _item())
    for _ in range(3):
        await queue.gold._plant("digits")
    assert await _take(queue, "ann") is not None
    assert await _take(queue, "ann") is None
    never = open_queue(gold_share=0.0)
    await never.gold.add("digits", _item(b"another"))
    await never.park([parking()])
    assert await _take(never, "bob") is not None
    assert await _take(never, "bob") is None


async def test_what_an_item_found_out_goes_with_it(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Its answer may have been the wrong one: what is planted of it ends, whoever holds it, and counts for nothing."""
    queue = open_queue(gold_share=ALWAYS)
    one = await queue.gold.add("digits", _item())
    await _plant(queue, parking, "ann", Label("1"))
    await queue.gold._plant("digits")
    planted = await _take(queue, "bob")
    await queue.gold.remove("digits", one)
    with pytest.raises(StateError, match="cancelled"):
        await _say(queue, planted, "bob", Label("1"))
    assert await _take(queue, "cy") is None
    found = await queue.gold.state("digits")
    assert (found.answers, found.reviewers, found.all) == ({}, {}, Tried())
    with pytest.raises(NotFoundError, match="no gold item"):
        await queue.gold.remove("digits", one)


async def test_of_an_item_that_is_gone_nothing_is_counted(open_queue: OpenQueue) -> None:
    """Also where one that was planted ends later all the same; what an earlier version left goes with the next one."""
    queue = open_queue(gold_share=ALWAYS)
    redis, tried = queue._store.connection.redis, keys.index("digits", "tried")
    one, other = [await queue.gold.add("digits", _item(subject)) for subject in (b"a seven", b"another")]
    await queue.gold._plant("digits")
    lease = await _take(queue, "ann")
    assert lease is not None
    assert lease.deferral.gold is not None
    gone, kept = (one, other) if lease.deferral.gold.id == one else (other, one)
    await redis.hdel(keys.index("digits", "gold"), gone)
    await redis.hset(tried, mapping={f"{gone} cy": "wrong 1", f"{kept} cy": "right 1"})
    await _say(queue, lease, "ann", Label("7"))
    assert f"{gone} ann".encode() not in await redis.hkeys(tried)
    assert await redis.hget(tried, f"{kept} cy") == b"right 1"
    await queue.gold.remove("digits", kept)
    assert not await redis.exists(tried)


async def test_nothing_is_left_of_a_removed_item_that_could_not_be_erased(
    open_queue: OpenQueue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planted of it loses its subject too, over or not, and even what is planted while it is removed."""
    queue = open_queue(gold_share=ALWAYS)
    one = await queue.gold.add("digits", _item())
    over = await _plant(queue, parking, "ann", Label("7"))
    await queue.gold._plant("digits")
    await queue.gold.remove("digits", one)
    with pytest.raises(NotFoundError, match="was erased"):
        await queue.subject(over.deferral.name)
    await queue.gold.add("digits", _item(b"another"))
    other = _item(b"another").id
    read = queue.gold._item

    async def read_then_removed(name: str, item: str) -> GoldItem | None:
        found = await read(name, item)
        await queue.gold.remove(name, item)
        return found

    monkeypatch.setattr(queue.gold, "_item", read_then_removed)
    await queue.gold._plant("digits")
    assert await queue._store.connection.redis.exists(keys.idempotency("digits", gold.NOBODY, gold._key(other, 0)))
    subjects = {
        await queue._store.connection.redis.get(key) for key in await queue._store.connection.redis.keys("*:subject")
    }
    assert subjects <= {parking().subject}
    assert await _take(queue, "cy") is None
    assert await queue.reconcile() == []


async def test_what_is_erased_is_no_gold_any_more(open_queue: OpenQueue, parking: MakeParking) -> None:
    """Not the item, not what was planted of it: a person's content goes wherever it stands."""
    queue = open_queue(gold_share=ALWAYS)
    await queue.park([parking()])
    lease = await _take(queue, "ann")
    done = await _say(queue, lease, "ann", Label("3"))
    assert lease is not None
    subject = Subject(content=lease.subject, media_type=done.media_type, attributes={})
    await queue.gold.add("digits", gold.item_of(done, subject, None))
    await queue.gold._plant("digits")
    planted = await _take(queue, "bob")
    assert planted is not None
    await queue.erase(done.name, request_id="erase")
    assert (await queue.gold.state("digits")).answers == {}
    for name in (done.name, planted.deferral.name):
        with pytest.raises(NotFoundError):
            await queue.subject(name)
    assert await queue._store.connection.redis.keys("*:o:*") == []
    assert await queue.reconcile() == []


async def test_only_what_can_be_compared_and_answered_becomes_gold(queue: Queue) -> None:
    """The same subject is the same item, whatever its answer."""
    first = await queue.gold.add("digits", _item())
    assert await queue.gold.add("digits", _item(answer=Label("1"))) == first
    assert (await queue.gold.state("digits")).answers == {first: Label("1")}
    box = Boxes((Box(label="7", x=0, y=0, width=1, height=1),))
    for item, problem in (
        (_item(answer=Label("eleven")), "eleven"),
        (_item(answer=box), "answer: expected a label or labels"),
        (_item(answer=Labels(("7",))), "answer"),
        (_item(subject=b""), "subject.content"),
    ):
        with pytest.raises(InvalidError, match=problem):
            await queue.gold.add("digits", item)


async def test_a_deferral_that_people_answered_can_be_kept_as_gold(queue: Queue, parking: MakeParking) -> None:
    """With their answer, unless a better one is known; one without any needs it said."""
    await queue.park([parking()])
    lease = await _take(queue, "ann")
    assert lease is not None
    subject = Subject(content=lease.subject, media_type="image/png", attributes={})
    with pytest.raises(InvalidError, match="answer: expected one"):
        gold.item_of(lease.deferral, subject, None)
    done = await _say(queue, lease, "ann", Label("5"))
    kept = gold.item_of(done, subject, None)
    assert (kept.answer, kept.task, kept.attributes) == (Label("5"), TASK, {"site": "north"})
    assert gold.item_of(done, subject, Label("6")).answer == Label("6")
    assert isinstance(kept.task, Task)


def test_an_old_answer_says_nothing_of_a_reviewer_now() -> None:
    """Only so much later, and never of an item that is gone."""
    found = {"a ann": "right 1000", "a bob": "wrong 5000", "a cy": "skipped 9000", "gone dee": "wrong 9000"}
    state = gold.counted({"a": Label("7")}, found, since=2.0)
    assert state.reviewers == {"bob": Tried(wrong=1)}
    assert state.all == Tried(wrong=1)
