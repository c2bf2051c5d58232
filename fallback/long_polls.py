"""Leasing for callers who wait, and who may be gone by the time that something comes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

import structlog

from fallback.answer import Identity
from fallback.deferral import Lease
from fallback.errors import DemurError
from fallback.queue import Queue

# A long poll asks for this long at a time, so that one that nobody waits for any more ends soon.
SLICE_SECONDS: Final = 2.0
# What a call's deadline keeps for the way back.
DEADLINE_MARGIN_SECONDS: Final = 0.25
# Subjects in one reply; what is leased beyond goes back at once. A client must be able to receive it.
LEASE_BYTES_MAX: Final = 32 * 1024 * 1024

log = structlog.get_logger(__name__)


class LongPolls:
    """Those of one process. What is leased for somebody who does not get it goes back to the queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._draining = False
        self._returning: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """Let those who wait have nothing, soon."""
        self._draining = True

    async def close(self) -> None:
        """Wait until everything that nobody took has gone back."""
        while self._returning:
            await asyncio.wait(self._returning)

    async def lease(
        self,
        queue: str,
        reviewer: Identity,
        limit: int,
        wait_seconds: float,
        skills: tuple[str, ...],
        *,
        resume: bool,
    ) -> list[Lease]:
        """Lease in slices until something comes, the time is up, or the service drains."""
        until = time.monotonic() + wait_seconds
        while True:
            left = max(0.0, until - time.monotonic())
            seconds = 0.0 if self._draining else min(left, SLICE_SECONDS)
            leases = await self._lease_once(queue, reviewer, limit, seconds, skills, resume=resume)
            # What they lease elsewhere while this waits is not for taking over.
            resume = False
            if leases or left <= seconds or self._draining:
                return self._fitting(leases, reviewer)

    async def _lease_once(
        self,
        queue: str,
        reviewer: Identity,
        limit: int,
        wait_seconds: float,
        skills: tuple[str, ...],
        *,
        resume: bool,
    ) -> list[Lease]:
        """Lease; when the caller goes meanwhile, what was taken for them goes back."""
        task = asyncio.ensure_future(
            self._queue.lease(
                queue, reviewer=reviewer, limit=limit, wait_seconds=wait_seconds, skills=skills, resume=resume
            )
        )
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._return_when_done(task, reviewer))
            raise

    async def _return_when_done(self, task: asyncio.Future[list[Lease]], reviewer: Identity) -> None:
        try:
            leases = await task
        except DemurError:
            return
        await self._return(leases, reviewer)

    def _fitting(self, leases: list[Lease], reviewer: Identity) -> list[Lease]:
        size = 0
        for count, lease in enumerate(leases):
            size += len(lease.subject)
            if size > LEASE_BYTES_MAX and count > 0:
                self._give_back(leases[count:], reviewer)
                return leases[:count]
        return leases

    def _give_back(self, leases: Sequence[Lease], reviewer: Identity) -> None:
        if leases:
            self._spawn(self._return(leases, reviewer))

    async def _return(self, leases: Sequence[Lease], reviewer: Identity) -> None:
        # What they held before stays theirs; they go on with it another time.
        for lease in (lease for lease in leases if not lease.resumed):
            try:
                await self._queue.release(lease.token, reviewer=reviewer, request_id=uuid.uuid4().hex)
            except DemurError as error:
                log.warning("lease not returned, it will lapse", deferral=lease.deferral.name, error=error.message)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)
