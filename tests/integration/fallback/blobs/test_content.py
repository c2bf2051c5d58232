"""Large content, in both places it may lie: written first, found again, checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fallback import keys
from fallback.answer import CantTell, Identity
from fallback.blobs import Blob
from fallback.blobs.chunks import CHUNK_BYTES, Chunks
from fallback.blobs.folder import Folder
from fallback.config import Config
from fallback.connection import Connection
from fallback.deferral import Content, State
from fallback.errors import FullError, NotFoundError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.store import parse
from tests.integration.fallback.blobs.contents import INPUTS, SUBJECT, contents_in_redis, with_cant_tell
from tests.queueing import MakeParking, park


async def spoil(queue: Queue, name: str, place: str, files: Callable[[], list[Path]], how: str) -> None:
    """Do to a subject what a disk or an operator might."""
    redis, key = queue._store.connection.redis, keys.subject(*parse(name))
    path = next((path for path in files() if path.suffix == ".subject"), None)
    if place == "redis":
        await {
            "gone": lambda: redis.unlink(key),
            "short": lambda: redis.hdel(key, "3"),
            "altered": lambda: redis.hset(key, "1", bytes(CHUNK_BYTES)),
        }[how]()
    elif path is not None:
        match how:
            case "gone":
                path.unlink()
            case "short":
                path.write_bytes(SUBJECT[:-1])
            case "altered":
                path.write_bytes(SUBJECT + b"x")


async def test_large_content_is_found_again(
    queue: Queue, parking: MakeParking, ann: Identity, place: str, files: Callable[[], list[Path]]
) -> None:
    """By whoever leases, byte for byte; it lies where the setting says, for as long as its record."""
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS))
    assert await queue.subject(name) == SUBJECT
    assert await queue.inputs(name) == INPUTS
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert (lease.subject, lease.deferral.content) == (SUBJECT, Content.PRESENT)
    assert (await queue.get(name)).content is Content.PRESENT
    found = await contents_in_redis(queue)
    if place == "redis":
        assert found == [key.encode() for key in (keys.inputs(*parse(name)), keys.subject(*parse(name)))]
        assert [await queue._store.connection.redis.ttl(key) for key in found] == [-1, -1]
        assert await queue._store.connection.redis.hlen(keys.subject(*parse(name))) == 4
    else:
        assert found == []
        assert [path.read_bytes() for path in files()] == [INPUTS, SUBJECT]
        assert all(path.stat().st_mode & 0o077 == 0 for path in files())


async def test_content_stays_where_the_server_had_no_memory_for_a_part_of_a_request(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are refused one by one, so what comes after a refused one may be done; then its content is in use."""
    run_all = Connection.run_all

    async def fail(self: Connection, *given: Any) -> Any:
        await run_all(self, *given)
        raise FullError("no memory left", retry_after_seconds=10.0)

    monkeypatch.setattr(Connection, "run_all", fail)
    (verdict,) = await queue.park([parking(subject=SUBJECT)])
    assert isinstance(verdict, FullError)
    ((deferral,), _) = await queue.list_deferrals("digits")
    assert await queue.subject(deferral.name) == SUBJECT


