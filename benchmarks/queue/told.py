"""How long after the end of its undo window an outcome's callback is received: real loops, a real HTTP receiver.

Answers are given in open loop, and each outcome is final an undo window after its answer, by the server's clock; from
then to the receiver's clock is measured. What closes windows, reaps and tells shares a loop with those who answer, as
in a review process it shares one with the service; the receiver is a process of its own, as a client's is.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
from aiohttp import web

from benchmarks.load import arrivals
from benchmarks.queue.ground import ANSWER, UNDO_SECONDS, Ground, park, parking, payload
from fallback.address import Rule
from fallback.answer import Identity
from fallback.callback import Caller
from fallback.closing import Closer
from fallback.config import FallbackSettings
from fallback.deferral import Lease
from fallback.dispatcher import Dispatcher
from fallback.errors import UnavailableError
from fallback.queue import Queue
from fallback.secret import secret

SECONDS_MAX = 30.0
REPLY_BYTES_MAX = 64 * 1024 * 1024
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
    """Return, for each of the outcomes, how long after the end of its undo window its callback was received, ms.

    Raises UnavailableError where not all came within SECONDS_MAX of the last outcome.
    """
    due = arrivals(here.size.outcomes_rate, here.size.outcomes_seconds, _SEED)
    settings = here.config.table("fallback", FallbackSettings)
    async with AsyncExitStack() as exits:
        child, url = await exits.enter_async_context(_receiving(len(due)))
        leases = await _held(here, url, len(due))
        caller = Caller(
            secret=secret(here.config, "webhook"),
            rule=Rule(settings.webhook_allow_networks),
            timeout_seconds=settings.callback_timeout_seconds,
        )
        # With connections of its own, as in a review process.
        queue = Queue.connect(here.config)
        exits.push_async_callback(queue.close)
        dispatcher = Dispatcher(queue, await exits.enter_async_context(caller), settings)
        closer, stop = Closer(queue, closed=dispatcher.wake), asyncio.Event()
        running = asyncio.gather(
            dispatcher.run(drain_seconds=1.0), closer.run(stop), _reap(here, settings.reap_interval_seconds, stop)
        )
        try:
            outcomes = dict(await asyncio.gather(*_answers(here, leases, due)))
            times = await _times(child)
        finally:
            stop.set()
            dispatcher.stop()
            await running
    return [(times[name] - due_time) * 1000 for name, due_time in outcomes.items()]


async def _reap(here: Ground, pause_seconds: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await here.queue.reap()
        await asyncio.sleep(pause_seconds)


@asynccontextmanager
async def _receiving(count: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Yield a process that receives `count` callbacks, and its URL."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.queue.told", str(count)),
        stdout=asyncio.subprocess.PIPE,
        limit=REPLY_BYTES_MAX,
    )
    assert child.stdout is not None
    try:
        yield child, (await child.stdout.readline()).decode().strip()
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _times(child: asyncio.subprocess.Process) -> dict[str, float]:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return msgspec.json.decode(await child.stdout.readline(), type=dict[str, float])
    except TimeoutError as error:
        raise UnavailableError(f"not all callbacks came within {SECONDS_MAX:g} s of the last outcome") from error


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
        assert done.outcome is None, "its undo window is open"
        return done.name, done.reviews[-1].create_time + UNDO_SECONDS

    return [asyncio.create_task(answer(lease, moment)) for lease, moment in zip(leases, due, strict=True)]


async def _receive(count: int) -> None:
    """Serve until `count` callbacks came: the URL on the first line of the output, when they came on the second."""
    receiver, app = Receiver(count), web.Application()
    app.router.add_post("/callbacks", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    _say(f"http://{host}:{port}/callbacks")
    await receiver.complete.wait()
    _say(msgspec.json.encode(receiver.times).decode())
    await runner.cleanup()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_receive(int(sys.argv[1])))
