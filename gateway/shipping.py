"""Takes what waits in the spools to where it belongs: rows to the certifier's stream, audits to their queue.

Two tasks a model, so that a queue that is full keeps no row waiting. Whatever fails is tried again: rows until the
stream has them; audits for ever while Redis is away, and else for about an hour, until they are given up: then their
label never comes, which counts as an error. A row that was sent may be sent again after a crash, and an audit parked
again under its key, which the queue knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final

import structlog

from fallback.arrivals import Arrivals
from fallback.deferral import Parking
from fallback.ending import end_all
from fallback.errors import DemurError, FullError, UnavailableError
from fallback.queue import Parked, Queue
from gateway.adoption import adopt
from gateway.hold_off import HoldOff
from gateway.internal import told
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from gateway.unparked import Unparked

LOOK_SECONDS: Final = 0.2
ADOPT_SECONDS: Final = 60.0
# How long a gateway that stops goes on with what it has; the rest is for whoever starts next.
LAST_SECONDS: Final = 3.0
_PAUSE_SECONDS_MAX: Final = 5.0
_PARK_PAUSE_SECONDS_MAX: Final = 60.0
# With these pauses about an hour.
_TRIES_MAX: Final = 70

log = structlog.get_logger(__name__)


class Recorders:
    """The recorders of all models of one gateway. Thread-safe."""

    def __init__(self, root: Path, *, bytes_max: int, keys_max: int) -> None:
        self.root = root
        self.bytes_max = bytes_max
        self._keys_max = keys_max
        self._recorders: dict[str, Recorder] = {}

    def of(self, model: str) -> Recorder:
        """Return a model's recorder; it touches the disk once something is recorded."""
        fresh = Recorder(model, root=self.root, bytes_max=self.bytes_max, keys_max=self._keys_max)
        return self._recorders.setdefault(model, fresh)

    def all(self) -> list[Recorder]:
        """Return those there are."""
        return [*self._recorders.values()]


