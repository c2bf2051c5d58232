"""The page's JSON API for tests, on a real port, called as a browser would."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import aiohttp
import msgspec

from fallback.answer import Label, LabelOption, Task
from fallback.config import Config
from fallback.deferral import Parking, Prediction
from fallback.identity import Credentials
from fallback.queue import Parked, Queue
from fallback.workbench.app import build
from tests.serving import served

TASK = Task(question="Which?", labels=(LabelOption(label="3", key="3"), LabelOption(label="8", key="8")))
REQUEST_ID = "0123456789abcdef"


class Page:
    """The server's address and what a page would send to it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, queue: Queue) -> None:
        self.session = session
        self.url = url
        self.queue = queue

    async def call(
        self, path: str, body: object = None, *, name: str = "Ada", headers: dict[str, str | None] | None = None
    ) -> tuple[int, Any]:
        """Call the API; a header of None is left out."""
        sent: dict[str, str | None] = {"X-Demur-Page": "1", "X-Demur-Identity": name, **(headers or {})}
        method = "GET" if body is None else "POST"
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        kept = {key: value for key, value in sent.items() if value is not None}
        if content is not None:
            kept.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, f"{self.url}/api/{path}", data=content and io.BytesIO(content), headers=kept
        ) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def park(self, key: str = "one") -> str:
        """Park one digit and return its name."""
        parking = Parking(
            queue="digits",
            client="test",
            idempotency_key=key,
            input_digest=sha256(key.encode()).hexdigest(),
            task=TASK,
            subject=b"\x89PNG\r\n\x1a\n",
            media_type="image/png",
            attributes={"site": "north"},
            prediction=Prediction(model="digits", version="1", answer=Label(label="8"), confidence=0.5),
            reasons=("threshold",),
        )
        [parked] = await self.queue.park([parking])
        assert isinstance(parked, Parked)
        return parked.name

    async def lease(self, **changes: object) -> dict[str, Any]:
        """Take one item and return its lease."""
        status, reply = await self.call("lease", {"queue": "digits", **changes})
        assert status == 200
        [lease] = reply["leases"]
        assert isinstance(lease, dict)
        return lease


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Page]:
    """Serve the app under uvicorn on a free port."""
    queue = Queue.connect(config)
    async with served(build(queue, Credentials(), config)) as url, aiohttp.ClientSession() as session:
        yield Page(session, url, queue)
    await queue.close()
