"""Moves outcomes from the queues' streams into the ledger, and their inputs into the contents, in bounded batches.

Contents first, then the row, then the stream is trimmed: whatever dies in between, the next pass finds either nothing
done or something that repeating does not change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from fallback.deferral import Deferral
from fallback.errors import DemurError, NotFoundError
from fallback.queue import OutcomeEvent, Queue
from trainer.config import TrainerSettings
from trainer.contents import Contents
from trainer.ledger import Ledger, cursor_of, position_of

_READS_MAX = 32
_NOTHING = "0-0"
_MILLISECONDS = 1000

log = structlog.get_logger(__name__)


async def follow(queue: Queue, ledger: Ledger, contents: Contents, settings: TrainerSettings) -> int:
    """Take at most one batch of each queue into the ledger; returns how many rows it grew by.

    Raises UnavailableError while Redis is away or the disk refuses; one queue's trouble does not keep the others
    waiting, and is raised when all have had their turn.
    """
    grown, problems = 0, []
    for state in await queue.states():
        try:
            grown += await _follow_one(queue, state.name, ledger, contents, settings)
        except DemurError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    if grown and await asyncio.to_thread(ledger.tidy, files_max=settings.ledger_files_max):
        log.info("merged the ledger's small files")
    return grown


async def _follow_one(queue: Queue, name: str, ledger: Ledger, contents: Contents, settings: TrainerSettings) -> int:
    cursor = await asyncio.to_thread(ledger.cursor, name)
    events = await queue.outcomes(name, cursor, count=settings.ledger_batch_rows_max)
    grown = 0
    await _erase(queue, name, contents)
    if not events:
        await _notice_lost_history(queue, name, ledger, cursor)
    if events:
        await keep_inputs(queue, events, contents)
        grown = await asyncio.to_thread(ledger.append, name, events)
        cursor = events[-1].cursor
        log.info("took outcomes into the ledger", queue=name, rows=grown, cursor=cursor)
    keep = trim_cursor(cursor, now=time.time(), keep_seconds=settings.outcomes_keep_seconds)
    if keep and events:
        await queue.trim_outcomes(name, keep)
    return grown


async def _erase(queue: Queue, name: str, contents: Contents) -> None:
    """Erase what was erased in the queue, here too; a repeat changes nothing. After that it is not kept again."""
    erased = await queue.erasures(name)
    for digest in erased.values():
        await asyncio.to_thread(contents.erase, digest)
    if erased:
        await queue.forget_erasures(name, list(erased))
        log.info("erased contents", queue=name, erased=len(erased))


async def _notice_lost_history(queue: Queue, name: str, ledger: Ledger, cursor: str) -> None:
    """Begin anew where the stream has never come as far as the ledger is: it is another stream than it was."""
    newest = await queue.last_cursor(name)
    if cursor != "0" and newest != _NOTHING and position_of(newest) < position_of(cursor):
        log.warning("the queue's server lost its history; its outcomes are counted anew", queue=name, cursor=cursor)
        await asyncio.to_thread(ledger.begin_history, name)


async def keep_inputs(queue: Queue, events: Sequence[OutcomeEvent], contents: Contents) -> None:
    """Keep the inputs of those outcomes that may be learned from; what Redis no longer has is left out."""
    wanted = [event.deferral for event in events if worth_keeping(event.deferral)]
    for start in range(0, len(wanted), _READS_MAX):
        await asyncio.gather(*(_keep(queue, deferral, contents) for deferral in wanted[start : start + _READS_MAX]))


def worth_keeping(deferral: Deferral) -> bool:
    """Say whether the inputs of a request may teach a model something: a model was asked and a person answered."""
    outcome = deferral.outcome
    return bool(
        deferral.prediction is not None
        and deferral.inputs_digest
        and outcome is not None
        and outcome.reviewed
        and outcome.answer is not None
    )


def trim_cursor(done: str, *, now: float, keep_seconds: float) -> str:
    """Return up to where a stream may be trimmed: what is in the ledger (`done`) and older than the watchers' window.

    `now` in Unix seconds. Empty where nothing may go.
    """
    if done in {"", "0"}:
        return ""
    oldest_kept = max(0, int((now - keep_seconds) * _MILLISECONDS))
    return cursor_of(min(position_of(done), position_of(f"{oldest_kept}-0")))


async def _keep(queue: Queue, deferral: Deferral, contents: Contents) -> None:
    try:
        content = await queue.inputs(deferral.name)
    except NotFoundError as error:
        log.warning("the outcome is kept without inputs", deferral=deferral.name, why=error.message)
        return
    await asyncio.to_thread(contents.put, content)
