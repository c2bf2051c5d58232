"""Runs the loop once: starts everyone, sets the pace, waits until all is settled, measures, and judges.

Theory of operation. The orchestrator sends no request, answers no item and takes no callback: processes of their own do
(client, reviewer, receiver, watcher), each with a journal, and every count comes from those (`counts.Tally`). What the
orchestrator does is choose the rate (`pace.Pace`), so that versions are swapped under traffic, and decide when all is
settled: nothing open in the queue, an outcome seen and a callback taken for everything. Each wait is bounded; what is
missing when a wait ends is not hidden but counted, and the checks say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.demo import receiver
from benchmarks.demo.counts import Tally
from benchmarks.demo.journal import Failed, Replied, Watched
from benchmarks.demo.pace import Pace
from benchmarks.demo.processes import Crew, Process
from benchmarks.demo.progress import Display
from benchmarks.demo.worker import Images, Order, Specification
from fallback import channel
from fallback.client import ReviewClient
from fallback.errors import DemurError, UnavailableError
from gateway.stack import Stack
from trainer import digits

CLIENTS = 2
REVIEWERS = 2
REVIEWER_ERROR_SHARE = 0.02
LOOK_SECONDS = 0.05
READY_SECONDS_MAX = 30.0
SETTLE_SECONDS_MAX = 45.0
CLOSE_SECONDS_MAX = 45.0
_TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: where, under which model's name, how many requests (1 to all of the stream), and its seed."""

    stack: Stack
    folder: Path
    # Where `lay_down` wrote the stream.
    images: Path
    model: str
    run: str
    requests: int
    seed: int
    swaps_goal: int
    secret: str
    # 0: the receiver answers no attempt with 500.
    stumble_every: int = 0


def lay_down(path: Path, seed: int) -> Images:
    """Write the stream, in an order drawn from `seed`, for the processes to read, and return it."""
    found = digits.load()
    order = list(found.stream)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    images = Images(contents=tuple(map(found.png, order)), labels=tuple(map(found.label, order)))
    path.write_bytes(msgspec.msgpack.encode(images))
    return images


class Orchestration:
    """One run of the loop against one stack."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self._plan = plan
        self._display = display
        self._crew = Crew(env={**os.environ, receiver.SECRET: plan.secret})
        self.tally = Tally()
        # Deferrals and audits that the queue still holds; -1 while nobody could say.
        self.left_open = -1

    async def run(self) -> None:
        """Run the loop to its end; what everybody wrote down is in `tally`."""
        with self._crew:
            self._display.phase("starting clients, reviewers and a receiver of callbacks")
            await self._start()
            self._display.phase(f"streaming {self._plan.requests} digits; people review, the trainer learns")
            await self._stream()
            self._display.phase("waiting until every deferral is settled and every callback has arrived")
            await self._settle()
            await self._close()

    async def _start(self) -> None:
        plan, journals = self._plan, self._plan.folder / "journals"
        common = Specification(
            name="",
            journal=journals,
            gateway=plan.stack.gateway,
            review=plan.stack.review,
            model=plan.model,
            queue=plan.model,
            run=plan.run,
            images=plan.images,
            seed=plan.seed,
            error_share=REVIEWER_ERROR_SHARE,
            look_seconds=LOOK_SECONDS,
            stumble_every=plan.stumble_every,
            ready=plan.folder / "receiver.url",
        )

        def start(role: str, name: str, **fields: object) -> Process:
            changes = {"name": name, "journal": journals / f"{name}.jsonl", **fields}
            return self._crew.start(role, msgspec.structs.replace(common, **changes))

        start("receiver", "receiver")
        start("watcher", "watcher")
        for number in range(REVIEWERS):
            start("reviewer", f"reviewer-{number + 1}")
        await self._until(common.ready.exists, READY_SECONDS_MAX, "the receiver of callbacks")
        url = common.ready.read_text(encoding="ascii")
        for number in range(CLIENTS):
            indexes = tuple(range(number, plan.requests, CLIENTS))
            start("client", f"client-{number + 1}", indexes=indexes, callback_url=url)

    async def _stream(self) -> None:
        """Send the stream at the rate that `Pace` says until every request has come back."""
        pace = Pace(requests=self._plan.requests, swaps_goal=self._plan.swaps_goal)
        clients, ordered, trickled = self._crew.of("client"), 0.0, 0.0
        before = time.monotonic()
        while (sent := len(self.tally.of(Replied)) + len(self.tally.of(Failed))) < self._plan.requests:
            rate = pace.per_second(sent=sent, swaps=self.tally.swaps, trickled_seconds=trickled)
            now = time.monotonic()
            trickled += now - before if ordered == pace.trickle_per_second else 0.0
            before = now
            if rate != ordered:
                for client in clients:
                    client.order(Order(per_second=rate / len(clients)))
                ordered = rate
            await self._tick()

    async def _settle(self) -> None:
        """Return when nothing is open and everything was told, or after SETTLE_SECONDS_MAX."""
        async with ReviewClient(self._plan.stack.review, **channel.shown("demo")) as client:
            deadline = time.monotonic() + SETTLE_SECONDS_MAX
            while time.monotonic() < deadline:
                await self._tick()
                with contextlib.suppress(DemurError):
                    queues = await client.queues()
                    self.left_open = sum(queue.open for queue in queues if queue.name == self._plan.model)
                if self.left_open == 0 and self._all_told():
                    return

    def _all_told(self) -> bool:
        tally = self.tally
        seen = {entry.deferral for entry in tally.of(Watched)}
        return (
            tally.deferrals <= seen
            and tally.deferrals <= tally.told_by_callback().keys()
            and tally.amended() >= tally.overturned()
        )

    async def _close(self) -> None:
        """Let the clients ask how each deferral ended, then everybody finish."""
        for role in ("client", "reviewer", "watcher", "receiver"):
            for process in self._crew.of(role):
                process.order(Order(finish=True))
            deadline = time.monotonic() + CLOSE_SECONDS_MAX
            while time.monotonic() < deadline and not all(process.ended for process in self._crew.of(role)):
                await self._tick()

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise UnavailableError(f"{what} is not ready after {seconds:.0f} s")
            await self._tick()

    async def _tick(self) -> None:
        """Let a moment pass, notice whoever died, and take in what was written down."""
        await asyncio.sleep(_TICK_SECONDS)
        for process in self._crew.processes:
            _ = process.ended
            self.tally.add(process.journal.read())
        self._display.show(self.tally)
