from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from demur.v1 import model_pb2 as pb
from fallback import embedded
from fallback.answer import Answer, CantTell, Label
from fallback.config import Config, RedisSettings
from fallback.documents import Documents
from fallback.errors import NotFoundError, StateError, UnavailableError
from fallback.queue import Queue
from gateway import manifest as manifests
from gateway.certification import CERTIFICATIONS, STANDINGS, Certification, Stage, Standing
from gateway.model_client import ModelClient
from gateway.server import Gateway
from tests import live_gateway
from trainer import digits, first, loop, retrain, shadowing
from trainer.config import TrainerSettings
from trainer.imports import Split
from trainer.ledger import locked
from trainer.reports import Result
from trainer.retrain import Rooms

Review = Callable[[dict[int, Answer]], Awaitable[list[str]]]
Truth = Callable[..., dict[int, Answer]]

TRAINER = TrainerSettings(retrain_after_reviews=40, poll_seconds=0.05, backoff_seconds_max=0.5, gateway="127.0.0.1:1")


@pytest.fixture
def gateway(config: Config) -> Iterator[Gateway]:
    """A real gateway on the same data folder."""
    with live_gateway.running(live_gateway.settings(config)) as running:
        yield running


@pytest.fixture
def learning(config: Config, gateway: Gateway) -> Config:
    """The configuration of a trainer that knows that gateway."""
    settings = msgspec.structs.replace(TRAINER, gateway=gateway.address)
    return Config(data_folder=config.data_folder, tables={"trainer": settings})


@pytest.fixture
async def client(learning: Config) -> AsyncIterator[ModelClient]:
    """The trainer's own client."""
    async with retrain.client(learning) as connected:
        yield connected


@pytest.fixture
async def rooms(learning: Config, client: ModelClient) -> Rooms:
    """A live first model of digits."""
    opened = Rooms.open(learning)
    assert await first.publish(opened, client, "digits", lambda _: None) == ("1", True)
    return opened


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.05)


async def test_the_first_model_is_published_once(rooms: Rooms, client: ModelClient) -> None:
    """A second `--first` finds it live and does nothing; under another name it is another model."""
    assert await first.publish(rooms, client, "digits", pytest.fail) == ("1", False)
    assert await first.publish(rooms, client, "numbers", lambda _: None) == ("1", True)
    assert rooms.registry.models() == ["digits", "numbers"]
    assert [len(file.examples) for file in rooms.imports.all("numbers")] == [200, 397]
    manifest = rooms.registry.get("digits", "1").manifest
    assert manifest.policy.audit_share == 0.1
    assert manifest.provenance["source"] == "sklearn.datasets.load_digits"


async def test_new_labels_become_a_new_live_version(
    learning: Config, rooms: Rooms, client: ModelClient, review: Review, truth: Truth
) -> None:
    """Reviews in, ledger, refit, gate, publish, promote; the manifest and the report say where it comes from."""
    answers = truth(150)
    names = list(answers)
    answers[names[0]] = CantTell()
    answers[names[1]] = Label("letter")
    await review(answers)
    await loop.catch_up(learning, rooms)
    report = await retrain.retrain(rooms, "digits", client, why="test")
    assert (report.result, report.version, report.parent) == (Result.PROMOTED, "2", "1"), report.reasons
    learned = rooms.registry.get("digits", "2").manifest.correctness
    assert learned is not None, "what its answers are worth was learnt too"
    assert len(learned.by_label) == 10
    assert report.counts is not None
    assert report.counts.skipped == {"cant_tell": 1, "unknown_label": 1}
    assert report.counts.rows == 150
    assert report.counts.replayed == 200
    assert 90 < report.counts.fresh < 148
    assert report.before is not None
    assert report.after is not None
    assert report.after.imported.accuracy > report.before.imported.accuracy
    assert await retrain.live_version(client, "digits") == "2"
    manifest = rooms.registry.get("digits", "2").manifest
    assert manifest.provenance["parent"] == "1"
    assert manifest.provenance["ledger_row"] == "150"
    assert manifest.provenance["dataset"] == report.dataset
    assert manifest.provenance["holdout_accuracy"] == f"{report.after.all.accuracy:.4f}"
    assert (manifest.task, manifest.labels, manifest.preprocess) == (
        rooms.registry.get("digits", "1").manifest.task,
        digits.LABELS,
        rooms.registry.get("digits", "1").manifest.preprocess,
    )
    assert rooms.reports.last("digits") == report
    again = await retrain.retrain(rooms, "digits", client, why="test")
    assert again.result is Result.UNCHANGED
    assert await retrain.live_version(client, "digits") == "2"


