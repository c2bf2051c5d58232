"""A browser, and the real page in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from fallback.config import Config, QueueSettings
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.workbench import app
from tests.browser import find
from tests.serving import BRIEF_SECONDS, UNDO_SECONDS, Site, served

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; without one these tests fail in CI and are skipped elsewhere."""
    found = find()
    if found is None:
        message = (
            "no Chromium: run `make test`, which looks for one and tries to install one, or name it in DEMUR_CHROMIUM"
        )
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A headless Chromium, for all tests; each has a context of its own, as a private window has."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(browser: Browser, config: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """The real app on a free port; the browser complains of nothing but failed loads."""
    # Each test ends with a waiting call, which sees that its caller has gone, or that the server stops, when it looks.
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.1)
    queues = {
        "assisted": QueueSettings(assisted=True),
        "brief": QueueSettings(lease_seconds=BRIEF_SECONDS),
        "shallow": QueueSettings(depth_max=1),
        "tiers": QueueSettings(tiers=("annotator", "radiologist")),
        "undo": QueueSettings(undo_seconds=UNDO_SECONDS),
    }
    config = Config(data_folder=config.data_folder, queues=queues)
    queue = Queue.connect(config)
    context = await browser.new_context()
    complaints: list[str] = []
    context.on("weberror", lambda fault: complaints.append(str(fault.error)))
    context.on(
        "console",
        lambda line: (
            complaints.append(line.text)
            if line.type in {"error", "warning"} and "Failed to load resource" not in line.text
            else None
        ),
    )
    async with served(app.build(queue, Credentials(), config)) as url:
        yield Site(url=url, context=context, queue=queue)
        await context.close()
    await queue.close()
    assert complaints == []
