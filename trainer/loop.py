"""`demur train --watch`: keeps the ledger and the certificates, and retrains a model when people said enough new of it.

Three tasks that do not wait for each other: one follows the queues' outcomes into the ledger, one certifies, one
retrains. Each has its own back-off, so that the ledger goes on while the gateway is away. What is left to do is read
from the ledger, the chains and the reports each time; nothing is lost with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final

import structlog

from fallback.arrivals import Arrivals
from fallback.config import Config
from fallback.documents import Documents
from fallback.errors import DemurError, StateError
from fallback.queue import Queue
from gateway.model_client import ModelClient
from trainer import dataset, ledger, retrain, shadowing
from trainer.certify import REACHED_SECONDS, Certify, Progress
from trainer.config import TrainerSettings
from trainer.follow import follow
from trainer.retrain import FOLDER, Rooms

_BACKOFF_SECONDS: Final = 0.5
# Any key's server will do to ask for the time.
_CLOCK: Final = "clock"

log = structlog.get_logger(__name__)


async def watch(config: Config, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
    """Run until `stop` is set; calls `ready` once this process is the ledger's writer."""
    rooms = Rooms.open(config)
    settings = rooms.settings
    async with _writer(rooms, stop), contextlib.AsyncExitStack() as closing:
        if stop.is_set():
            return
        queue, arrivals, documents = Queue.connect(config), Arrivals.connect(config), Documents.connect(config)
        for connected in (queue, arrivals, documents):
            closing.push_async_callback(connected.close)
        progress = Progress(last_row=await asyncio.to_thread(rooms.ledger.last_row))
        certifiers = Certify(
            config=config, rooms=rooms, arrivals=arrivals, documents=documents, progress=progress, golds=queue.gold
        )
        ready()
        grown = asyncio.Event()
        grown.set()

        async def take() -> bool:
            began = await arrivals.time(_CLOCK)
            rows = await follow(queue, rooms.ledger, rooms.contents, settings)
            whole = rows < settings.ledger_batch_rows_max
            await _note(rooms, progress, rows=rows, reached=began - REACHED_SECONDS if whole else progress.reached)
            if rows:
                grown.set()
            # A batch that was not full took all there was: a commit for each single outcome would help nobody.
            return not whole

        async def learn() -> bool:
            if not grown.is_set():
                return False
            grown.clear()
            try:
                async with retrain.client(config) as gateway:
                    return await retrain_due(rooms, gateway, certifiers.alarms(), certifiers.challenged())
            except BaseException:
                grown.set()
                raise

        async def certify() -> bool:
            more = await certifiers.step()
            if certifiers.rang():
                grown.set()
            return more

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat("ledger", take, stop, settings))
            tasks.create_task(repeat("certificates", certify, stop, settings))
            learning = tasks.create_task(repeat("retraining", learn, stop, settings))
            await stop.wait()
            # A batch of outcomes is finished; a retraining is begun again by the next start.
            learning.cancel()


async def _note(rooms: Rooms, progress: Progress, *, rows: int, reached: int) -> None:
    """Say how far the ledger is, once every queue was read to its end."""
    if rows:
        progress.last_row = await asyncio.to_thread(rooms.ledger.last_row)
    progress.reached = reached


async def repeat(
    what: str, step: Callable[[], Awaitable[bool]], stop: asyncio.Event, settings: TrainerSettings
) -> None:
    """Do `step` again and again until `stop`: at once while it got something done, else after a pause.

    An error is logged and tried again after a back-off that doubles; one that nobody foresaw ends the process, which
    its supervisor starts again.
    """
    failures = 0
    while not stop.is_set():
        try:
            pause = 0.0 if await step() else settings.poll_seconds
            failures = 0
        except DemurError as error:
            failures += 1
            pause = backoff(failures, seconds_max=settings.backoff_seconds_max)
            log.warning("failed; will be tried again", what=what, error=error.message, retry_seconds=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause or 0.001)


def backoff(failures: int, *, seconds_max: float) -> float:
    """Return how long to wait after that many failures in a row, in seconds: doubling, up to `seconds_max`."""
    return min(seconds_max, _BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30))


async def retrain_due(
    rooms: Rooms,
    gateway: ModelClient,
    alarms: Mapping[str, int] = MappingProxyType({}),
    challenged: Collection[str] = (),
) -> bool:
    """Retrain every model that has enough new labels, or any since an alarm (its second, by model); True where one was.

    Of the models that are `challenged` by a retrained version in shadow, that one is looked after first.
    One model's trouble does not keep the others waiting: it is raised when all have had their turn.
    """
    did, problems = False, []
    for model in await asyncio.to_thread(rooms.registry.models):
        try:
            labels = await asyncio.to_thread(new_labels, rooms, model)
            rung = labels > 0 and alarm_due(rooms, model, alarms.get(model))
            if model in challenged and not rung and await shadowing.go_on(rooms, gateway, model):
                continue
            if labels < rooms.settings.retrain_after_reviews and not rung:
                continue
            why = f"{labels} new labels" + (" after an alarm" if rung else "")
            await retrain.retrain(rooms, model, gateway, why=why)
            did = True
        except DemurError as error:
            problems.append(error)
        except Exception:
            # What nobody foresaw in one model must end neither the ledger nor the other models.
            log.exception("retraining failed for a reason that nobody foresaw", model=model)
            problems.append(DemurError(f"{model} could not be retrained: internal error, see the log"))
    if problems:
        raise problems[0]
    return did


def alarm_due(rooms: Rooms, model: str, second: int | None) -> bool:
    """Return whether an alarm rang (at `second`) after the model was last trained."""
    if second is None:
        return False
    report = rooms.reports.last(model)
    return report is None or report.create_time.timestamp() < second


def new_labels(rooms: Rooms, model: str) -> int:
    """Count the labels that people gave since `model` was last trained; 0 where its manifest forbids training.

    At most `examples_max` rows are read: what is older would not be trained on either.
    """
    versions = rooms.registry.versions(model)
    if not versions or not versions[-1].manifest.training.enabled:
        return 0
    newest = versions[-1]
    report = rooms.reports.last(model)
    seen = max(retrain.trained_row(rooms, newest) or 0, report.ledger_row if report else 0)
    rows = rooms.ledger.rows(model, after=seen, limit=rooms.settings.examples_max)
    return dataset.labelled(rows, newest.manifest.labels)


async def catch_up(config: Config, rooms: Rooms) -> int:
    """Take what waits into the ledger, unless a watching trainer does that; returns how many rows it grew by."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(ledger.locked(rooms.data / FOLDER / ledger.LOCK))
        except StateError:
            return 0
        queue = Queue.connect(config)
        try:
            total = 0
            while grown := await follow(queue, rooms.ledger, rooms.contents, rooms.settings):
                total += grown
            return total
        finally:
            await queue.close()


@contextlib.asynccontextmanager
async def _writer(rooms: Rooms, stop: asyncio.Event) -> AsyncIterator[None]:
    """Become the one writer of the ledger, waiting for the one before to end."""
    failures = 0
    with contextlib.ExitStack() as held:
        while not stop.is_set():
            try:
                held.enter_context(ledger.locked(rooms.data / FOLDER / ledger.LOCK))
                break
            except StateError as error:
                failures += 1
                pause = backoff(failures, seconds_max=rooms.settings.backoff_seconds_max)
                log.warning("waiting to become the ledger's writer", error=error.message, retry_seconds=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        yield
