"""Streams once: publishes the model, asks for the promise, sets the pace, waits until all is counted.

Theory of operation. As in `demur demo digits` the orchestrator only orders and counts: client and people are processes
of their own. The pace is what the people can follow: the fuller the queue, the slower. The gateway is asked again and
again how the proof stands, as any operator may. Once the stream is sent and all are answered, the proof is given time
to count the rest; then every threshold that the ledger has, however short it was in force, is judged by the whole file,
which nobody else sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.demo.counts import Tally
from benchmarks.demo.journal import Failed, Replied
from benchmarks.demo.processes import Crew
from benchmarks.demo.stream.report import Proofs, Standing, proved
from benchmarks.demo.stream.scores import Rows, Scores
from benchmarks.demo.worker import Order, Specification
from demur.v1 import model_pb2 as pb
from fallback import channel
from fallback.client import ReviewClient
from fallback.errors import DemurError
from gateway.manifest import Manifest, render
from gateway.model_client import ModelClient
from gateway.stack import Stack
from trainer import chain, rows

REASON: Final = "to be certified"
# So many items may be open; from half of it on the pace falls.
OPEN_MAX: Final = 400
PEOPLE_EACH: Final = 3
CALL_SECONDS: Final = 60.0
SETTLE_SECONDS_MAX: Final = 120.0
# What is not counted this long after everything was answered is not waited for.
COUNT_SECONDS_MAX: Final = 60.0
CLOSE_SECONDS_MAX: Final = 30.0
_TICK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: what is streamed where, the promise, and who reviews.

    `artefact` is published under the manifest's name. Each of `rows` is a request: a row of `values`, which are for the
    model's `input`. `scores` is what the model says of each row, and the truth; none but the orchestrator looks there.
    `folder` takes what the processes read and write.
    """

    stack: Stack
    folder: Path
    artefact: Path
    manifest: Manifest
    input: str
    values: NDArray[np.float32]
    scores: Scores
    rows: Rows
    alpha: float
    delta: float
    audit_share: float
    error_rate: float
    people: int
    per_second: float
    seed: int


def pace(*, open_: int, per_second: float) -> float:
    """Return how many requests a second to send with `open_` items in the queue: the full rate below half of OPEN_MAX,
    none at OPEN_MAX, in between in proportion.
    """  # noqa: D205 - one sentence needs two lines
    room = (OPEN_MAX - open_) / (OPEN_MAX / 2)
    return per_second * max(0.0, min(1.0, room))


