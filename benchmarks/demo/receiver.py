"""The demo's receiver of callbacks: a real HTTP server that believes nothing without a good signature.

It checks as any user of Demur would (Standard Webhooks 1.0.0, https://www.standardwebhooks.com), with code of its own
and none of the sender's. Now and then it answers 500 to the first attempt of an event, so that the retries are real.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from aiohttp import web

from benchmarks.demo import worker
from benchmarks.demo.journal import Called, Journal, Refused

SECRET = "DEMUR_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable, not a secret
HOST = "127.0.0.1"
TOLERANCE_SECONDS = 300.0
BODY_BYTES_MAX = 64 * 1024
OK, REFUSED, STUMBLED = 200, 401, 500


class BadCallbackError(Exception):
    """The callback is not what the standard says it should be."""


def verify(headers: Mapping[str, str], body: bytes, *, secret: str, now: float) -> str:
    """Return the event's id if one of the signatures over id, timestamp and body is right.

    `secret` is `whsec_` and base64; `now` in Unix seconds, compared with the timestamp to within five minutes. Raises
    BadCallbackError. Source: Standard Webhooks 1.0.0, "Verifying signatures".
    """
    try:
        event, stamp, signatures = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise BadCallbackError(f"header {error} is missing") from error
    if not stamp.isdecimal() or abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise BadCallbackError(f"webhook-timestamp: expected within {TOLERANCE_SECONDS:.0f} s of now, got {stamp!r}")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.digest(key, f"{event}.{stamp}.".encode() + body, "sha256")
    for signature in signatures.split(" "):
        version, _, value = signature.partition(",")
        try:
            given = base64.b64decode(value, validate=True)
        except binascii.Error:
            continue
        if version == "v1" and hmac.compare_digest(given, expected):
            return event
    raise BadCallbackError("webhook-signature: none of the signatures fits")


def stumbles(event: str, every: int, seed: int) -> bool:
    """Say whether the first attempt of `event` is answered with 500: about one in `every`; 0: none."""
    return every > 0 and int.from_bytes(hmac.digest(str(seed).encode(), event.encode(), "sha256")[:8]) % every == 0


class _Answer(msgspec.Struct, frozen=True):
    label: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    answer: _Answer | None = None


class _Content(msgspec.Struct, frozen=True):
    deferral: str
    outcome: _Outcome | None


class _Body(msgspec.Struct, frozen=True):
    type: str
    data: _Content


def read(event: str, body: bytes, now: float) -> Called:
    """Return what a believed callback says; raises msgspec.DecodeError if it is not what Demur documents."""
    found = msgspec.json.decode(body, type=_Body)
    outcome = found.data.outcome
    label = outcome.answer.label if outcome is not None and outcome.answer is not None else ""
    return Called(id=event, time=now, type=found.type, deferral=found.data.deferral, label=label, status=OK)


class Receiver:
    """One HTTP endpoint; what it is told goes to the journal before it says 200."""

    def __init__(self, specification: worker.Specification, journal: Journal, secret: str) -> None:
        self._specification = specification
        self._journal = journal
        self._secret = secret
        self._stumbled: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        """Answer one attempt: 200 taken, 401 not believed, 500 try again."""
        body = await request.read()
        try:
            now = time.time()
            event = verify(request.headers, body, secret=self._secret, now=now)
            called = read(event, body, now)
        except (BadCallbackError, msgspec.DecodeError) as error:
            self._journal.write(Refused(time=time.time(), reason=str(error)))
            return web.Response(status=REFUSED, text=str(error))
        every, seed = self._specification.stumble_every, self._specification.seed
        if event not in self._stumbled and stumbles(event, every, seed):
            self._stumbled.add(event)
            called = msgspec.structs.replace(called, status=STUMBLED)
        self._journal.write(called)
        return web.Response(status=called.status)


async def receive(specification: worker.Specification, journal: Journal, orders: worker.Orders) -> None:
    """Serve on a free port of the loopback address, write the URL to the ready file, go on until told to finish."""
    receiver = Receiver(specification, journal, os.environ[SECRET])
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/callbacks", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        host, port = runner.addresses[0][:2]
        _publish(specification.ready, f"http://{host}:{port}/callbacks")
        await orders.finish.wait()
    finally:
        await runner.cleanup()


def _publish(path: Path, url: str) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text(url, encoding="ascii")
    fresh.replace(path)


if __name__ == "__main__":
    worker.run(receive)
