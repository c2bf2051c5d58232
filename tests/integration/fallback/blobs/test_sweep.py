"""Content that belongs to nobody, or to nobody any more: it goes, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fallback import intake, keys
from fallback.blobs import Blob
from fallback.blobs.chunks import Chunks
from fallback.blobs.folder import Folder
from fallback.config import Config
from fallback.errors import ConflictError, OverError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.store import parse
from tests.integration.fallback.blobs.contents import INPUTS, SUBJECT, contents_in_redis
from tests.queueing import MakeParking, park

# Parks in a process of its own, which says when the content is written and goes no further.
CHILD = """
import asyncio, sys
from fallback import intake
from fallback.blobs.chunks import Chunks
from fallback.blobs import folder
from fallback.config import Config, FallbackSettings, QueueSettings
from pathlib import Path
import msgspec
from fallback.deferral import Parking
from fallback.queue import Queue

place, where, root = sys.argv[1:]

def stop(*_, **__):
    print("written", flush=True)
    import time
    time.sleep(60)

if where == "before the record":
    intake._send = stop
else:
    write, count = Chunks._write, 0
    async def some(*given):
        global count
        count += 1
        return await write(*given) if count == 1 else stop()
    Chunks._write = some
    folder.Path.replace = stop

async def main():
    settings = FallbackSettings(blobs=place, blob_bytes_min=1024)
    queues = {"default": QueueSettings(orphan_seconds=1)}
    queue = Queue.connect(Config(data_folder=Path(root), tables={"fallback": settings}, queues=queues))
    parking = msgspec.json.decode(sys.stdin.buffer.read(), type=Parking)
    await queue.park([parking])

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["before the record", "while writing"])
async def test_a_process_killed_before_the_record_leaves_only_an_orphan(
    open_queue: Callable[..., Queue],
    parking: MakeParking,
    config: Config,
    place: str,
    files: Callable[[], list[Path]],
    where: str,
) -> None:
    """Killed -9 after the content is written, and half way through: nothing is parked, and soon nothing left."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, place, where, str(config.data_folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(msgspec.json.encode(parking(subject=SUBJECT * 3, inputs=INPUTS)))
    child.stdin.close()
    assert await child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    await child.wait()
    queue = open_queue(orphan_seconds=1)
    assert files() if place == "folder" else await contents_in_redis(queue)
    assert (await queue.list_deferrals("digits")) == ([], "")
    await queue.reap()
    await asyncio.sleep(1.2)
    swept = (await queue.reap()).swept
    assert (await contents_in_redis(queue), files()) == ([], [])
    assert bool(swept) == (place == "folder")


async def test_the_sweep_leaves_what_belongs_to_somebody(
    open_queue: Callable[..., Queue], parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """However old it is; only what nobody accepted goes."""
    queue = open_queue(orphan_seconds=1)
    name = await park(queue, parking(subject=SUBJECT))
    for path in files():
        os.utime(path, (1, 1))
    await asyncio.sleep(1.1)
    for _ in range(3):
        await queue.reap()
    assert await queue.subject(name) == SUBJECT


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("inputs", [b"", b"small", INPUTS])
async def test_a_slow_request_never_stands_without_its_file(
    open_queue: Callable[..., Queue],
    parking: MakeParking,
    files: Callable[[], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    looks: int,
    inputs: bytes,
) -> None:
    """Stopped between file and record: the sweep spares the file while it is noted; without its note it is refused."""
    queue, reaper = open_queue(orphan_seconds=1), open_queue(orphan_seconds=1)
    send = intake._send

    async def late(*given: Any, **named: Any) -> Any:
        for path in files():
            os.utime(path, (1, 1))
        for look in range(looks):
            await asyncio.sleep(1.1 * bool(look))
            await reaper.reap()
        return await send(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "_send", late)
        (verdict,) = await queue.park([parking(subject=SUBJECT, inputs=inputs)])
    if looks == 1:
        assert isinstance(verdict, Parked)
    else:
        assert isinstance(verdict, UnavailableError)
        assert (await queue.list_deferrals("digits"), files()) == (([], ""), [])
        (verdict,) = await queue.park([parking(subject=SUBJECT, inputs=inputs)])
        assert isinstance(verdict, Parked)
    for path in files():
        os.utime(path, (1, 1))
    await asyncio.sleep(1.1)
    await reaper.reap()
    assert (await queue.subject(verdict.name), await queue.inputs(verdict.name)) == (SUBJECT, inputs)
    assert not await queue._store.connection.redis.exists(keys.index("digits", "arriving"))


async def test_when_retention_is_over_content_goes(
    open_queue: Callable[..., Queue], parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """With the record; what a reaper that died after the record left goes by the sweep."""
    queue = open_queue(retention_seconds=1, orphan_seconds=1)
    for _ in range(2):
        name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS, callback=None))
        await queue.cancel(name, request_id=name)
        assert await queue.subject(name) == SUBJECT
    await asyncio.sleep(1.1)
    assert (await queue.reap()).purged == 2
    assert (await contents_in_redis(queue), files()) == ([], [])
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS, callback=None))
    await queue.cancel(name, request_id=name)
    await asyncio.sleep(1.1)
    await queue._store.run("purge", "digits", 10, 1000)  # ... and dies before it deletes the files
    for _ in range(2):
        await queue.reap()
        await asyncio.sleep(1.1)
    assert (await contents_in_redis(queue), files()) == ([], [])


async def test_what_is_not_accepted_leaves_nothing_behind(
    open_queue: Callable[..., Queue], parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """A retry, another input under the same key, a full queue: the content that came with it is deleted at once."""
    queue = open_queue(depth_max=1)
    first = parking(subject=SUBJECT, inputs=INPUTS, idempotency_key="k")
    name = await park(queue, first)
    before = (await contents_in_redis(queue), files())
    assert await queue.park([first]) == [Parked(name=name, created=False)]
    (conflict,) = await queue.park([parking(subject=INPUTS, idempotency_key="k", input_digest="1" * 64)])
    (full,) = await queue.park([parking(subject=SUBJECT)])
    assert (type(conflict), type(full)) == (ConflictError, OverError)
    assert (await contents_in_redis(queue), files()) == before
    assert await queue.subject(name) == SUBJECT


@pytest.mark.parametrize("place", ["redis"], indirect=True)
async def test_a_write_that_arrives_late_takes_nothing_from_what_was_accepted(
    queue: Queue, parking: MakeParking
) -> None:
    """From a connection that was given up for dead: it makes an orphan, with a time to live, and changes no content."""
    name = await park(queue, parking(subject=SUBJECT, inputs=b""))
    late = Blob(*parse(name), "subject")
    await Chunks(queue._store.connection).put(late, INPUTS, orphan_seconds=5)
    redis = queue._store.connection.redis
    assert await redis.ttl(keys.subject(*parse(name))) == -1
    assert 0 < await redis.ttl(keys.upload(*late)) <= 5
    assert await queue.subject(name) == SUBJECT


async def test_a_write_that_takes_too_long_is_not_parked(
    open_queue: Callable[..., Queue], parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be swept before its record stands: the client is told to try again."""
    queue = open_queue(orphan_seconds=1)

    async def slow(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0.6)

    for kind in (Chunks, Folder):
        monkeypatch.setattr(kind, "put", slow)
    (verdict,) = await queue.park([parking(subject=SUBJECT)])
    assert isinstance(verdict, UnavailableError)