class Stream:
    """One run against one stack; `show` is told every tick."""

    def __init__(self, plan: Plan, show: Callable[[Stream], None]) -> None:
        self._plan = plan
        self._model = plan.manifest.model
        self._show = show
        self._crew = Crew()
        self.tally = Tally()
        self.proofs = Proofs(plan.scores)
        self.standing = Standing()
        self.watermark = 0.0
        self.open = -1

    @property
    def requests(self) -> int:
        """How many there are."""
        return len(self._plan.rows)

    @property
    def coverage(self) -> float:
        """The share of the whole file that the threshold in force lets through."""
        return 0.0 if self.standing.tau is None else self._plan.scores.coverage(self.standing.tau)

    @property
    def sent(self) -> int:
        """How many requests have come back, in whatever way."""
        return len(self.tally.of(Replied)) + len(self.tally.of(Failed))

    async def run(self) -> None:
        """Run to the end."""
        async with (
            ModelClient(self._plan.stack.gateway, **channel.shown("demo")) as models,
            ReviewClient(self._plan.stack.review, **channel.shown("demo")) as reviews,
        ):
            await self._publish(models)
            watching = asyncio.create_task(self._watch(models, reviews))
            with self._crew:
                self._start()
                await self._stream()
                await self._settle()
                await self._close()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._look(models, reviews)
        kept = chain.Chain(Path(self._plan.stack.data) / chain.FOLDER, self._model)
        self.proofs = proved((rows.decode(link.body) for link in kept.links()), self._plan.scores)

    async def _publish(self, models: ModelClient) -> None:
        """Publish the model and ask for the promise."""
        plan = self._plan
        await models.publish(self._model, plan.artefact, render(plan.manifest), promote=True, reason=REASON)
        policy = await models.get_policy(self._model)
        policy.alpha, policy.delta, policy.audit_share = plan.alpha, plan.delta, plan.audit_share
        await models.update_policy(policy)

    def _start(self) -> None:
        plan, journals = self._plan, self._plan.folder / "journals"
        journals.mkdir(parents=True, exist_ok=True)
        values, labels = plan.folder / "values.npy", plan.folder / "labels.npy"
        np.save(values, plan.values)
        np.save(labels, plan.scores.labels)
        names = [f"person-{number + 1}" for number in range(plan.people)]
        common = Specification(
            name="",
            journal=journals,
            gateway=plan.stack.gateway,
            review=plan.stack.review,
            model=self._model,
            queue=self._model,
            run="stream",
            seed=plan.seed,
            error_share=plan.error_rate,
            call_seconds=CALL_SECONDS,
            values=values,
            labels=labels,
            input=plan.input,
            classes=len(plan.scores.classes),
        )

        def start(role: str, name: str, **fields: object) -> None:
            changes = {"name": name, "journal": journals / f"{name}.jsonl", **fields}
            self._crew.start(f"stream.{role}", msgspec.structs.replace(common, **changes))

        for first in range(0, plan.people, PEOPLE_EACH):
            start("people", f"people-{first // PEOPLE_EACH + 1}", people=tuple(names[first : first + PEOPLE_EACH]))
        start("client", "client", indexes=tuple(plan.rows.tolist()))

    async def _stream(self) -> None:
        """Send at the pace that people can follow until every request has come back."""
        (client,) = self._crew.of("stream.client")
        ordered = 0.0
        while self.sent < len(self._plan.rows):
            rate = round(pace(open_=max(0, self.open), per_second=self._plan.per_second), 1)
            if rate != ordered:
                client.order(Order(per_second=rate))
                ordered = rate
            await self._tick()

    async def _settle(self) -> None:
        """Return when nothing is open and everything sent is counted, or when that was waited for long enough."""
        await self._until(lambda: self.open == 0, SETTLE_SECONDS_MAX)
        last = max((entry.time for entry in self.tally.of(Replied)), default=0.0)
        await self._until(lambda: self.watermark > last, COUNT_SECONDS_MAX)

    async def _close(self) -> None:
        for process in self._crew.processes:
            process.order(Order(finish=True))
        await self._until(lambda: all(process.ended for process in self._crew.processes), CLOSE_SECONDS_MAX)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            await self._tick()

    async def _tick(self) -> None:
        """Let a moment pass, notice whoever died, and take in what was written down."""
        await asyncio.sleep(_TICK_SECONDS)
        for process in self._crew.processes:
            _ = process.ended
            self.tally.add(process.journal.read())
        self._show(self)

    async def _watch(self, models: ModelClient, reviews: ReviewClient) -> None:
        while True:
            with contextlib.suppress(DemurError):
                await self._look(models, reviews)
            await asyncio.sleep(_TICK_SECONDS)

    async def _look(self, models: ModelClient, reviews: ReviewClient) -> None:
        found = await models.certificate(self._model)
        tau = found.tau if found.HasField("tau") else None
        self.standing = Standing(
            stage=pb.Certificate.Stage.Name(found.stage).lower(),
            tau=tau,
            audits=found.audits,
            audits_needed=found.audits_needed if found.HasField("audits_needed") else None,
            advice=found.advice,
            alarm=found.alarm,
        )
        self.watermark = found.watermark_time.ToSeconds() if found.HasField("watermark_time") else 0.0
        self.open = sum(queue.open for queue in await reviews.queues() if queue.name == self._model)
