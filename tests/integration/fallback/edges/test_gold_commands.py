"""`demur queue gold ...` against a real service: an operator adds, sees and removes what reviewers are tried by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fallback import gold
from fallback.answer import Identity, Label, Subject
from fallback.client import ReviewClient
from fallback.errors import InvalidError, NotFoundError
from fallback.queue import Queue
from tests.integration.fallback.edges.test_commands import demur_queue
from tests.integration.fallback.edges.test_commands import stack as stack  # noqa: PLC0414 - a fixture


@pytest.mark.usefixtures("stack")
async def test_gold_is_added_from_files_and_from_what_people_answered(
    queue: Queue, settle: Any, tmp_path: Path
) -> None:
    """And shows who was right about it; removed, it is gone with what it found out."""
    (tmp_path / "seven.png").write_bytes(b"\x89PNG\r\n\x1a\n seven")
    with pytest.raises(NotFoundError, match="nothing was ever asked in queue digits"):
        await demur_queue("gold", "add", "digits", str(tmp_path / "seven.png"), "--answer", "7")
    assert "queue digits has no gold items" in await demur_queue("gold", "list", "digits")
    kept = (await demur_queue("gold", "keep", await settle("3"))).split()[-1]
    added = await demur_queue("gold", "add", "digits", str(tmp_path / "seven.png"), "--answer", "7")
    assert added.split()[-1].startswith("queues/digits/gold/")
    with pytest.raises(InvalidError, match="eleven"):
        await demur_queue("gold", "add", "digits", str(tmp_path / "seven.png"), "--answer", "eleven")
    found = json.loads(await demur_queue("gold", "list", "digits", "--json"))
    assert {item["name"]: item["answer"]["label"] for item in found["items"]}[kept] == "3"
    assert (len(found["items"]), found["share"]) == (2, 0.02)
    await demur_queue("gold", "remove", added.split()[-1])
    await queue.gold._plant("digits")
    ann = Identity(name="ann")
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert lease.deferral.gold is not None
    await queue.submit(lease.token, reviewer=ann, answer=Label("4"), request_id="1")
    shown = await demur_queue("gold", "list", "digits")
    assert [line.split() for line in shown.splitlines()][1:] == [
        [kept, "0", "1", "3"],
        ["reviewer", "right", "wrong"],
        ["ann", "0", "1"],
    ]
    await demur_queue("gold", "remove", kept)
    with pytest.raises(NotFoundError, match="no gold item"):
        await demur_queue("gold", "remove", kept)


@pytest.mark.usefixtures("stack")
async def test_gold_of_another_kind_than_the_queue_is_asked_about_is_refused(
    queue: Queue, settle: Any, tmp_path: Path
) -> None:
    """Everybody would see what it is; nothing is added, and both kinds are named."""
    await settle("3")
    (tmp_path / "README.md").write_text("# Seven")
    said = "subject.media_type: expected image/png, as the newest items of queue digits have, got text/markdown"
    with pytest.raises(InvalidError, match=said):
        await demur_queue("gold", "add", "digits", str(tmp_path / "README.md"), "--answer", "7")
    assert (await queue.gold.state("digits")).answers == {}


async def test_nothing_tells_a_reviewer_which_one_is_gold(
    queue: Queue, park: Any, settle: Any, review_address: str
) -> None:
    """Over the wire a gold item that waits or is held reads as any other."""
    other = await queue.get(await settle("7"))
    await queue.gold.add("digits", gold.item_of(other, await _subject(queue, other.name), None))
    await queue.gold._plant("digits")
    await park()
    async with ReviewClient(review_address, identity="ann") as client:
        first, second = await client.lease("digits", limit=2)
        facts = [
            (lease.blind, lease.deferral.prediction, lease.deferral.reasons, lease.deferral.audit)
            for lease in (first, second)
        ]
        assert facts == [(True, None, (), False)] * 2
        for field in ("task", "priority", "attributes", "reviews_wanted", "tier", "media_type", "state", "content"):
            assert getattr(first.deferral, field) == getattr(second.deferral, field), field
        assert first.subject == second.subject


async def _subject(queue: Queue, name: str) -> Subject:
    return Subject(content=await queue.subject(name), media_type="image/png", attributes={})
