"""A queue whose large content lies in one place after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.queue import Queue


@pytest.fixture(params=["redis", "folder"])
def place(request: pytest.FixtureRequest) -> str:
    """Where large content lies."""
    return str(request.param)


@pytest.fixture
async def open_queue(config: Config, place: str) -> AsyncIterator[Callable[..., Queue]]:
    """Opens a queue that puts content of more than 1 KiB there."""
    opened: list[Queue] = []

    def open_(**settings: Any) -> Queue:
        fallback = FallbackSettings(blobs=place, blob_bytes_min=1024, blob_concurrency_max=2)  # type: ignore[arg-type]  # from a parameter
        tables, queues = {"fallback": fallback}, {"default": QueueSettings(**settings)}
        opened.append(Queue.connect(Config(data_folder=config.data_folder, tables=tables, queues=queues)))
        return opened[-1]

    yield open_
    for queue in opened:
        await queue.close()


@pytest.fixture
def files(config: Config) -> Callable[[], list[Path]]:
    """Lists what lies in the folder."""
    root = config.data_folder / "blobs"
    return lambda: sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".clock")
