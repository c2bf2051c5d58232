"""The dispatcher over a real outbox and real receivers."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from redis.asyncio import Redis

from fallback import keys
from fallback.address import Rule
from fallback.callback import Caller
from fallback.config import Config, FallbackSettings
from fallback.deferral import Callback
from fallback.dispatcher import Dispatcher
from fallback.errors import ConfigError
from fallback.outbox import Untold
from fallback.queue import Delivery, Queue

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
QUICK = FallbackSettings(
    callback_timeout_seconds=5.0,
    callback_retry_seconds=(0.02, 0.04),
    callback_concurrency_max=8,
    callback_concurrency_per_endpoint_max=2,
)


class Receiver:
    """Answers with what `answers` says for the n-th request, 200 after that; counts by delivery id."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.delay_seconds = 0.0
        self.at_once = 0
        self.at_once_max = 0

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers["webhook-id"], msgspec.json.decode(await request.read())))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await asyncio.sleep(self.delay_seconds)
        finally:
            self.at_once -= 1
        return web.Response(status=self._answers.pop(0) if self._answers else 200)


Listen = Callable[..., Awaitable[str]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts a receiver on a loopback address and returns its URL."""
    runners = []

    async def start(receiver: Receiver, *, host: str = "127.0.0.1") -> str:
        application = web.Application()
        application.router.add_post("/", receiver.take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        return f"http://{host}:{runner.addresses[0][1]}/"

    yield start
    for runner in runners:
        await runner.cleanup()


@asynccontextmanager
async def dispatching(queue: Queue, settings: FallbackSettings = QUICK) -> AsyncIterator[Dispatcher]:
    """Runs a dispatcher, with no jitter but the longest wait."""
    rule = Rule(("127.0.0.0/8",))
    async with Caller(secret=SECRET, rule=rule, timeout_seconds=settings.callback_timeout_seconds) as caller:
        dispatcher = Dispatcher(queue, caller, settings, jitter=lambda: 1.0)
        running = asyncio.create_task(dispatcher.run(drain_seconds=1))
        try:
            yield dispatcher
        finally:
            dispatcher.stop()
            await running


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for what must come to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


async def dead_letters(queue: Queue) -> list[Delivery]:
    """Return the first dead letters that there are."""
    for _ in range(1_000):
        if found := await queue.dead_letters("digits"):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was given up")


async def test_an_outcome_is_told_once_it_is_there(queue: Queue, settle: Any, listen: Listen) -> None:
    """What a reviewer settled arrives, and nothing is left in the outbox."""
    receiver = Receiver()
    callback = Callback(webhook_url=await listen(receiver))
    async with dispatching(queue):
        name = await settle("3", callback=callback)
        await until(lambda: len(receiver.got) == 1)
    ((delivery_id, body),) = receiver.got
    assert name.endswith(delivery_id)
    assert body["type"] == "deferral.resolved"
    assert body["data"]["outcome"]["answer"] == {"label": "3"}
    assert await queue.due(limit=10) == []


async def test_a_failure_is_tried_again_with_the_same_id(queue: Queue, settle: Any, listen: Listen) -> None:
    """Two failures, then success: three attempts under one id."""
    receiver = Receiver(500, 503)
    await settle(callback=Callback(webhook_url=await listen(receiver)))
    async with dispatching(queue):
        await until(lambda: len(receiver.got) == 3)
        await asyncio.sleep(0.1)
    assert len({delivery_id for delivery_id, _ in receiver.got}) == 1
    assert len(receiver.got) == 3
    assert await queue.dead_letters("digits") == []


async def test_what_nobody_takes_becomes_a_dead_letter_and_can_be_told_again(
    queue: Queue, settle: Any, listen: Listen
) -> None:
    """After the last attempt it is listed with its reason; redelivered, it arrives."""
    receiver = Receiver(500, 500, 500)
    await settle(callback=Callback(webhook_url=await listen(receiver)))
    async with dispatching(queue):
        await until(lambda: len(receiver.got) == 3)
        dead = await dead_letters(queue)
        assert "answered 500" in dead[0].reason
        assert await queue.redeliver("digits", [dead[0].id]) == 1
        await until(lambda: len(receiver.got) == 4)
    assert len({delivery_id for delivery_id, _ in receiver.got}) == 1


async def test_an_address_that_may_not_be_called_is_a_dead_letter_at_once(queue: Queue, settle: Any) -> None:
    """A refusal by rule is not tried again, and the reason says what to set."""
    await settle(callback=Callback(webhook_url="http://169.254.169.254/latest/meta-data/"))
    async with dispatching(queue):
        dead = await dead_letters(queue)
    assert dead[0].attempt == 1
    assert "webhook_allow_networks" in dead[0].reason


async def test_one_receiver_gets_no_more_at_once_than_its_share(queue: Queue, settle: Any, listen: Listen) -> None:
    """Attempts to one host stay within the bound, and all arrive."""
    receiver = Receiver()
    receiver.delay_seconds = 0.02
    callback = Callback(webhook_url=await listen(receiver))
    for _ in range(12):
        await settle(callback=callback)
    async with dispatching(queue):
        await until(lambda: len({delivery_id for delivery_id, _ in receiver.got}) == 12)
    assert receiver.at_once_max <= 2


async def test_a_slow_receiver_holds_up_nobody(queue: Queue, settle: Any, listen: Listen) -> None:
    """While one hangs with more due than is ever held, another one's outcome arrives long before that times out."""
    hanging, quick = Receiver(), Receiver()
    hanging.delay_seconds = 60.0
    slow_url = await listen(hanging, host="127.0.0.2")
    for _ in range(60):
        await settle(callback=Callback(webhook_url=slow_url))
    settings = msgspec.structs.replace(QUICK, callback_timeout_seconds=30.0)
    started = time.monotonic()
    async with dispatching(queue, settings):
        await until(lambda: hanging.at_once == 2)
        await settle(callback=Callback(webhook_url=await listen(quick)))
        await until(lambda: len(quick.got) == 1)
    assert time.monotonic() - started < 25
    assert hanging.at_once_max == 2


async def test_what_was_under_way_when_a_dispatcher_died_is_told_by_the_next(
    config: Config, settle: Any, listen: Listen
) -> None:
    """A claim that nobody finished hides the delivery for its visibility time; then another one tells it."""
    receiver = Receiver()
    settings = msgspec.structs.replace(QUICK, callback_timeout_seconds=0.5, callback_visibility_seconds=3.0)
    queue = Queue.connect(Config(data_folder=config.data_folder, tables={"fallback": settings}))
    await settle(callback=Callback(webhook_url=await listen(receiver)))
    assert len(await queue.due(limit=10)) == 1
    assert await queue.due(limit=10) == []
    async with dispatching(queue, settings):
        await until(lambda: len(receiver.got) == 1)
    await queue.close()


async def test_a_visibility_time_shorter_than_an_attempt_is_refused(queue: Queue) -> None:
    """Another dispatcher would claim what is still being told."""
    caller = Caller(secret=SECRET, rule=Rule(), timeout_seconds=5)
    with pytest.raises(ConfigError, match="callback_visibility_seconds"):
        Dispatcher(queue, caller, msgspec.structs.replace(QUICK, callback_visibility_seconds=6.0))


async def test_stopping_lets_an_attempt_end(queue: Queue, settle: Any, listen: Listen) -> None:
    """A stop waits for what is under way, and it is written down."""
    receiver = Receiver()
    receiver.delay_seconds = 0.3
    await settle(callback=Callback(webhook_url=await listen(receiver)))
    async with dispatching(queue) as dispatcher:
        await until(lambda: receiver.at_once == 1)
        dispatcher.stop()
    assert len(receiver.got) == 1
    assert await queue.dead_letters("digits") == []


async def test_a_claim_too_old_to_be_attempted_is_given_back_at_once(
    config: Config, settle: Any, listen: Listen, redis_url: str
) -> None:
    """What waits behind slow attempts is told as soon as there is room, once, and not when its claim ends."""
    receiver = Receiver()
    receiver.delay_seconds = 0.7
    # An attempt may start within half a second of its claim, and each takes longer.
    settings = msgspec.structs.replace(QUICK, callback_timeout_seconds=10.0, callback_visibility_seconds=12.5)
    queue = Queue.connect(Config(data_folder=config.data_folder, tables={"fallback": settings}))
    callback = Callback(webhook_url=await listen(receiver))
    names = [await settle(callback=callback) for _ in range(6)]
    started = time.monotonic()
    async with dispatching(queue, settings):
        await until(lambda: len(receiver.got) == 6)
        # Three times two at once.
        assert time.monotonic() - started < 9
    assert len({delivery_id for delivery_id, _ in receiver.got}) == 6
    async with Redis.from_url(redis_url) as redis:
        for name in names:
            assert await redis.hget(keys.record("digits", name.rpartition("/")[2]), "attempt") == b"1"
    await queue.close()


async def test_a_rush_for_one_receiver_that_keeps_up_is_not_put_off(
    config: Config, settle: Any, listen: Listen
) -> None:
    """More than it is known to take soon waits in memory while there is room, and is put back by nobody."""
    receiver = Receiver()
    settings = msgspec.structs.replace(QUICK, callback_concurrency_max=32)
    queue = Queue.connect(Config(data_folder=config.data_folder, tables={"fallback": settings}))
    callback = Callback(webhook_url=await listen(receiver))
    for _ in range(40):
        await settle(callback=callback)
    put_back: list[Untold] = []
    write = queue.write_told

    async def noted(told: Sequence[Delivery], untold: Sequence[Untold]) -> None:
        put_back.extend(untold)
        await write(told, untold)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "write_told", noted)
        async with dispatching(queue, settings):
            await until(lambda: len(receiver.got) == 40)
    assert put_back == []
    await queue.close()