async def test_a_worse_candidate_is_reported_and_not_published(
    learning: Config, rooms: Rooms, client: ModelClient, review: Review, truth: Truth
) -> None:
    """Vandals: the champion stays, no version appears, the report says why."""
    wrong: dict[int, Answer] = {
        index: Label(str((int(answer.label) + 1) % 10))
        for index, answer in truth(100).items()
        if isinstance(answer, Label)
    }
    await review(wrong)
    await loop.catch_up(learning, rooms)
    report = await retrain.retrain(rooms, "digits", client, why="test")
    assert (report.result, report.version) == (Result.REJECTED, "")
    assert report.reasons
    assert [version.version for version in rooms.registry.versions("digits")] == ["1"]
    assert await retrain.live_version(client, "digits") == "1"


async def test_a_model_of_another_build_is_refused_with_the_reason(
    learning: Config, client: ModelClient, tmp_path: Path
) -> None:
    """No Gemm, no MatMul: the report says what stands there instead, with labels and before any; nothing changes."""
    artefact = tmp_path / "m.onnx"
    artefact.write_bytes(live_gateway.told(1))
    text = manifests.render(live_gateway.JUDGED)
    await client.publish("told", artefact, text, promote=True, reason="test")
    rooms = Rooms.open(learning)
    early = await retrain.retrain(rooms, "told", client, why="test")
    manifest = rooms.registry.get("told", "1").manifest
    rows = np.array([[0.8, 0.1, 0.1]] * 40, np.float32) + np.linspace(0, 0.01, 40, dtype=np.float32)[:, None]
    rooms.imports.add(manifest, {"x": rows}, ["a"] * 40, Split.TRAIN, examples_max=100)
    report = await retrain.retrain(rooms, "told", client, why="test")
    assert [found.counts.train for found in (early, report) if found.counts] == [0, 40]
    assert (early.result, early.reasons) == (report.result, report.reasons)
    assert report.result is Result.REFUSED
    assert "comes straight from the model's inputs" in report.reasons[0]
    assert await retrain.live_version(client, "told") == "1"


async def test_one_retraining_of_a_model_at_a_time(rooms: Rooms, client: ModelClient) -> None:
    """Whoever comes second is told, and nothing is done twice."""
    with locked(rooms.lock("digits")), pytest.raises(StateError, match="another trainer holds it"):
        await retrain.retrain(rooms, "digits", client, why="test")


async def test_a_model_without_a_live_version_is_named(learning: Config, client: ModelClient) -> None:
    """And the sentence says what to do."""
    with pytest.raises(NotFoundError, match="model 'nothing' has no live version: publish one"):
        await retrain.retrain(Rooms.open(learning), "nothing", client, why="test")


