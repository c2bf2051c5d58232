"""A gateway whose answers are certified, and where what it leaves as evidence is looked for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from fallback.arrivals import START, Arrivals
from fallback.config import Config, RedisSettings
from fallback.deferral import Deferral
from fallback.documents import Documents
from fallback.queue import Queue
from fallback.secret import secret
from gateway.certification import CERTIFICATIONS, Certification
from gateway.client import Client
from gateway.policy import Policy, draw
from gateway.request import request_key
from gateway.samples import epoch_secret
from gateway.server import SPOOLS_FOLDER
from tests.evidence import Evidence
from tests.live_gateway import JUDGED, install, promote, settings, told

EPOCH: Final = "1"
SHARE: Final = 0.5
POLICY: Final = Policy(alpha=0.05, audit_share=SHARE, scorer="max_softmax")
PROVED: Final = Certification(
    epoch=EPOCH,
    scorer="max_softmax",
    versions=("1",),
    version="1",
    tau=0.8,
    certificate="certificate-1",
    begin_second=0,
    expire_second=2**40,
)
UNPROVED: Final = msgspec.structs.replace(PROVED, tau=None, certificate="", version="")
REQUESTS: Final = 16
SECONDS: Final = 20.0


def configured(folder: Path, url: str, **fields: Any) -> Config:
    redis = RedisSettings(url=url, connect_timeout_seconds=0.5, command_timeout_seconds=1.0)
    return settings(Config(data_folder=folder), {"redis": redis}, **fields)


def lay_down(config: Config, policy: Policy = POLICY, certification: Certification | None = PROVED) -> None:
    install(config.data_folder, "m", "1", told(1), msgspec.structs.replace(JUDGED, policy=policy))
    promote(config, "m", "1")
    if certification is not None:
        write(config, CERTIFICATIONS + "m", certification)


def write(config: Config, key: str, content: msgspec.Struct) -> None:
    async def write() -> None:
        documents = Documents.connect(config)
        try:
            found = await documents.read(key)
            await documents.write(key, msgspec.json.encode(content), expected_revision=found.revision if found else 0)
        finally:
            await documents.close()

    asyncio.run(write())


def ask(address: str, x: Any, **fields: Any) -> Any:
    async def ask() -> Any:
        async with Client(address, identity="shop") as client:
            return await client.predict("m", inputs={"x": x}, **fields)

    return asyncio.run(ask())


def evidence_of(config: Config) -> Evidence:
    """What is in the stream."""

    async def read() -> list[bytes]:
        arrivals = Arrivals.connect(config)
        try:
            return [row for _, row in await arrivals.read("m", START)]
        finally:
            await arrivals.close()

    evidence = Evidence()
    evidence.take(asyncio.run(read()))
    return evidence


def deferrals_of(config: Config) -> list[Deferral]:
    """What was parked."""

    async def read() -> list[Deferral]:
        queue = Queue.connect(config)
        try:
            found: list[Deferral] = []
            token = ""
            while True:
                page, token = await queue.list_deferrals("m", page_size=100, page_token=token)
                found += page
                if not token:
                    return found
        finally:
            await queue.close()

    return asyncio.run(read())


def until(done: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, f"not so after {SECONDS} s"
        time.sleep(0.1)


def spools_of(config: Config) -> list[Path]:
    return [*(config.data_folder / SPOOLS_FOLDER).glob("*/*/")]


def draw_of(config: Config, key: str) -> float:
    return draw(secret_of(config), model="m", epoch=EPOCH, request_key=request_key("shop", key))


def secret_of(config: Config) -> bytes:
    return epoch_secret(secret(config, "audit").encode(), model="m", epoch=EPOCH)
