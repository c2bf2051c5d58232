"""A client: asks for reviews until it is told a name for each, follows the outcomes, looks at each of its own again.

A key that it had asked under when it was killed is asked under again: the same question gets the same deferral.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.chaos import worker
from benchmarks.chaos.history import OK, Asked, Cancelled, Cancelling, Failed, Got, Replied, Watched, tail
from benchmarks.chaos.names import LABELS, MODEL, QUEUE, QUEUES, TASK
from demur.v1 import prediction_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.prediction_pb2_grpc import PredictionServiceStub
from fallback import wire
from fallback.deferral_wire import deferral_from_wire
from gateway.wire import tensors_to_wire

# More would only wait for each other on a busy machine, past the time that one attempt has.
UNDERWAY_MAX = 12
PREDICT_EVERY = 5
# Shares of the requests: asked again although there was a reply; taken back.
TWICE_SHARE = 0.04
CANCEL_SHARE = 0.02
GET_ATTEMPTS = 5
WATCH_SECONDS = 3.0
_UNSURE = {"x": np.array([[0.3, 0.4, 0.3]], np.float32)}


class Client:
    """One client process."""

    def __init__(self, context: worker.Context, stub: Any) -> None:
        self._context = context
        self._stub = stub
        self._journal = context.journal
        self._tasks = asyncio.TaskGroup()
        self._room = asyncio.Semaphore(UNDERWAY_MAX)
        self._asked: set[str] = set()
        self._named: dict[str, str] = {}
        self._own: set[str] = set()
        self._looked: set[str] = set()
        self._cursors = dict.fromkeys(QUEUES, "0")
        self._remember()

    def _remember(self) -> None:
        """Read back what an incarnation before this one did."""
        for entry in tail(Path(self._context.given.journal)).read():
            match entry:
                case Asked():
                    self._asked.add(entry.key)
                case Replied(code="OK"):
                    self._named[entry.key] = entry.deferral
                    self._own.add(entry.deferral)
                case Watched():
                    self._cursors[entry.queue] = entry.cursor
                case Got():
                    self._looked.add(entry.deferral)
                case _:
                    pass

    async def run(self) -> None:
        """Go on until cancelled."""
        async with self._tasks:
            for queue in QUEUES:
                self._tasks.create_task(self._watch(queue))
            self._tasks.create_task(self._send())

    async def _send(self) -> None:
        for key in sorted(self._asked - self._named.keys()):
            await self._begin(key)
        sent = len(self._asked)
        while True:
            while sent < self._context.orders.total:
                await self._begin(f"{self._context.given.name}-{sent}")
                sent += 1
            await asyncio.sleep(0.02)

    async def _begin(self, key: str) -> None:
        await self._room.acquire()
        task = self._tasks.create_task(self._ask(key))
        task.add_done_callback(lambda _: self._room.release())

    async def _ask(self, key: str) -> None:
        """Ask until there is a name; now and then once more, or take it back."""
        number = int(key.rpartition("-")[2])
        queue = MODEL if number % PREDICT_EVERY == 0 else QUEUE
        name = ""
        while not name:
            name = await self._attempt(key, queue)
            if not name:
                await self._context.pause()
        drawn = self._context.rng.random()
        if drawn < TWICE_SHARE:
            await self._attempt(key, queue)
        elif drawn < TWICE_SHARE + CANCEL_SHARE:
            await self._cancel(name)

    async def _attempt(self, key: str, queue: str) -> str:
        """Make one attempt; returns the deferral's name, or nothing."""
        client = self._context.given.name
        self._journal.write(Asked(time=time.time(), client=client, key=key, queue=queue))
        subject = types_pb2.Subject(content=key.encode(), media_type="text/plain")
        callback = types_pb2.Callback(webhook_url=self._context.given.callback_url)
        if queue == MODEL:
            tensors = tensors_to_wire(_UNSURE)
            asked = pb.PredictRequest(
                model=MODEL, inputs=tensors, subject=subject, idempotency_key=key, callback=callback
            )
            told = await self._context.call(self._stub.Predict, asked)
            name = told.reply.deferral if told.code == OK else ""
        else:
            request = pb.RequestReviewRequest(
                queue=queue, subject=subject, task=wire.task_to_wire(TASK), idempotency_key=key, callback=callback
            )
            told = await self._context.call(self._stub.RequestReview, request)
            name = told.reply.name if told.code == OK else ""
        self._journal.write(
            Replied(time=time.time(), client=client, key=key, code=told.code, deferral=name, message=told.message)
        )
        if name:
            self._named[key] = name
            self._own.add(name)
        return name

    async def _cancel(self, name: str) -> None:
        await asyncio.sleep(self._context.rng.uniform(0, 1))
        request = pb.CancelDeferralRequest(name=name, request_id=uuid.uuid4().hex)
        for _ in range(GET_ATTEMPTS):
            self._journal.write(Cancelling(time=time.time(), deferral=name))
            told = await self._context.call(self._stub.CancelDeferral, request)
            self._journal.write(Cancelled(time=time.time(), deferral=name, code=told.code, message=told.message))
            if told.code in {OK, grpc.StatusCode.FAILED_PRECONDITION.name}:
                return
            await self._context.pause()

    async def _watch(self, queue: str) -> None:
        """Follow a queue's outcomes from where the journal ends; a stream that says nothing for long is left."""
        while True:
            request = pb.WatchOutcomesRequest(queue=queue, cursor=self._cursors[queue])
            call = self._stub.WatchOutcomes(request, metadata=self._context.metadata)
            try:
                while True:
                    async with asyncio.timeout(WATCH_SECONDS):
                        event = await call.read()
                    if event is grpc.aio.EOF:
                        break
                    self._note(queue, event)
            except grpc.aio.AioRpcError as error:
                self._fail("WatchOutcomes", error.code().name, error.details() or "")
            except TimeoutError:
                pass
            finally:
                call.cancel()
            await self._context.pause()

    def _note(self, queue: str, event: pb.WatchOutcomesResponse) -> None:
        if not event.HasField("deferral"):
            self._cursors[queue] = event.cursor
            return
        deferral = deferral_from_wire(event.deferral)
        assert deferral.outcome is not None, f"{deferral.name} is in the stream of outcomes without one"
        self._journal.write(
            Watched(
                time=time.time(),
                queue=queue,
                cursor=event.cursor,
                deferral=deferral.name,
                state=str(deferral.state),
                label=label_of(event.deferral),
                version=deferral.version,
                outcome_time=deferral.outcome.create_time,
            )
        )
        self._cursors[queue] = event.cursor
        if deferral.name in self._own and deferral.name not in self._looked:
            self._looked.add(deferral.name)
            self._tasks.create_task(self._look(deferral.name))

    async def _look(self, name: str) -> None:
        """Ask how a deferral of our own stands, some time after it ended."""
        await asyncio.sleep(self._context.rng.uniform(0, 2))
        for _ in range(GET_ATTEMPTS):
            told = await self._context.call(self._stub.GetDeferral, pb.GetDeferralRequest(name=name))
            if told.code != OK:
                self._journal.write(Got(time=time.time(), deferral=name, code=told.code, message=told.message))
                await self._context.pause()
                continue
            state = types_pb2.Deferral.State.Name(told.reply.state).lower()
            label, version = label_of(told.reply), told.reply.version
            self._journal.write(
                Got(time=time.time(), deferral=name, code=OK, state=state, label=label, version=version)
            )
            return

    def _fail(self, call: str, code: str, message: str) -> None:
        who = self._context.given.name
        self._journal.write(Failed(time=time.time(), who=who, call=call, code=code, message=message[:200]))


def label_of(deferral: types_pb2.Deferral) -> str:
    """Return the label of an outcome; empty where it has no answer."""
    label = deferral.outcome.answer.label
    assert label in {"", *LABELS}, label
    return label


async def work(context: worker.Context) -> None:
    """Be a client until cancelled."""
    async with context.channel(context.given.addresses[0]) as channel:
        await Client(context, PredictionServiceStub(channel)).run()


if __name__ == "__main__":
    worker.run(work)
