"""One of the demo's reviewers: pulls over gRPC like anyone, knows the digits, and errs now and then.

What it answers depends on the image and the seed alone, so that a run can be repeated whoever gets which item.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

import grpc

from benchmarks.demo import worker
from benchmarks.demo.journal import Journal, Reviewed, Stumbled
from fallback import channel
from fallback.answer import Label
from fallback.client import ReviewClient
from fallback.deferral import Lease
from fallback.errors import DemurError

LEASES = 4
WAIT_SECONDS = 1.0
AGAIN_SECONDS = 0.5


def answer(content: bytes, truth: str, labels: tuple[str, ...], *, seed: int, error_share: float) -> str:
    """Return `truth`, or, for a share of the images (drawn from content and seed), one of the other `labels`."""
    digest = hashlib.sha256(b"%d:" % seed + content).digest()
    if int.from_bytes(digest[:8]) >= error_share * 2**64:
        return truth
    others = [label for label in labels if label != truth]
    return others[digest[8] % len(others)]


class Reviewer:
    """Leases, looks, answers."""

    def __init__(self, specification: worker.Specification, journal: Journal, client: ReviewClient) -> None:
        images = worker.read_images(specification.images)
        self._truth = dict(zip(images.contents, images.labels, strict=True))
        self._labels = tuple(sorted(set(images.labels)))
        self._specification = specification
        self._journal = journal
        self._client = client

    async def round(self) -> None:
        """Take what is there, waiting a moment for the first, and answer it."""
        given = self._specification
        for lease in await self._client.lease(given.queue, limit=LEASES, wait_seconds=WAIT_SECONDS):
            await asyncio.sleep(given.look_seconds)
            await self._review(lease)

    async def _review(self, lease: Lease) -> None:
        given = self._specification
        truth = self._truth[lease.subject]
        label = answer(lease.subject, truth, self._labels, seed=given.seed, error_share=given.error_share)
        await self._client.submit(lease.token, Label(label))
        self._journal.write(Reviewed(deferral=lease.deferral.name, time=time.time(), label=label, truth=truth))


async def review(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Review until told to finish."""
    async with ReviewClient(specification.review, **channel.shown(specification.name)) as client:
        reviewer = Reviewer(specification, journal, client)
        while not orders.finish.is_set():
            try:
                await reviewer.round()
            except (DemurError, grpc.RpcError) as error:
                journal.write(Stumbled(time=time.time(), call="review", error=repr(error)))
                await asyncio.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    worker.run(review)
