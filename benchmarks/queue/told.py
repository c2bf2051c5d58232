"""How long after its outcome a callback is received: the real dispatcher, a real HTTP receiver, open loop."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack

from aiohttp import web

from benchmarks.load import arrivals
from benchmarks.queue.ground import ANSWER, Ground, park, parking, payload
from fallback.address import Rule
from fallback.answer import Identity
from fallback.callback import Caller
from fallback.config import FallbackSettings, secret
from fallback.deferral import Lease
from fallback.dispatcher import Dispatcher
from fallback.errors import UnavailableError

SECONDS_MAX = 30.0
_REVIEWER = Identity(name="teller")
_LEASED_AT_ONCE = 100
_SEED = 1


class Receiver:
    """Takes callbacks and notes when the first of each deferral came, Unix seconds."""

    def __init__(self, expected: int) -> None:
        self.times: dict[str, float] = {}
        self.complete = asyncio.Event()
        self._expected = expected

    async def take(self, request: web.Request) -> web.Response:
        """Take one."""
        now = time.time()
        self.times.setdefault((await request.json())["data"]["deferral"], now)
        if len(self.times) >= self._expected:
            self.complete.set()
        return web.Response()


async def told(here: Ground) -> list[float]:
    """Return, for each of the outcomes, how long after it its callback was received, ms.

    Raises UnavailableError where not all came within SECONDS_MAX of the last outcome.
    """
    due = arrivals(here.size.outcomes_rate, here.size.outcomes_seconds, _SEED)
    receiver, settings = Receiver(len(due)), here.config.table("fallback", FallbackSettings)
    async with AsyncExitStack() as exits:
        url = await _listen(receiver, exits)
        leases = await _held(here, url, len(due))
        caller = Caller(
            secret=secret(here.config, "webhook"),
            rule=Rule(settings.webhook_allow_networks),
            timeout_seconds=settings.callback_timeout_seconds,
        )
        dispatcher = Dispatcher(here.queue, await exits.enter_async_context(caller), settings)
        running = asyncio.create_task(dispatcher.run(drain_seconds=1.0))
        try:
            outcomes = dict(await asyncio.gather(*_answers(here, leases, due)))
            async with asyncio.timeout(SECONDS_MAX):
                await receiver.complete.wait()
        except TimeoutError as error:
            raise UnavailableError(f"{len(receiver.times)} of {len(due)} callbacks came") from error
        finally:
            dispatcher.stop()
            await running
    return [(receiver.times[name] - outcome) * 1000 for name, outcome in outcomes.items()]


async def _listen(receiver: Receiver, exits: AsyncExitStack) -> str:
    app = web.Application()
    app.router.add_post("/callbacks", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    exits.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}/callbacks"


async def _held(here: Ground, url: str, count: int) -> list[Lease]:
    """Park and lease `count` items beforehand."""
    for start in range(0, count, here.size.batch):
        batch = min(here.size.batch, count - start)
        await park(here.queue, [parking("told", payload(), webhook=url) for _ in range(batch)])
    leases: list[Lease] = []
    while len(leases) < count:
        leases += await here.queue.lease("told", reviewer=_REVIEWER, limit=min(_LEASED_AT_ONCE, count - len(leases)))
    return leases


def _answers(here: Ground, leases: list[Lease], due: list[float]) -> list[asyncio.Task[tuple[str, float]]]:
    start = time.monotonic()

    async def answer(lease: Lease, moment: float) -> tuple[str, float]:
        await asyncio.sleep(start + moment - time.monotonic())
        request_id = secrets.token_hex(16)
        done = await here.queue.submit(lease.token, reviewer=_REVIEWER, answer=ANSWER, request_id=request_id)
        assert done.outcome is not None, "one review decides"
        return done.name, done.outcome.create_time

    return [asyncio.create_task(answer(lease, moment)) for lease, moment in zip(leases, due, strict=True)]