async def test_small_content_stands_beside_its_record_as_ever(
    queue: Queue, parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """One string each, no more fields; a large one in the same batch changes nothing of that."""
    verdicts = await queue.park([parking(), parking(subject=SUBJECT), parking(subject=b"x" * 1024, inputs=b"")])
    names = [verdict.name for verdict in verdicts if isinstance(verdict, Parked)]
    assert [await queue.subject(name) for name in names] == [b"a picture", SUBJECT, b"x" * 1024]
    redis = queue._store.connection.redis
    assert await redis.get(keys.subject(*parse(names[0]))) == b"a picture"
    assert len(files()) <= 1
    fields = [set(await redis.hkeys(keys.record(*parse(name)))) for name in names]
    assert fields[0] == fields[1] == fields[2]


@pytest.mark.parametrize(("how", "said"), [("gone", "is gone"), ("short", "is short"), ("altered", "was altered")])
async def test_content_that_is_not_what_was_parked_is_said_so(
    queue: Queue,
    parking: MakeParking,
    ann: Identity,
    place: str,
    files: Callable[[], list[Path]],
    how: str,
    said: str,
) -> None:
    """Whoever reads it is refused with the reason; the item still comes, and a person can say that they can't tell."""
    task = parking().task
    name = await park(queue, parking(subject=SUBJECT, inputs=b"", task=type(task)(**with_cant_tell(task))))
    await spoil(queue, name, place, files, how)
    with pytest.raises(NotFoundError, match=said):
        await queue.subject(name)
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert (lease.subject, lease.deferral.content) == (b"", Content.LOST)
    if how == "gone":
        assert (await queue.get(name)).content is Content.LOST
        assert [one.content for one in (await queue.list_deferrals("digits"))[0]] == [Content.LOST]
    done = await queue.submit(lease.token, reviewer=ann, answer=CantTell(), request_id="1")
    assert done.state is State.RESOLVED


async def test_small_content_is_checked_too(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """A string that somebody changed is not shown to anybody as what was parked."""
    name = await park(queue, parking())
    await queue._store.connection.redis.set(keys.subject(*parse(name)), b"another picture")
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert (lease.subject, lease.deferral.content) == (b"", Content.LOST)


async def test_few_are_written_at_once_and_the_small_do_not_wait(
    queue: Queue, parking: MakeParking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the setting says; meanwhile others park and lease as ever."""
    at_once, most, let_go = 0, 0, asyncio.Event()

    def slow(put: Any) -> Any:
        async def held(*given: Any, **named: Any) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await let_go.wait()
            await put(*given, **named)
            at_once -= 1

        return held

    for kind in (Chunks, Folder):
        monkeypatch.setattr(kind, "put", slow(kind.put))
    waiting = [asyncio.create_task(park(queue, parking(subject=SUBJECT, inputs=b""))) for _ in range(6)]
    await asyncio.sleep(0.05)
    small = await asyncio.wait_for(park(queue, parking()), 5)
    assert (await queue.get(small)).state is State.OPEN
    assert not any(task.done() for task in waiting)
    let_go.set()
    await asyncio.gather(*waiting)
    assert most == 2


async def test_what_one_lease_call_brings_is_bounded(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large subjects beyond the limit go back at once, to whoever asks next; one always comes."""
    monkeypatch.setattr("fallback.leases.LEASE_BYTES_MAX", len(SUBJECT) * 2)
    for _ in range(4):
        await park(queue, parking(subject=SUBJECT, inputs=b""))
    assert len(await queue.lease("digits", reviewer=ann, limit=4)) == 2
    monkeypatch.setattr("fallback.leases.LEASE_BYTES_MAX", 1)
    assert len(await queue.lease("digits", reviewer=bob, limit=4)) == 1
    assert await queue.reconcile() == []


@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_a_folder_that_cannot_be_used_is_said_so(queue: Queue, parking: MakeParking, config: Config) -> None:
    """The request may be tried again; nothing was accepted."""
    (config.data_folder / "blobs").parent.mkdir(parents=True, exist_ok=True)
    (config.data_folder / "blobs").write_bytes(b"a file")
    (verdict,) = await queue.park([parking(subject=SUBJECT)])
    assert isinstance(verdict, UnavailableError)
    assert "folder of contents" in verdict.message
    assert (await queue.list_deferrals("digits")) == ([], "")


@pytest.mark.parametrize("place", ["folder"], indirect=True)
async def test_a_folder_that_is_not_mounted_is_no_lost_content(
    queue: Queue, parking: MakeParking, config: Config, ann: Identity
) -> None:
    """Nobody is asked about what cannot be seen for a while: whoever leases is told to try again."""
    name = await park(queue, parking(subject=SUBJECT, inputs=b""))
    root, away = config.data_folder / "blobs", config.data_folder / "away"
    root.rename(away)
    root.mkdir()
    with pytest.raises(UnavailableError, match="mounted"):
        await queue.lease("digits", reviewer=ann)
    assert (await queue.get(name)).content is Content.PRESENT
    root.rmdir()
    away.rename(root)
    assert await queue.subject(name) == SUBJECT


@pytest.mark.parametrize(
    "blob",
    [
        Blob("digits", "../../etc", "subject"),
        Blob("..", "a1", "subject"),
        Blob("digits", "a1", "../x"),
        Blob("q/r", "a", "inputs"),
    ],
)
async def test_a_path_is_made_of_ids_only(tmp_path: Path, blob: Blob) -> None:
    """Nothing that anybody says leads out of the folder."""
    with pytest.raises(ValueError, match="blob"):
        await Folder(tmp_path).get(blob, 10)
