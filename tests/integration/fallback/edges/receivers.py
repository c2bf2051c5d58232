"""Receivers of callbacks, and what they are called about."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any

import trustme
from aiohttp import web

from fallback.address import Rule
from fallback.answer import Label, LabelOption, Task
from fallback.callback import Caller, NotTold, Told
from fallback.deferral import Callback, Deferral, OnExpiry, Outcome, Prediction, Source, State
from fallback.queue import Delivery

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
LOOPBACK = ("127.0.0.0/8", "::1/128")


def delivery(*, webhook: str = "", target: str = "", attempt: int = 1) -> Delivery:
    """A resolved deferral to tell."""
    return Delivery(
        id="0123456789abcdef",
        type="deferral.resolved",
        deferral=Deferral(
            id="0123456789abcdef",
            queue="digits",
            state=State.RESOLVED,
            version=3,
            task=Task(question="Which digit?", labels=(LabelOption(label="7"),)),
            prediction=Prediction(model="digits", version="2", answer=Label("1"), confidence=0.5),
            draw=None,
            outcome=Outcome(source=Source.PERSON, answer=Label("7"), reviewed=True, create_time=1_700_000_000.25),
            reviews=(),
            reviews_wanted=1,
            create_time=1_699_999_999.0,
            expire_time=1_700_086_399.0,
            client="shop",
            priority=0,
            attributes={},
            media_type="image/png",
            reasons=("threshold",),
            audit=False,
            callback=None,
            on_expiry=OnExpiry.ABSTAIN,
            subject_digest="",
            inputs_digest="",
        ),
        callback=Callback(webhook_url=webhook, grpc_target=target),
        attempt=attempt,
        create_time=1_700_000_000.25,
    )


@dataclass
class Receiver:
    """A real HTTP receiver that keeps what it got and answers what it was told to."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay_seconds)
        return web.Response(status=self.status, headers=self.headers, body=self.body)


async def call(
    to: Delivery, *, allow: tuple[str, ...] = LOOPBACK, timeout_seconds: float = 5.0, **options: Any
) -> Told | NotTold:
    given = {"secret": SECRET, "rule": Rule(allow), "timeout_seconds": timeout_seconds, **options}
    async with Caller(**given) as caller:
        return await caller.call(to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A certificate of localhost and 127.0.0.1, and the file of the authority that issued it."""

    certificate: trustme.LeafCert
    ca_file: str
