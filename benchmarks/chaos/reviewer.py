"""A reviewer with many hands: leases, answers, and misbehaves as people, browsers and networks do.

Most leases are answered in time. Some are given back or extended, some are held past their end and answered then, some
answers are sent twice under one request id, and some a second time under another. Each call about a lease is repeated
under its request id, at either replica, until there is a reply; the request id is the review's comment too, so that
every review that the server keeps can be traced to what was sent.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import grpc

from benchmarks.chaos import worker
from benchmarks.chaos.history import OK, Acted, Acting, Failed, Leased
from benchmarks.chaos.names import LABELS, QUEUES
from demur.v1 import review_pb2 as pb
from demur.v1 import types_pb2
from demur.v1.review_pb2_grpc import ReviewServiceStub
from fallback.wire import duration_to_wire, timestamp_from_wire

HANDS = 6
LIMIT = 3
WAIT_SECONDS = 0.4
LOOK_SECONDS = (0.01, 0.12)
# A request id is repeated this long, well within the time that the server keeps its reply.
REPEAT_SECONDS = 5.0
PAST_SECONDS = 0.25
_SUBMIT, _RELEASE, _EXTEND = "submit", "release", "extend"
# What is done with a lease, with its share.
_HABITS = {"answer": 0.78, "extend": 0.05, "release": 0.04, "late": 0.05, "twice": 0.05, "again": 0.03}
# The answer to "double" is mostly the same, so that most need no third reviewer.
_LABEL_WEIGHTS = (8, 1, 1)


class Reviewer:
    """One reviewer process; `stubs` call the replicas."""

    def __init__(self, context: worker.Context, stubs: list[Any]) -> None:
        self._context = context
        self._stubs = stubs
        self._name = context.given.name
        self._rng = context.rng
        self._journal = context.journal

    async def hand(self) -> None:
        """Lease and deal with what was leased, one after the other, until cancelled."""
        while True:
            leases = [] if self._context.orders.rest else await self._lease(self._rng.choice(QUEUES))
            for lease in leases:
                await asyncio.sleep(self._rng.uniform(*LOOK_SECONDS))
                await self._deal(lease)
            if not leases:
                await self._context.pause()

    async def _lease(self, queue: str) -> list[pb.Lease]:
        sent = time.time()
        request = pb.LeaseDeferralsRequest(queue=queue, limit=LIMIT, wait=duration_to_wire(WAIT_SECONDS))
        told = await self._context.call(self._rng.choice(self._stubs).LeaseDeferrals, request)
        if told.code != OK:
            self._journal.write(
                Failed(time=time.time(), who=self._name, call="LeaseDeferrals", code=told.code, message=told.message)
            )
            return []
        for lease in told.reply.leases:
            self._leased(lease, sent)
        return list(told.reply.leases)

    def _leased(self, lease: pb.Lease, sent: float, *, extension: bool = False) -> None:
        self._journal.write(
            Leased(
                sent=sent,
                time=time.time(),
                reviewer=self._name,
                token=lease.token,
                deferral=lease.deferral.name,
                slots=lease.deferral.reviews_wanted,
                until=timestamp_from_wire(lease.expire_time),
                extension=extension,
            )
        )

    async def _deal(self, lease: pb.Lease) -> None:
        (habit,) = self._rng.choices(list(_HABITS), weights=list(_HABITS.values()))
        match habit:
            case "release":
                await self._act(_RELEASE, lease)
                return
            case "extend":
                await self._act(_EXTEND, lease)
            case "late":
                past = timestamp_from_wire(lease.expire_time) + PAST_SECONDS - time.time()
                await asyncio.sleep(max(0.0, past))
            case _:
                pass
        request = uuid.uuid4().hex
        (label,) = self._rng.choices(LABELS, weights=_LABEL_WEIGHTS)
        await self._act(_SUBMIT, lease, request=request, label=label)
        if habit == "twice":
            await self._act(_SUBMIT, lease, request=request, label=label, attempt=100)
        elif habit == "again":
            await self._act(_SUBMIT, lease, label=label)

    async def _act(self, act: str, lease: pb.Lease, *, request: str = "", label: str = "", attempt: int = 1) -> None:
        """Make one call about a lease until there is a reply, under one request id."""
        request = request or uuid.uuid4().hex
        until = time.monotonic() + REPEAT_SECONDS
        while time.monotonic() < until:
            sent = time.time()
            self._journal.write(
                Acting(
                    time=sent,
                    reviewer=self._name,
                    token=lease.token,
                    deferral=lease.deferral.name,
                    act=act,
                    request=request,
                    attempt=attempt,
                    label=label,
                )
            )
            told = await self._call(act, lease.token, request, label)
            if told.code == OK and act == _EXTEND:
                self._leased(told.reply, sent, extension=True)
            self._journal.write(
                Acted(
                    time=time.time(),
                    reviewer=self._name,
                    request=request,
                    attempt=attempt,
                    code=told.code,
                    message=told.message,
                )
            )
            if told.code in {OK, grpc.StatusCode.FAILED_PRECONDITION.name}:
                return
            attempt += 1
            await self._context.pause()

    async def _call(self, act: str, token: str, request: str, label: str) -> worker.Told:
        stub = self._rng.choice(self._stubs)
        match act:
            case "submit":
                answer = types_pb2.Answer(label=label)
                submit = pb.SubmitReviewRequest(token=token, answer=answer, comment=request, request_id=request)
                return await self._context.call(stub.SubmitReview, submit)
            case "release":
                return await self._context.call(
                    stub.ReleaseLease, pb.ReleaseLeaseRequest(token=token, request_id=request)
                )
            case _:
                return await self._context.call(
                    stub.ExtendLease, pb.ExtendLeaseRequest(token=token, request_id=request)
                )


async def work(context: worker.Context) -> None:
    """Be a reviewer until cancelled."""
    channels = [context.channel(address) for address in context.given.addresses]
    reviewer = Reviewer(context, [ReviewServiceStub(channel) for channel in channels])
    async with asyncio.TaskGroup() as hands:
        for _ in range(HANDS):
            hands.create_task(reviewer.hand())


if __name__ == "__main__":
    worker.run(work)
