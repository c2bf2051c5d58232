"""Changes of models that go wrong half-way: what is live and what is written stay the same thing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from demur.v1 import model_pb2 as pb
from fallback.config import Config
from fallback.documents import Document
from fallback.errors import FullError, OverdueError, StateError, UnavailableError
from fallback.identity import Credentials
from gateway.admission import Limits
from gateway.model_service import ModelService
from gateway.policy import Policy
from gateway.registry import ModelVersion
from tests.integration.gateway.model_stand import TEXT, Call, Gateway, content_of
from tests.live_gateway import JUDGED, install, promote, running, settings, told

SECONDS = 10.0


@pytest.fixture
async def gateway(config: Config, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(config, tmp_path / "one")
    yield made
    await made.close()


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_a_promotion_ends_though_its_caller_left(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose deadline passes while the version loads leaves no version live that nothing says is."""
    await gateway.publish("m", content_of(0), promote=True)
    await gateway.publish("m", content_of(1))
    loading, go_on, ensure = asyncio.Event(), asyncio.Event(), gateway.champions.ensure

    async def slow(version: ModelVersion) -> None:
        loading.set()
        await go_on.wait()
        await ensure(version)

    monkeypatch.setattr(gateway.champions, "ensure", slow)
    promoting = asyncio.create_task(gateway.promote("2"))
    await loading.wait()
    promoting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await promoting
    go_on.set()
    async with gateway.watch.lock("m"):
        assert gateway.champions.live("m") == "2"
    assert await gateway.states() == {"1": "RETIRED", "2": "CHAMPION"}


@pytest.mark.parametrize("before", ["", "1"])
async def test_a_promotion_that_cannot_be_written_is_taken_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """What was live before is live again, nothing where there was nothing."""
    await gateway.publish("m", content_of(0), promote=bool(before))
    await gateway.publish("m", content_of(1))

    async def away(*_: object, **__: object) -> Document:
        raise UnavailableError("redis is away", retry_after_seconds=1.0)

    monkeypatch.setattr(gateway.documents, "write", away)
    with pytest.raises(UnavailableError):
        await gateway.promote("2")
    assert gateway.champions.live("m") == before


async def test_who_comes_second_with_the_same_promotion_keeps_it_live(
    gateway: Gateway, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway was first: this one's call is refused, and serves what the states say, not what they said."""
    other = Gateway(config, tmp_path / "other")
    await gateway.publish("m", content_of(0), promote=True)
    await gateway.publish("m", content_of(1))
    write = gateway.documents.write

    async def late(key: str, body: bytes, *, expected_revision: int | None) -> Document:
        await other.promote("2")
        return await write(key, body, expected_revision=expected_revision)

    monkeypatch.setattr(gateway.documents, "write", late)
    with pytest.raises(StateError, match="version 2 is the champion already"):
        await gateway.promote("2")
    assert gateway.champions.live("m") == other.champions.live("m") == "2"
    await other.close()


async def test_a_gateway_follows_on_after_trouble_that_nobody_foresaw(gateway: Gateway, config: Config) -> None:
    """A manifest that is no text is that version's trouble; the next promotion is taken."""
    folder = config.data_folder
    for number in ("1", "2", "3"):
        install(folder, "m", number, told(int(number)), JUDGED)
    await asyncio.to_thread(promote, config, "m", "1")
    await gateway.watch.start()
    following = asyncio.create_task(gateway.watch.run())
    (folder / "models" / "m" / "2" / "manifest.toml").write_bytes(b"\xff\xfe")
    await asyncio.to_thread(promote, config, "m", "2")
    await asyncio.sleep(0.2)
    assert gateway.champions.live("m") == "1"
    await asyncio.to_thread(promote, config, "m", "3")
    await _until(lambda: gateway.champions.live("m") == "3")
    following.cancel()


async def test_an_older_look_does_not_undo_a_newer_policy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that was set while the watch was reading stays in force."""
    await gateway.publish("m", content_of(), promote=True)
    await gateway.set_policy(pb.Policy(model="m", threshold=0.25, audit_share=0))
    read_all, wrong = gateway.documents.read_all, []

    async def late(prefix: str) -> dict[str, Document]:
        found = await read_all(prefix)
        await gateway.set_policy(pb.Policy(model="m", threshold=0.75, audit_share=0))
        return found

    take = gateway.champions.set_policy

    def noted(model: str, policy: Policy) -> None:
        wrong.append(policy.threshold)
        take(model, policy)

    monkeypatch.setattr(gateway.documents, "read_all", late)
    monkeypatch.setattr(gateway.champions, "set_policy", noted)
    await gateway.watch.start()
    assert set(wrong) == {0.75}
    assert gateway.champions.policy("m").threshold == 0.75


def test_a_policy_that_comes_while_a_version_loads_is_kept(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that is swapped in is judged by it from its first moments on."""
    for number in ("1", "2"):
        install(config.data_folder, "m", number, told(int(number)), JUDGED)
    promote(config, "m", "1")
    with running(settings(config)) as gateway:
        champion, swap = gateway.champions.find("m").champion, gateway.champions.find("m").champion.swap

        def slow(version: ModelVersion, policy: Policy) -> Any:
            live = swap(version, policy)
            gateway.champions.set_policy("m", Policy(threshold=0.125))
            swap(version, policy)  # as if it came before the assignment
            return live

        monkeypatch.setattr(champion, "swap", slow)
        gateway._slow.run(gateway.champions.ensure(gateway.registry.get("m", "2")), timeout_seconds=SECONDS)
        live = champion.live
        assert live is not None
        assert (live.version.version, live.rules.policy.threshold) == ("2", 0.125)


def _service(gateway: Gateway, chunk_seconds_max: float) -> ModelService:
    return ModelService(
        registry=gateway.registry,
        documents=gateway.documents,
        watch=gateway.watch,
        limits=Limits(),
        credentials=Credentials(),
        chunk_seconds_max=chunk_seconds_max,
    )


class Stalled(Call):
    """An upload whose publisher sends a header and then nothing."""

    def __init__(self) -> None:
        header = pb.PublishModelVersionRequest.Header(model="m", manifest=TEXT)
        super().__init__("PublishModelVersion", [pb.PublishModelVersionRequest(header=header).SerializeToString(), b""])

    async def receive(self) -> bytes | None:
        message = await super().receive()
        if not message:
            await asyncio.Event().wait()
        return message


async def test_uploads_are_bounded_in_number_and_in_patience(gateway: Gateway) -> None:
    """A publisher that stalls is let go and leaves nothing on the disk; one too many is told to come back."""
    service = _service(gateway, 0.5)
    publish = service.routes()["/demur.v1.ModelService/PublishModelVersion"]
    calls = [Stalled() for _ in range(5)]
    await asyncio.gather(*(publish(call) for call in calls))
    failed = sorted(type(call.failed).__name__ for call in calls)
    assert failed == [FullError.__name__, *([OverdueError.__name__] * 4)]
    assert [*gateway.registry.folder.iterdir()] == []


async def test_what_a_killed_gateway_left_of_an_upload_is_swept(gateway: Gateway) -> None:
    """A folder of yesterday's is gone with the next upload; a fresh one may be somebody's."""
    old, fresh = gateway.registry.upload_folder(), gateway.registry.upload_folder()
    os.utime(old, (0, 0))
    await gateway.publish("m", content_of())
    assert (old.exists(), fresh.exists()) == (False, True)
