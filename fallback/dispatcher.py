"""The loop that drains the outbox: claims what is due, has it told, writes down how it went.

Theory of operation. A claim hides a delivery from other dispatchers for the visibility time; if this process dies, it
comes due again, which is why telling is at least once. What is claimed waits in memory under its endpoint; an endpoint
has a bounded number of attempts under way, and so have all together. While everything moves, claiming stops when
enough is held. An endpoint that fails or takes long may not fill that room: what waits for it is put back with the
same patience as after a failed attempt, so that others are told in time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, assert_never

import structlog

from fallback.callback import Attempt, Backoff, Caller, NotTold, Told, endpoint_of, retry_after
from fallback.config import FallbackSettings
from fallback.errors import ConfigError, DemurError
from fallback.queue import Delivery, Queue

HELD_PER_ATTEMPT: Final = 4
IDLE_SECONDS: Final = 0.1
AWAY_SECONDS: Final = 1.0
# An attempt that takes longer makes its endpoint a slow one.
SLOW_SECONDS: Final = 1.0
# What a claim must have left, beyond the time of one attempt, when the attempt starts.
CLAIM_MARGIN_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


class _Endpoint:
    """What is held for one receiver."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Delivery, float]] = deque()
        self.started: dict[str, float] = {}
        self.failing = False

    def slow(self, now: float) -> bool:
        """Say whether waiting for this one would hold up the others."""
        return self.failing or any(now - start > SLOW_SECONDS for start in self.started.values())

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.started


class Dispatcher:
    """One for a process; `run` returns after `stop`, when what was under way has ended."""

    def __init__(
        self,
        queue: Queue,
        caller: Caller,
        settings: FallbackSettings,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._caller = caller
        self._settings = settings
        self._backoff = Backoff(
            attempts_max=settings.callback_attempts_max,
            seconds=settings.callback_backoff_seconds,
            seconds_max=settings.callback_backoff_seconds_max,
        )
        # How old a claim may be when its attempt starts.
        self._age_seconds_max = settings.callback_visibility_seconds - (
            settings.callback_timeout_seconds + CLAIM_MARGIN_SECONDS
        )
        if self._age_seconds_max <= 0:
            raise ConfigError(
                "fallback.callback_visibility_seconds: expected more than callback_timeout_seconds + "
                f"{CLAIM_MARGIN_SECONDS:g} ({settings.callback_timeout_seconds + CLAIM_MARGIN_SECONDS:g}), "
                f"got {settings.callback_visibility_seconds:g}"
            )
        self._jitter = jitter
        self._endpoints: dict[str, _Endpoint] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._stopping = False
        self._away = False

    def stop(self) -> None:
        """Claim nothing more; what waits goes unattempted and comes due again."""
        self._stopping = True
        self._moved.set()

    async def run(self, *, drain_seconds: float = 0.0) -> None:
        """Drain the outbox until `stop`, then give attempts under way `drain_seconds`."""
        try:
            while not self._stopping:
                self._moved.clear()
                if not await self._round():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._moved.wait(), IDLE_SECONDS)
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=drain_seconds)
        finally:
            for task in self._attempts:
                task.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)

    async def _round(self) -> bool:
        """Claim what there is room for and start what may start; returns whether there may be more at once."""
        await self._shed()
        room = self._settings.callback_concurrency_max * HELD_PER_ATTEMPT - self._held()
        claimed: list[Delivery] = []
        if room > 0:
            before = time.monotonic()
            try:
                claimed = await self._queue.due(limit=room)
                self._away = False
            except DemurError as error:
                if not self._away:
                    log.warning("cannot read the outbox", error=error.message)
                self._away = True
                await asyncio.sleep(AWAY_SECONDS)
            for delivery in claimed:
                self._endpoints.setdefault(endpoint_of(delivery), _Endpoint()).waiting.append((delivery, before))
        self._start()
        return bool(claimed)

    def _held(self) -> int:
        return sum(len(each.waiting) + len(each.started) for each in self._endpoints.values())

    def _start(self) -> None:
        """Start attempts within both bounds, the endpoints taking turns."""
        for name in [name for name, each in self._endpoints.items() if each.idle]:
            del self._endpoints[name]
        ready = deque(self._endpoints.values())
        while ready and len(self._attempts) < self._settings.callback_concurrency_max:
            endpoint = ready.popleft()
            if endpoint.waiting and len(endpoint.started) < self._settings.callback_concurrency_per_endpoint_max:
                self._start_one(endpoint)
                ready.append(endpoint)

    def _start_one(self, endpoint: _Endpoint) -> None:
        delivery, claim_time = endpoint.waiting.popleft()
        if time.monotonic() - claim_time > self._age_seconds_max:
            return  # another dispatcher may have it by the time this attempt ends; it comes due again
        endpoint.started[delivery.id] = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._attempt(endpoint, delivery))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        task.add_done_callback(lambda _: self._moved.set())

    async def _attempt(self, endpoint: _Endpoint, delivery: Delivery) -> None:
        attempt: Attempt = NotTold(reason="internal error")
        try:
            attempt = await self._caller.call(delivery)
        except Exception:  # the root of one attempt: its fate is its own
            log.exception("callback attempt", id=delivery.id)
        finally:
            endpoint.started.pop(delivery.id, None)
        endpoint.failing = isinstance(attempt, NotTold)
        await self._write(delivery, attempt)

    async def _shed(self) -> None:
        """Put back what waits for slow endpoints, but for one more turn of each."""
        now = time.monotonic()
        keep = self._settings.callback_concurrency_per_endpoint_max
        for endpoint in list(self._endpoints.values()):
            while endpoint.slow(now) and len(endpoint.waiting) > keep:
                delivery, _ = endpoint.waiting.pop()
                await self._write(delivery, NotTold(reason="not attempted: the receiver is slow or fails"))

    async def _write(self, delivery: Delivery, attempt: Attempt) -> None:
        try:
            match attempt:
                case Told():
                    await self._queue.delivered(delivery)
                case NotTold():
                    await self._failed(delivery, attempt)
                case _:
                    assert_never(attempt)
        except DemurError as error:
            # Not written down: the claim lapses and it is told again, with the same id.
            log.warning("callback not written down", id=delivery.id, error=error.message)

    async def _failed(self, delivery: Delivery, attempt: NotTold) -> None:
        seconds = None
        if not attempt.final:
            seconds = retry_after(
                delivery.attempt, self._jitter(), self._backoff, asked_seconds=attempt.retry_after_seconds
            )
        level = log.info if seconds is not None else log.warning
        level(
            "callback failed",
            id=delivery.id,
            deferral=delivery.deferral.name,
            attempt=delivery.attempt,
            reason=attempt.reason,
            retry_seconds=seconds,
        )
        await self._queue.failed(delivery, retry_seconds=seconds, reason=attempt.reason)
