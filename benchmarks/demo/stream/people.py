"""The stream's reviewers: one process plays several people, who lease, look up the truth, sometimes err, and answer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence

import grpc
import numpy as np

from benchmarks.demo import worker
from benchmarks.demo.journal import Journal, Reviewed, Stumbled
from fallback import channel
from fallback.answer import Label
from fallback.client import ReviewClient
from fallback.deferral import Lease
from fallback.errors import DemurError

LEASES = 16
WAIT_SECONDS = 1.0
AGAIN_SECONDS = 0.5


def show(request: int, row: int) -> bytes:
    """Return what a reviewer is shown of a request: a line of text that ends with the row of the file."""
    return b"request %d: row %d" % (request, row)


def row_of(subject: bytes) -> int:
    """Return the row that `show` wrote."""
    return int(subject.rpartition(b" ")[2])


def answer(truth: int, classes: int, *, subject: bytes, reviewer: str, seed: int, error_rate: float) -> int:
    """Return `truth`, or, for a share of what each reviewer is shown, another class, all alike.

    Reviewers err independently of each other, and of what is shown.
    """
    digest = hashlib.sha256(b"%d:%s:" % (seed, reviewer.encode()) + subject).digest()
    if int.from_bytes(digest[:8]) >= error_rate * 2**64:
        return truth
    return (truth + 1 + int.from_bytes(digest[8:16]) % (classes - 1)) % classes


class Person:
    """Leases, looks, answers."""

    def __init__(
        self,
        name: str,
        specification: worker.Specification,
        journal: Journal,
        client: ReviewClient,
        labels: Sequence[int],
    ) -> None:
        self._name = name
        self._given = specification
        self._journal = journal
        self._client = client
        self._labels = labels
        self._classes = specification.classes

    async def work(self, orders: worker.Orders) -> None:
        """Review until told to finish."""
        while not orders.finish.is_set():
            try:
                leases = await self._client.lease(self._given.queue, limit=LEASES, wait_seconds=WAIT_SECONDS)
                async with asyncio.TaskGroup() as answers:
                    for lease in leases:
                        answers.create_task(self._review(lease))
            except (DemurError, grpc.RpcError) as error:
                self._stumble(error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _review(self, lease: Lease) -> None:
        given, truth = self._given, self._labels[row_of(lease.subject)]
        said = answer(
            truth,
            self._classes,
            subject=lease.subject,
            reviewer=self._name,
            seed=given.seed,
            error_rate=given.error_share,
        )
        try:
            await self._client.submit(lease.token, Label(str(said)))
        except (DemurError, grpc.RpcError) as error:
            # Settled by others meanwhile, or held for too long: it is with somebody else, or will be.
            self._stumble(error)
            return
        name = lease.deferral.name
        self._journal.write(Reviewed(deferral=name, time=time.time(), label=str(said), truth=str(truth)))

    def _stumble(self, error: Exception) -> None:
        self._journal.write(Stumbled(time=time.time(), call="review", error=repr(error)))


async def review(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Play the people that the specification names, until told to finish."""
    labels = np.load(specification.labels, allow_pickle=False).tolist()
    async with asyncio.TaskGroup() as people:
        for name in specification.people:
            people.create_task(_work(name, specification, journal, orders, labels))


async def _work(
    name: str,
    specification: worker.Specification,
    journal: Journal,
    orders: worker.Orders,
    labels: Sequence[int],
) -> None:
    async with ReviewClient(specification.review, **channel.shown(name)) as client:
        await Person(name, specification, journal, client, labels).work(orders)


if __name__ == "__main__":
    worker.run(review)
