"""Large content, in both places it may lie: written first, found again, checked, gone when it should be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fallback import intake, keys
from fallback.answer import CantTell, Identity
from fallback.blobs import Blob
from fallback.blobs.chunks import CHUNK_BYTES, Chunks
from fallback.blobs.folder import Folder
from fallback.config import Config, FallbackSettings, QueueSettings
from fallback.connection import Connection
from fallback.deferral import Content, Deferral, Parking, State
from fallback.errors import ConflictError, FullError, NotFoundError, OverError, StateError, UnavailableError
from fallback.queue import Parked, Queue
from fallback.store import parse

MakeParking = Callable[..., Parking]
SUBJECT = os.urandom(3 * CHUNK_BYTES + 17)
INPUTS = os.urandom(5 * CHUNK_BYTES)
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
def queue(open_queue: Callable[..., Queue]) -> Queue:
    """A queue with the default settings."""
    return open_queue()


@pytest.fixture
def files(config: Config) -> Callable[[], list[Path]]:
    """Lists what lies in the folder."""
    root = config.data_folder / "blobs"
    return lambda: sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".clock")


async def contents_in_redis(queue: Queue) -> list[bytes]:
    """The keys of all contents."""
    return sorted([key async for key in queue._store.connection.redis.scan_iter("demur:1:{*}:b:*")])


async def park(queue: Queue, parking: Parking) -> str:
    (parked,) = await queue.park([parking])
    assert isinstance(parked, Parked), parked
    return parked.name


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
    name = await park(queue, parking(subject=SUBJECT, inputs=b"", task=type(task)(**_with_cant_tell(task))))
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


def _with_cant_tell(task: Any) -> dict[str, Any]:
    return {**{field: getattr(task, field) for field in task.__struct_fields__}, "cant_tell": True}


async def test_small_content_is_checked_too(queue: Queue, parking: MakeParking, ann: Identity) -> None:
    """A string that somebody changed is not shown to anybody as what was parked."""
    name = await park(queue, parking())
    await queue._store.connection.redis.set(keys.subject(*parse(name)), b"another picture")
    (lease,) = await queue.lease("digits", reviewer=ann)
    assert (lease.subject, lease.deferral.content) == (b"", Content.LOST)


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


@pytest.mark.parametrize("when", ["open", "held", "resolved"])
async def test_erased_content_is_gone_for_good(
    queue: Queue, parking: MakeParking, ann: Identity, bob: Identity, when: str, files: Callable[[], list[Path]]
) -> None:
    """Subject, inputs and drafts go from both places; state, digests, counts, comments stay; a repeat says the same."""
    task = type(parking().task)(**_with_cant_tell(parking().task))
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS, task=task))
    before = await queue.get(name)
    if when != "open":
        (lease,) = await queue.lease("digits", reviewer=ann)
        await queue.save_draft(lease.token, reviewer=ann, draft='"a name"', request_id="d")
        if when == "resolved":
            await queue.submit(lease.token, reviewer=ann, answer=CantTell(), comment="blurred", request_id="s")
        before = await queue.get(name)
    erased = await queue.erase(name, request_id="e")
    assert erased == _like(before, content=Content.ERASED)
    assert await queue.erase(name, request_id="e") == erased
    assert await queue.erase(name, request_id="another") == erased
    assert (await contents_in_redis(queue), files()) == ([], [])
    assert not await queue._store.connection.redis.exists(keys.drafts(*parse(name)))
    for read in (queue.subject, queue.inputs):
        with pytest.raises(NotFoundError, match="was erased"):
            await read(name)
    if when == "held":
        with pytest.raises(StateError, match="its content was erased"):
            await queue.save_draft(lease.token, reviewer=ann, draft='"a name"', request_id="d2")
        assert not await queue._store.connection.redis.exists(keys.drafts(*parse(name)))
    if when == "open":
        (lease,) = await queue.lease("digits", reviewer=bob)
        assert (lease.subject, lease.deferral.content) == (b"", Content.ERASED)
        done = await queue.submit(lease.token, reviewer=bob, answer=CantTell(), request_id="b")
        assert (done.state, done.content) == (State.RESOLVED, Content.ERASED)
    assert await queue.reconcile() == []


def _like(deferral: Deferral, **changes: Any) -> Deferral:
    return msgspec.structs.replace(deferral, **changes)


async def test_small_content_is_erased_as_well(queue: Queue, parking: MakeParking) -> None:
    """Where it stands beside its record; what is not there cannot be erased."""
    name = await park(queue, parking())
    assert (await queue.erase(name, request_id="1")).content is Content.ERASED
    assert await contents_in_redis(queue) == []
    with pytest.raises(NotFoundError):
        await queue.erase("queues/digits/deferrals/nosuch", request_id="2")


async def test_a_process_killed_while_erasing_leaves_its_file_to_the_sweep(
    open_queue: Callable[..., Queue], parking: MakeParking, files: Callable[[], list[Path]]
) -> None:
    """The record says that it is erased; a file that is still there goes although the record stands."""
    queue = open_queue(orphan_seconds=1)
    name = await park(queue, parking(subject=SUBJECT, inputs=INPUTS))
    await queue._store.run("erase", *parse(name), "")  # ... and dies before it deletes the files
    await queue.reap()
    await asyncio.sleep(1.2)
    await queue.reap()
    assert (await contents_in_redis(queue), files()) == ([], [])
    assert (await queue.get(name)).content is Content.ERASED


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
