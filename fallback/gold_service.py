"""The part of demur.v1.ReviewService that is about gold items; for operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog

from demur.v1 import review_pb2 as pb
from fallback.answer import Answer, Identity, Subject
from fallback.deferral import Deferral
from fallback.errors import InvalidError, NotFoundError
from fallback.gold import SUBJECT_BYTES_MAX, GoldItem, Tried, item_of
from fallback.queue import Queue
from fallback.store import NAME_CHARS_MAX
from fallback.wire import (
    answer_from_wire,
    answer_to_wire,
    name_from_wire,
    queue_from_wire,
    subject_from_wire,
    task_from_wire,
)

# A queue may be asked about files of several kinds: its newest items say which.
_NEWEST_MAX: Final = 50

log = structlog.get_logger(__name__)


async def add(queue: Queue, request: pb.AddGoldRequest, operator: Identity) -> pb.GoldItem:
    """Add an item as it is asked for; raises InvalidError, NotFoundError or FullError."""
    name = queue_from_wire("queue", request.queue)
    answer = answer_from_wire(request.answer) if request.HasField("answer") else None
    match request.WhichOneof("source"):
        case "deferral":
            item = await _kept(queue, name, request.deferral, answer)
        case "subject":
            item = await _made(queue, name, request, answer)
        case _:
            raise InvalidError("deferral: expected this or subject, got neither")
    one = await queue.gold.add(name, item)
    log.info("gold item added", queue=name, item=one, by=operator.name)
    return pb.GoldItem(name=f"queues/{name}/gold/{one}", answer=answer_to_wire(item.answer))


async def listing(queue: Queue, request: pb.ListGoldRequest, *, share: float) -> pb.ListGoldResponse:
    """Return a queue's items, and how people did."""
    name = queue_from_wire("queue", request.queue)
    state = await queue.gold.state(name)
    return pb.ListGoldResponse(
        items=[
            pb.GoldItem(name=f"queues/{name}/gold/{one}", answer=answer_to_wire(answer), tried=_tried(state.items[one]))
            for one, answer in state.answers.items()
        ],
        reviewers={reviewer: _tried(found) for reviewer, found in state.reviewers.items()},
        tried=_tried(state.all),
        share=share,
    )


async def remove(queue: Queue, request: pb.RemoveGoldRequest, operator: Identity) -> pb.RemoveGoldResponse:
    """Take an item away; raises NotFoundError."""
    parts = request.name.split("/") if len(request.name) <= NAME_CHARS_MAX else []
    match parts:
        case ["queues", name, "gold", one] if one.isascii() and one.isalnum():
            await queue.gold.remove(queue_from_wire("name", f"queues/{name}"), one)
        case _:
            raise InvalidError(f"name: expected queues/<queue>/gold/<id>, got {request.name[:100]!r}")
    log.info("gold item removed", item=request.name, by=operator.name)
    return pb.RemoveGoldResponse()


async def _kept(queue: Queue, name: str, deferral_name: str, answer: Answer | None) -> GoldItem:
    owner, _ = name_from_wire("deferral", deferral_name)
    if owner != name:
        raise InvalidError(f"deferral: expected one of queue {name}, got {deferral_name[:NAME_CHARS_MAX]!r}")
    deferral = await queue.get(deferral_name)
    content = await queue.subject(deferral_name)
    subject = Subject(content=content, media_type=deferral.media_type, attributes=deferral.attributes)
    return item_of(deferral, subject, answer)


async def _made(queue: Queue, name: str, request: pb.AddGoldRequest, answer: Answer | None) -> GoldItem:
    if answer is None:
        raise InvalidError("answer: expected one, for a subject that nobody was asked about")
    subject = subject_from_wire(request.subject, bytes_max=SUBJECT_BYTES_MAX)
    if request.HasField("task"):
        task = task_from_wire(request.task)
    else:
        newest, _ = await queue.list_deferrals(name, page_size=_NEWEST_MAX)
        if not newest:
            raise NotFoundError(f"task: expected one, since nothing was ever asked in queue {name}")
        task = newest[0].task
        _check_like(newest, name, subject)
    return GoldItem(
        task=task,
        answer=answer,
        subject=subject.content,
        media_type=subject.media_type,
        attributes=dict(subject.attributes),
    )


def _check_like(newest: Sequence[Deferral], name: str, subject: Subject) -> None:
    """Raise InvalidError for a subject of a kind that is not asked about: everybody would see that it is gold."""
    known = sorted({deferral.media_type for deferral in newest if deferral.task == newest[0].task})
    if subject.media_type not in known:
        asked = " or ".join(each or "none" for each in known)
        raise InvalidError(
            f"subject.media_type: expected {asked}, as the newest items of queue {name} have, "
            f"got {subject.media_type or 'none'}; or give a task of its own"
        )


def _tried(found: Tried) -> Any:
    return pb.Tried(right=found.right, wrong=found.wrong)
