"""Content that is erased before its time: gone for good, from both places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fallback import keys
from fallback.answer import CantTell, Identity
from fallback.deferral import Content, Deferral, State
from fallback.errors import NotFoundError, StateError
from fallback.queue import Queue
from fallback.store import parse
from tests.integration.fallback.blobs.contents import INPUTS, SUBJECT, contents_in_redis, with_cant_tell
from tests.queueing import MakeParking, park


@pytest.mark.parametrize("when", ["open", "held", "resolved"])
async def test_erased_content_is_gone_for_good(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity, when: str, files: Callable[[], list[Path]]
) -> None:
    """Subject, inputs and drafts go from both places; state, digests, counts, comments stay; a repeat says the same."""
    task = type(parking().task)(**with_cant_tell(parking().task))
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS, task=task))
    before = await queue.get(name)
    if when != "open":
        (lease,) = await queue.lease("digits", reviewer=ann)
        await queue.save_draft(lease.token, reviewer=ann, draft='"a name"', request_id="d")
        if when == "resolved":
            await queue.submit(lease.token, reviewer=ann, answer=CantTell(), comment="blurred", request_id="s")
        before = await queue.get(name)
    erased = await queue.erase(name, request_id="e")
    assert erased == _like(before, content=Content.ERASED)
    assert await queue.erase(name, request_id="e") == erased
    assert await queue.erase(name, request_id="another") == erased
    assert (await contents_in_redis(queue), files()) == ([], [])
    assert not await queue._store.connection.redis.exists(keys.drafts(*parse(name)))
    for read in (queue.subject, queue.inputs):
        with pytest.raises(NotFoundError, match="was erased"):
            await read(name)
    if when == "held":
        with pytest.raises(StateError, match="its content was erased"):
            await queue.save_draft(lease.token, reviewer=ann, draft='"a name"', request_id="d2")
        assert not await queue._store.connection.redis.exists(keys.drafts(*parse(name)))
    if when == "open":
        (lease,) = await queue.lease("digits", reviewer=bob)
        assert (lease.subject, lease.deferral.content) == (b"", Content.ERASED)
        done = await queue.submit(lease.token, reviewer=bob, answer=CantTell(), request_id="b")
        assert (done.state, done.content) == (State.RESOLVED, Content.ERASED)
    assert await queue.reconcile() == []


def _like(deferral: Deferral, **changes: Any) -> Deferral:
    return msgspec.structs.replace(deferral, **changes)


async def test_small_content_is_erased_as_well(queue: Queue, parking: MakeParking) -> None:
    """Where it stands beside its record; what is not there cannot be erased."""
    name = await park(queue, parking())
    assert (await queue.erase(name, request_id="1")).content is Content.ERASED
    assert await contents_in_redis(queue) == []
    with pytest.raises(NotFoundError):
        await queue.erase("queues/digits/deferrals/nosuch", request_id="2")


async def test_a_process_killed_while_erasing_leaves_its_file_to_the_sweep(
    open_queue: Callable[..., Queue], parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """The record says that it is erased; a file that is still there goes although the record stands."""
    queue = open_queue(orphan_seconds=1)
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS))
    await queue._store.run("erase", *parse(name), "")  # ... and dies before it deletes the files
    await queue.reap()
    await asyncio.sleep(1.2)
    await queue.reap()
    assert (await contents_in_redis(queue), files()) == ([], [])
    assert (await queue.get(name)).content is Content.ERASED
