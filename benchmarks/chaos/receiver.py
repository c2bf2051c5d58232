"""The receiver of callbacks: believes nothing without a good signature, and now and then answers 500."""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
from aiohttp import web

from benchmarks.chaos import worker
from benchmarks.chaos.history import Called, Refused
from benchmarks.demo.receiver import BODY_BYTES_MAX, HOST, OK, SECRET, BadCallbackError, verify

PATH = "/callbacks"
STUMBLE_SHARE = 0.05
_UNAUTHORIZED, _STUMBLED = 401, 500


class _Answer(msgspec.Struct, frozen=True):
    label: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    answer: _Answer | None = None


class _Content(msgspec.Struct, frozen=True):
    deferral: str
    state: str
    outcome: _Outcome


class _Body(msgspec.Struct, frozen=True):
    type: str
    data: _Content


async def work(context: worker.Context) -> None:
    """Serve until cancelled; what is told goes to the journal before the answer does."""

    async def take(request: web.Request) -> web.Response:
        body, now = await request.read(), time.time()
        try:
            event = verify(request.headers, body, secret=os.environ[SECRET], now=now)
            found = msgspec.json.decode(body, type=_Body)
        except (BadCallbackError, msgspec.DecodeError) as error:
            context.journal.write(Refused(time=now, reason=str(error)))
            return web.Response(status=_UNAUTHORIZED)
        status = _STUMBLED if context.rng.random() < STUMBLE_SHARE else OK
        answer = found.data.outcome.answer
        context.journal.write(
            Called(
                time=now,
                id=event,
                type=found.type,
                deferral=found.data.deferral,
                state=found.data.state.lower(),
                label=answer.label if answer is not None else "",
                status=status,
            )
        )
        return web.Response(status=status)

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post(PATH, take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, context.given.port, reuse_address=True).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    worker.run(work)
