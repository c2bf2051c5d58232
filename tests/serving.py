"""The page for tests: served on a free port of the loopback address, and opened in a browser."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

import uvicorn
from PIL import Image
from playwright.async_api import BrowserContext, Page, expect
from sklearn.datasets import load_digits
from starlette.applications import Starlette

from fallback.answer import Answer, LabelOption, Task
from fallback.deferral import Deferral, Parking, Prediction
from fallback.queue import Parked, Queue

DIGIT = Task(
    question="Which digit is this?",
    guidelines="Judge what was meant.",
    labels=tuple(LabelOption(label=str(digit), key=str(digit)) for digit in range(10)),
)
# How long a lease of the queue "brief" lasts: the page looks once a second whether to extend.
BRIEF_SECONDS = 2.5
# How long an answer in the queue "undo" can be taken back.
UNDO_SECONDS = 3.0


class _Server(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve `app` and yield its address; end it, with what still waits, afterwards."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1)
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await server.up.wait()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        app.state.drain()
        server.should_exit = True
        await serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The page's address, the browser, and the queue behind it."""

    url: str
    context: BrowserContext
    queue: Queue

    async def open(self, queue: str = "digits", *, name: str = "Ada", page: Page | None = None) -> Page:
        """Open a tab, or this one, on a queue and say a name, where it is not known yet."""
        page = page or await self.context.new_page()
        await page.goto(f"{self.url}/?queue={queue}")
        await page.locator("#sign-in, .review, .why").first.wait_for()
        if await page.locator("#sign-in").count():
            await page.keyboard.type(name)
            await page.keyboard.press("Enter")
            await page.locator(".review, .why").first.wait_for()
        return page

    async def park(
        self,
        subject: bytes,
        media_type: str,
        *,
        task: Task = DIGIT,
        guess: Answer | None = None,
        queue: str = "digits",
    ) -> str:
        """Park one item and return its name."""
        key = sha256(os.urandom(16)).hexdigest()
        prediction = None if guess is None else Prediction(model="m", version="1", answer=guess, confidence=0.625)
        parking = Parking(
            queue=queue,
            client="test",
            idempotency_key=key,
            input_digest=key,
            task=task,
            subject=subject,
            media_type=media_type,
            attributes={"site": "north"},
            prediction=prediction,
        )
        [parked] = await self.queue.park([parking])
        assert isinstance(parked, Parked)
        return parked.name

    async def skipped(self, name: str) -> Deferral:
        """Return the deferral once somebody skipped it: the page goes on before that is written."""
        async with asyncio.timeout(10):
            while not (found := await self.queue.get(name)).skips:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        return found

    async def settled(self, name: str) -> Deferral:
        """Return the deferral once it has its outcome."""
        return await self.queue.wait(name, timeout_seconds=10)


def digit(index: int) -> tuple[bytes, int]:
    """Return one of scikit-learn's real handwritten digits as an 8x8 PNG, and which it is."""
    digits = load_digits()
    picture = io.BytesIO()
    Image.fromarray((digits.images[index] * 15.9375).astype("uint8")).save(picture, "PNG")
    return picture.getvalue(), int(digits.target[index])


async def current(page: Page) -> str:
    """The name of the deferral that is on the page."""
    name = await page.locator(".review").get_attribute("data-deferral")
    assert name is not None
    return name


async def next_after(page: Page, name: str) -> None:
    """Wait until another item, or none, is on the page."""
    await expect(page.locator(f'.review[data-deferral="{name}"]')).to_have_count(0)