async def test_the_loop_keeps_the_ledger_and_retrains_when_enough_is_new(
    learning: Config, rooms: Rooms, review: Review, truth: Truth
) -> None:
    """Below the number nothing happens; at it the model is retrained, twice; the stop is clean."""
    stop, ready = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(loop.watch(learning, stop, ready=ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    await review(truth(39))
    await until(lambda: rooms.ledger.last_row() == 39)
    assert rooms.reports.last("digits") is None
    await review(truth(21, 39))
    await until(lambda: len(rooms.reports.all("digits")) == 1)
    await review(truth(45, 60))
    await until(lambda: len(rooms.reports.all("digits")) == 2)
    stop.set()
    await asyncio.wait_for(watching, 10)
    one, two = rooms.reports.all("digits")
    assert one.why.endswith("new labels")
    assert one.ledger_row >= 40
    assert two.ledger_row - one.ledger_row >= 40
    assert loop.new_labels(rooms, "digits") == 105 - two.ledger_row


async def test_the_ledger_goes_on_while_the_gateway_is_away(
    config: Config, learning: Config, rooms: Rooms, review: Review, truth: Truth
) -> None:
    """The retraining waits for the gateway, without a report; the outcomes do not wait."""
    away = Config(data_folder=config.data_folder, tables={"trainer": TRAINER})
    stop = asyncio.Event()
    watching = asyncio.create_task(loop.watch(away, stop, ready=lambda: None))
    await review(truth(45))
    await until(lambda: rooms.ledger.last_row() == 45)
    await review(truth(5, 45))
    await until(lambda: rooms.ledger.last_row() == 50)
    stop.set()
    await asyncio.wait_for(watching, 10)
    assert rooms.reports.last("digits") is None
    stop = asyncio.Event()
    watching = asyncio.create_task(loop.watch(learning, stop, ready=lambda: None))
    await until(lambda: rooms.reports.last("digits") is not None)
    stop.set()
    await asyncio.wait_for(watching, 10)


async def test_the_loop_waits_for_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started while the queue's server is away, it goes on when that comes."""
    folder = tmp_path / "valkey"
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)
    away = Config(
        data_folder=tmp_path / "data",
        tables={"trainer": TRAINER, "redis": RedisSettings(url=embedded.url(folder))},
    )
    stop = asyncio.Event()
    watching = asyncio.create_task(loop.watch(away, stop, ready=lambda: None))
    await asyncio.sleep(0.3)
    assert not watching.done()
    server = await asyncio.to_thread(embedded.Server.start, folder)
    try:
        await asyncio.to_thread(server.wait_ready)
        queue = Queue.connect(away)
        await queue.check()
        await queue.close()
        await asyncio.sleep(0.6)
        assert not watching.done()
        stop.set()
        await asyncio.wait_for(watching, 10)
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_version_that_was_published_and_not_promoted_is_promoted_by_the_next_attempt(
    learning: Config, rooms: Rooms, client: ModelClient, review: Review, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the gateway goes away in between, no second version of the same is published."""
    await review(truth(120))
    await loop.catch_up(learning, rooms)

    async def away(*_: object, **__: object) -> None:
        raise UnavailableError("the gateway is away")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(client, "promote", away)
            with pytest.raises(UnavailableError):
                await retrain.retrain(rooms, "digits", client, why="test")
    assert rooms.reports.last("digits") is None
    report = await retrain.retrain(rooms, "digits", client, why="test")
    assert (report.result, report.version) == (Result.PROMOTED, "2")
    assert [version.version for version in rooms.registry.versions("digits")] == ["1", "2"]
    assert await retrain.live_version(client, "digits") == "2"
    raised = msgspec.structs.replace(rooms.settings, holdout_share=0.5)
    kept = retrain.limits(raised, rooms.registry.get("digits", "2").manifest)
    assert kept.holdout_share == 0.2, "the rest was trained on"


async def test_while_a_promise_is_proved_a_new_version_is_proved_first(
    config: Config, rooms: Rooms, client: ModelClient, review: Review, truth: Truth
) -> None:
    """It goes into the shadow, and takes over once its certificate lets no less through; until then none is trained."""
    policy = await client.get_policy("digits")
    policy.alpha = 0.1
    await client.update_policy(policy)
    documents = Documents.connect(config)
    rule = Certification(
        epoch="1", scorer="margin", version="1", tau=0.9, expire_second=4_000_000_000, alpha=0.1, delta=0.05
    )
    await documents.write(CERTIFICATIONS + "digits", msgspec.json.encode(rule), expected_revision=0)
    await review(truth(60))
    await loop.catch_up(config, rooms)
    report = await retrain.retrain(rooms, "digits", client, why="test")
    assert (report.result, report.version) == (Result.SHADOWED, "2")
    assert await _states(client) == {"1": "CHAMPION", "2": "SHADOW"}
    challenger = Standing(stage=Stage.CERTIFIED, alpha=0.1, delta=0.05, version="2", tau=0.8, coverage=0.5)
    champion = Standing(stage=Stage.CERTIFIED, alpha=0.1, delta=0.05, version="1", coverage=0.6, requests=100)
    for coverage, revision in ((0.5, 0), (0.7, 1)):
        mine = msgspec.structs.replace(challenger, coverage=coverage, requests=100)
        told = msgspec.structs.replace(champion, challengers={"2": mine})
        assert not await loop.retrain_due(rooms, client, challenged={"digits"})
        await documents.write(STANDINGS + "digits", msgspec.json.encode(told), expected_revision=revision)
    await documents.close()
    assert await shadowing.go_on(rooms, client, "digits") is False
    assert await _states(client) == {"1": "RETIRED", "2": "CHAMPION"}
    (live,) = [version for version in await client.list("digits") if version.state == pb.ModelVersion.CHAMPION]
    assert live.reason.startswith("proved in shadow: certificate")


async def _states(client: ModelClient) -> dict[str, str]:
    found = await client.list("digits")
    return {version.name.rpartition("/")[2]: pb.ModelVersion.State.Name(version.state) for version in found}


async def test_a_stop_ends_a_retraining_at_once(
    learning: Config, rooms: Rooms, client: ModelClient, review: Review, truth: Truth
) -> None:
    """The thread that works is asked, nothing is published, the workplace is empty."""
    await review(truth(120))
    await loop.catch_up(learning, rooms)
    asked = asyncio.create_task(retrain.retrain(rooms, "digits", client, why="test"))
    await until((rooms.data / "trainer" / "work" / "digits").exists)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not (rooms.data / "trainer" / "work" / "digits").exists()
    assert await retrain.live_version(client, "digits") == "1"
    assert (await retrain.retrain(rooms, "digits", client, why="test")).result is Result.PROMOTED