class Shipping:
    """The tasks; belongs to one event loop. `rejoin_seconds`: after how long a silence a gateway takes another name."""

    def __init__(
        self,
        *,
        recorders: Recorders,
        arrivals: Arrivals,
        queue: Queue,
        metrics: Metrics,
        rejoin_seconds: float,
        hold_off: HoldOff,
        unparked: Unparked,
    ) -> None:
        self._hold_off = hold_off
        self._unparked = unparked
        self._recorders = recorders
        self._arrivals = arrivals
        self._queue = queue
        self._metrics = metrics
        self._rejoin_seconds = rejoin_seconds
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._knocks: dict[str, asyncio.Task[None]] = {}

    async def adopt(self) -> None:
        """Take over what dead gateways left on this machine."""
        recorders = self._recorders
        for found in await asyncio.to_thread(adopt, recorders.root, bytes_max=recorders.bytes_max):
            recorders.of(found.model).adopt(found.shipment, found.recorded)

    async def run(self) -> None:
        """Go on until cancelled."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            try:
                for recorder in self._recorders.all():
                    if recorder.shipments and recorder.model not in self._tasks:
                        self._begin(recorder)
                self._knock()
                if loop.time() >= looked + ADOPT_SECONDS:
                    looked = loop.time()
                    await self.adopt()
            except Exception as error:  # noqa: BLE001 - the root of the task: who is held off waits for it
                told(error, where="shipping")
            await asyncio.sleep(LOOK_SECONDS)

    def _knock(self) -> None:
        """Find out which servers are back, without a request that would count as an error if its queue's is not.

        Each by itself: of a cluster's servers one may hang.
        """
        for queue in self._hold_off.away:
            if queue not in self._knocks:
                self._knocks[queue] = asyncio.create_task(self._ask(queue))

    async def _ask(self, queue: str) -> None:
        """Ask a queue's server something; content that lies elsewhere may be away for longer."""
        try:
            await self._queue.last_cursor(queue)
            self._hold_off.heard(queue)
        except DemurError:
            return
        except Exception as error:  # noqa: BLE001 - the root of the task: it is asked again
            told(error, where="knocking", queue=queue)
        finally:
            del self._knocks[queue]

    async def close(self) -> None:
        """End every name in good order, and send and park what can be, for a few seconds at most."""
        await end_all([*(task for tasks in self._tasks.values() for task in tasks), *self._knocks.values()])
        recorders = self._recorders.all()
        for recorder in recorders:
            try:
                recorder.close()
            except DemurError as error:
                log.warning("this gateway's end could not be written", model=recorder.model, error=error.message)
        works = (work(recorder) for recorder in recorders for work in (self._send_all, self._park_all))
        if last := {asyncio.create_task(_tried(work)) for work in works}:
            _, left = await asyncio.wait(last, timeout=LAST_SECONDS)
            await end_all(left)
        for recorder in recorders:
            for shipment in recorder.shipments:
                if shipment.done:
                    recorder.drop(shipment)
                else:
                    shipment.spool.close()

    def _begin(self, recorder: Recorder) -> None:
        self._metrics.spool_bytes.labels(recorder.model).set_function(lambda: recorder.spool_bytes)
        works = (self._go_on(recorder, self._ship), self._go_on(recorder, self._park_all))
        self._tasks[recorder.model] = [asyncio.create_task(work) for work in works]

    async def _go_on(self, recorder: Recorder, work: Callable[[Recorder], Awaitable[None]]) -> None:
        pause = LOOK_SECONDS
        while True:
            try:
                await work(recorder)
                pause = LOOK_SECONDS
            except DemurError as error:
                self._metrics.redis_errors.labels("ship").inc()
                if pause == LOOK_SECONDS:
                    log.warning("evidence waits on this machine", model=recorder.model, error=error.message)
                pause = min(2 * pause, _PAUSE_SECONDS_MAX)
            except Exception as error:  # noqa: BLE001 - the root of the task: evidence that nobody sends stops every certificate
                told(error, where="shipping", model=recorder.model)
                pause = _PAUSE_SECONDS_MAX
            await asyncio.sleep(pause)

    async def _ship(self, recorder: Recorder) -> None:
        await asyncio.to_thread(recorder.tick, rejoin_seconds=self._rejoin_seconds)
        await self._tell_unparked(recorder)
        await self._send_all(recorder)
        for shipment in recorder.shipments:
            if shipment.done:
                await asyncio.to_thread(recorder.drop, shipment)

    async def _tell_unparked(self, recorder: Recorder) -> None:
        """Write down which records nobody will be asked about; where there is no room now, later."""
        if places := self._unparked.due(recorder.model):
            with contextlib.suppress(DemurError):
                await asyncio.to_thread(recorder.unparked, places)
                self._unparked.told(recorder.model, places)

    async def _send_all(self, recorder: Recorder) -> None:
        """Send what is there, one gateway's after the other's."""
        for shipment in recorder.shipments:
            while not shipment.shipped:
                rows, after = await asyncio.to_thread(shipment.rows)
                await self._arrivals.add(recorder.model, [row for row, _ in rows])
                await asyncio.to_thread(recorder.sent, shipment, rows, after)

    async def _park_all(self, recorder: Recorder) -> None:
        """Park the audits that are there."""
        for shipment in recorder.shipments:
            while not shipment.parked:
                audits, after = await asyncio.to_thread(shipment.audits)
                await self._park(recorder.model, audits)
                await asyncio.to_thread(shipment.settled, after)

    async def _park(self, model: str, audits: Sequence[Parking]) -> None:
        """Park `audits`, until each is parked or given up."""
        left, tries, pause = audits, 0, LOOK_SECONDS
        while left:
            verdicts = await self._queue.park(left)
            failed: list[tuple[Parking, DemurError]] = []
            for audit, verdict in zip(left, verdicts, strict=True):
                if isinstance(verdict, Parked):
                    self._metrics.audits.labels(model).inc(verdict.created)
                else:
                    failed.append((audit, verdict))
            if not failed:
                return
            self._metrics.redis_errors.labels("audit").inc(len(failed))
            away = any(isinstance(error, UnavailableError) for _, error in failed)
            tries += not away
            left = self._retried(model, failed, last=tries >= _TRIES_MAX)
            if left:
                if pause == LOOK_SECONDS:
                    log.warning("audits wait on this machine", model=model, count=len(left), error=failed[0][1].message)
                pause = min(2 * pause, _PAUSE_SECONDS_MAX if away else _PARK_PAUSE_SECONDS_MAX)
                await asyncio.sleep(pause)

    def _retried(self, model: str, failed: Sequence[tuple[Parking, DemurError]], *, last: bool) -> list[Parking]:
        """Return which audits are tried again: those that meet a server that is away, or, unless `last`, a limit."""
        left = []
        for audit, error in failed:
            if isinstance(error, UnavailableError) or (isinstance(error, FullError) and not last):
                left.append(audit)
            else:
                self._metrics.audits_lost.labels(model).inc()
                place = audit.draw.place if audit.draw is not None else ""
                log.error("an audit is given up; it will count as an error", model=model, place=place, error=str(error))
        return left


async def _tried(work: Coroutine[None, None, None]) -> None:
    """Do what can be done; the rest is for whoever starts next."""
    with contextlib.suppress(DemurError):
        await work
