"""The loop that drains the outbox: claims what is due, has it told, writes down how it went.

Theory of operation. A claim hides a delivery from other dispatchers for the visibility time; if this process dies, it
comes due again, which is why telling is at least once. What is claimed waits in memory under its endpoint, as much as
that endpoint takes at its pace (`fallback.patience`), and more while half of the room is empty; the rest is put back,
uncounted, for when it may fit, so that no endpoint fills the room of the others however much there is for it. What
waited so long that its claim might not outlast an attempt is put back at once, for whoever is free. Attempts that
take long leave the count of those that others wait for, and are bounded by themselves. How attempts went is collected
while the last lot is being written, and then written at once: a busy dispatcher costs the server few steps, an idle
one no delay.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import structlog

from fallback.callback import Attempt, Caller, NotTold, Told, endpoint_of
from fallback.config import FallbackSettings
from fallback.errors import ConfigError, DemurError
from fallback.outbox import Untold
from fallback.patience import HOLD_SECONDS, Pace, Strain, postpone_max, postponed, retry_after
from fallback.queue import Delivery, Queue

HELD_PER_ATTEMPT: Final = 4
# How long nothing is claimed after nothing was found: while outcomes come, and when none came for a while.
BUSY_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 0.1
IDLE_AFTER_SECONDS: Final = 2.0
AWAY_SECONDS: Final = 1.0
# An attempt that takes longer is counted apart, and there may be this many times as many of them.
SLOW_SECONDS: Final = 1.0
SLOW_PER_ATTEMPT: Final = 8
# One that keeps up may have so much of its pace waiting while there is room: a rush is not put off.
SPARE_SECONDS: Final = 1.0
# What of the room is claimed at once while half of it is taken by what was not started soon.
LOOK_SHARE: Final = 1 / 16
# What a claim must have left, beyond the time of one attempt, when the attempt starts.
CLAIM_MARGIN_SECONDS: Final = 2.0
# Endpoints whose pace is remembered.
ENDPOINTS_MAX: Final = 4_096

log = structlog.get_logger(__name__)


class _Endpoint:
    """What is held for one receiver, and how it is called."""

    def __init__(self, at_once_max: int) -> None:
        self.waiting: deque[tuple[Delivery, float]] = deque()
        self.started = 0
        self.pace = Pace.fresh(at_once_max)
        # Before this moment none is started.
        self.not_before = 0.0
        # When the last of those that were put back may fit; how many they were since when.
        self.line_end = 0.0
        self.line = 0
        self.line_start = 0.0

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.started

    def put_back_old(self, claimed_before: float) -> Iterator[Untold]:
        """Take out what was claimed so long ago that another dispatcher may have it before an attempt ends."""
        while self.waiting and self.waiting[0][1] < claimed_before:
            yield Untold(delivery=self.waiting.popleft()[0], retry_seconds=0.0, reason="")

    def put_back(self, now: float, jitter: Callable[[], float], *, room: int) -> Iterator[Untold]:
        """Take out what it does not take soon, each for when it may fit; `room` is how many may wait if it keeps up."""
        wait = max(0.0, self.not_before - now)
        keep = self.pace.held_max if wait < SLOW_SECONDS else 0
        if self.pace.unhurt and self.waiting and now - self.waiting[0][1] < SPARE_SECONDS:
            keep = max(keep, min(room, int(self.pace.per_second * SPARE_SECONDS)))
        if len(self.waiting) <= keep:
            if self.pace.unhurt:
                self.line_end = 0.0
            return
        horizon = postpone_max(self.line)
        if now - self.line_start > horizon:
            self.line, self.line_start = 0, now
        self.line_end = max(self.line_end, now + wait + keep / self.pace.per_second)
        while len(self.waiting) > keep:
            delivery, _ = self.waiting.pop()
            self.line += 1
            self.line_end = min(self.line_end + 1 / self.pace.per_second, now + horizon)
            yield Untold(delivery=delivery, retry_seconds=postponed(self.line_end - now, jitter()), reason="")


class Dispatcher:
    """One for a process; `run` returns after `stop`, when what was under way has ended and is written down."""

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
        # How old a claim may be when its attempt starts.
        self._age_seconds_max = settings.callback_visibility_seconds - (
            settings.callback_timeout_seconds + CLAIM_MARGIN_SECONDS
        )
        # Below that a claim could be over before its turn came, and again, and again.
        if self._age_seconds_max < HOLD_SECONDS:
            least = settings.callback_timeout_seconds + CLAIM_MARGIN_SECONDS + HOLD_SECONDS
            raise ConfigError(
                "fallback.callback_visibility_seconds: expected at least callback_timeout_seconds + "
                f"{CLAIM_MARGIN_SECONDS + HOLD_SECONDS:g} ({least:g}), got {settings.callback_visibility_seconds:g}"
            )
        self._jitter = jitter
        # The least lately called first.
        self._endpoints: OrderedDict[str, _Endpoint] = OrderedDict()
        # Those of them that something waits for.
        self._waiting: OrderedDict[str, _Endpoint] = OrderedDict()
        self._attempts: dict[asyncio.Task[None], float] = {}
        self._told: list[Delivery] = []
        self._untold: list[Untold] = []
        self._moved = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = False
        self._away = False
        self._active_time = 0.0

    def stop(self) -> None:
        """Claim nothing more; what waits is put back unattempted, for whoever comes next."""
        self._stopping = True
        self._moved.set()

    def wake(self) -> None:
        """Say that there are outcomes to tell."""
        self._moved.set()

    async def run(self, *, drain_seconds: float = 0.0) -> None:
        """Drain the outbox until `stop`, then give attempts under way `drain_seconds`."""
        writing = asyncio.create_task(self._write_all(), name="callbacks written down")
        try:
            while not self._stopping:
                self._moved.clear()
                if not await self._round():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._pause()):
                            await self._moved.wait()
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=drain_seconds)
        finally:
            for task in self._attempts:
                task.cancel()
            await asyncio.gather(*self._attempts, return_exceptions=True)
            self._stopping = True
            for endpoint in self._waiting.values():
                for delivery, _ in endpoint.waiting:
                    self._note(Untold(delivery=delivery, retry_seconds=0.0, reason=""))
            self._ended.set()
            await asyncio.gather(writing, return_exceptions=True)

    def _pause(self) -> float:
        active = time.monotonic() - self._active_time < IDLE_AFTER_SECONDS
        return BUSY_SECONDS if active else IDLE_SECONDS

    async def _round(self) -> bool:
        """Claim what there is room for and start what may start; returns whether there may be more at once."""
        room = self._room()
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
                with suppress(TimeoutError):
                    async with asyncio.timeout(AWAY_SECONDS):
                        await self._moved.wait()
            for delivery in claimed:
                self._take(delivery, before)
        if claimed or self._attempts:
            self._active_time = time.monotonic()
        self._start()
        self._put_back()
        return bool(claimed)

    def _put_back(self) -> None:
        """Give back what will not be started soon, of those first that most waits for."""
        now, half = time.monotonic(), self._settings.callback_concurrency_max * HELD_PER_ATTEMPT // 2
        waiting = sum(len(each.waiting) for each in self._waiting.values())
        for endpoint in sorted(self._waiting.values(), key=lambda each: len(each.waiting), reverse=True):
            held = len(endpoint.waiting)
            for untold in endpoint.put_back(now, self._jitter, room=half - (waiting - held)):
                self._note(untold)
            waiting -= held - len(endpoint.waiting)

    def _room(self) -> int:
        """Return how many may be claimed: what would only be put back stays in the outbox, in its order."""
        most = self._settings.callback_concurrency_max * HELD_PER_ATTEMPT
        waiting = sum(len(each.waiting) for each in self._waiting.values())
        room = most // 2 - waiting
        if room <= 0:
            # Those of others are looked for all the same, unless what waits is soon started.
            oldest = min(each.waiting[0][1] for each in self._waiting.values() if each.waiting)
            room = max(1, int(most * LOOK_SHARE)) if time.monotonic() - oldest > HOLD_SECONDS else 0
        return min(room, most - self._held())

    def _take(self, delivery: Delivery, claim_time: float) -> None:
        if delivery.gone:
            reason = "not attempted: the receiver answered 410 before, which means never again; redeliver to try anew"
            self._note(Untold(delivery=delivery, retry_seconds=None, reason=reason))
            return
        name = endpoint_of(delivery)
        if name not in self._endpoints:
            self._endpoints[name] = _Endpoint(self._settings.callback_concurrency_per_endpoint_max)
            self._forget()
        self._endpoints[name].waiting.append((delivery, claim_time))
        self._waiting[name] = self._endpoints[name]

    def _forget(self) -> None:
        """Forget the paces of those that were not called for the longest time, beyond a bound."""
        if len(self._endpoints) > ENDPOINTS_MAX:
            name = next((name for name, each in self._endpoints.items() if each.idle), None)
            if name is not None:
                del self._endpoints[name]

    def _held(self) -> int:
        waiting = sum(len(each.waiting) for each in self._waiting.values())
        return waiting + self._quick() + len(self._told) + len(self._untold)

    def _quick(self) -> int:
        """Return how many attempts have not yet shown that they take long."""
        since = time.monotonic() - SLOW_SECONDS
        return sum(start > since for start in self._attempts.values())

    def _start(self) -> None:
        """Start attempts within all bounds, the endpoints taking turns."""
        if self._stopping:
            return
        now, quick = time.monotonic(), self._quick()
        for endpoint in self._waiting.values():
            for untold in endpoint.put_back_old(now - self._age_seconds_max):
                self._note(untold)
        most = self._settings.callback_concurrency_max
        crowded = len(self._attempts) - quick >= most * SLOW_PER_ATTEMPT
        ready = deque(self._waiting)
        while ready and quick < most:
            name = ready.popleft()
            endpoint = self._waiting[name]
            if crowded and endpoint.pace.attempt_seconds > SLOW_SECONDS:
                continue
            if endpoint.waiting and endpoint.started < endpoint.pace.at_once and now >= endpoint.not_before:
                quick += 1
                self._start_one(endpoint, now)
                self._endpoints.move_to_end(name)
                if endpoint.waiting:
                    self._waiting.move_to_end(name)
                    ready.append(name)
        for name in [name for name, each in self._waiting.items() if not each.waiting]:
            del self._waiting[name]

    def _start_one(self, endpoint: _Endpoint, now: float) -> None:
        delivery, _ = endpoint.waiting.popleft()
        endpoint.started += 1
        endpoint.not_before = now + endpoint.pace.pause_seconds
        task = asyncio.get_running_loop().create_task(self._attempt(endpoint, delivery))
        self._attempts[task] = now
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._attempts[task]
        self._start()
        self._moved.set()

    async def _attempt(self, endpoint: _Endpoint, delivery: Delivery) -> None:
        attempt: Attempt = NotTold(reason="internal error")
        start = time.monotonic()
        try:
            attempt = await self._caller.call(delivery)
        except Exception:  # the root of one attempt: its fate is its own
            log.exception("callback attempt", id=delivery.id)
        finally:
            endpoint.started -= 1
        now = time.monotonic()
        if isinstance(attempt, Told):
            endpoint.pace = endpoint.pace.after(Strain.NONE, now - start)
            self._note(delivery)
            return
        endpoint.pace = endpoint.pace.after(attempt.strain, now - start)
        if attempt.strain is not Strain.NONE:
            asked = attempt.retry_after_seconds if attempt.strain is Strain.THROTTLED else 0.0
            endpoint.not_before = max(endpoint.not_before, now + max(endpoint.pace.pause_seconds, asked))
        self._failed(delivery, attempt)

    def _failed(self, delivery: Delivery, attempt: NotTold) -> None:
        seconds = None
        if not attempt.final:
            seconds = retry_after(
                delivery.attempt,
                self._jitter(),
                self._settings.callback_retry_seconds,
                asked_seconds=attempt.retry_after_seconds,
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
        self._note(Untold(delivery=delivery, retry_seconds=seconds, reason=attempt.reason, gone=attempt.gone))

    def _note(self, ended: Delivery | Untold) -> None:
        """Leave for the writer how it went."""
        if isinstance(ended, Delivery):
            self._told.append(ended)
        else:
            self._untold.append(ended)
        self._ended.set()

    async def _write_all(self) -> None:
        """Write down how attempts went, all that ended since the last writing at once, until all are over."""
        while self._told or self._untold or not self._stopping or self._attempts:
            await self._ended.wait()
            self._ended.clear()
            told, untold = self._told, self._untold
            self._told, self._untold = [], []
            try:
                await self._queue.write_told(told, untold)
            except DemurError as error:
                # Not written down: the claims lapse and they are told again, with the same ids.
                log.warning("callbacks not written down", count=len(told) + len(untold), error=error.message)
            except Exception:  # the root of this task: the next ones must be written down all the same
                log.exception("callbacks not written down", count=len(told) + len(untold))
            self._moved.set()
