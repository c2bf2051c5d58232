"""Models whose outputs do not do as they were tried: nobody gets another's row, and every call is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from fallback.config import Config
from fallback.errors import InvalidError, StateError
from gateway.batching import Batching, Padding
from gateway.client import Client
from gateway.manifest import Manifest, Output
from gateway.rules import Decision
from gateway.server import Gateway
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, told
from tests.onnx_files import counting, tokens_of

ONE = np.array([[0.9, 0, 0]], np.float32)
TOKENS = np.array([[[0, 9, 0]]], np.float32)


@pytest.fixture
def gateway(config: Config) -> Iterator[Gateway]:
    own = settings(config)
    models = {
        "counting": (counting(), Manifest(output=Output(tensor="p"))),
        "tokens": (tokens_of(), msgspec.structs.replace(JUDGED, output=Output(tensor="y"))),
        "m": (told(1), JUDGED),
        "padded": (tokens_of(), Manifest(batching=Batching(padding=Padding(axis=1, sizes=(4, 8))))),
    }
    for name, (artefact, manifest) in models.items():
        content = artefact if isinstance(artefact, bytes) else artefact.SerializeToString()
        install(config.data_folder, name, "1", content, manifest)
        promote(own, name, "1")
    with running(own) as found:
        yield found


async def test_an_output_with_another_number_of_rows_fails_its_own_call(gateway: Gateway) -> None:
    """And is never cut into rows that belong to nobody; who came in the same batch is answered."""
    async with Client(gateway.address) as client:

        async def ask(x: np.ndarray) -> Any:
            return await client.predict("counting", inputs={"x": x})

        found = await asyncio.gather(*(ask(x) for x in (SURE, ONE) * 8), return_exceptions=True)
    assert [type(each) for each in found[::2]] == [InvalidError] * 8
    assert "output 'n' the shape [3, 2]; expected 1 rows" in str(found[0])
    answers: list[Any] = found[1::2]
    for each in answers:
        np.testing.assert_array_equal(each.outputs["p"], ONE)


async def test_requests_of_different_sizes_get_their_own_sizes_back(gateway: Gateway) -> None:
    """Filled up they are run together; each is answered as if it were alone."""
    draw = np.random.default_rng(0)
    asked = [draw.normal(size=(1, 1 + number % 9, 3)).astype(np.float32) for number in range(40)]
    async with Client(gateway.address) as client:
        found = await asyncio.gather(*(client.predict("padded", inputs={"x": x}) for x in asked))
    for x, each in zip(asked, found, strict=True):
        expected = np.exp(x) / np.exp(x).sum(axis=2, keepdims=True)
        np.testing.assert_allclose(each.outputs["y"], expected, rtol=1e-5)


async def test_scores_of_another_width_are_the_inputs_trouble(gateway: Gateway) -> None:
    """A label is read from one score a label, never from a neighbour's."""
    async with Client(gateway.address) as client:
        got = await client.predict("tokens", inputs={"x": TOKENS})
        assert (got.label, got.decision) == ("b", Decision.ANSWERED)
        with pytest.raises(InvalidError, match=r"scores of shape \[1, 2, 3\]; expected 3 a row, one a label"):
            await client.predict("tokens", inputs={"x": np.repeat(TOKENS, 2, axis=1)})


async def test_a_batch_formed_for_the_version_before_keeps_to_the_bound_of_this_one(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that takes fewer rows at a time is never given more, though the batcher has not heard of it yet."""
    pipeline = gateway.champions.find("m")
    small = msgspec.structs.replace(JUDGED, batching=Batching(max_batch_size=2))
    install(gateway.registry.folder.parent, "m", "2", told(2), small)
    monkeypatch.setattr(pipeline, "swapped", lambda _: None)
    gateway._slow.run(gateway.champions.ensure(gateway.registry.get("m", "2")), timeout_seconds=10)
    live = pipeline.champion.live
    assert live is not None
    rows, run, leave = [], live.model.run, threading.Event()

    def noted(feeds: Any, slab: Any) -> Any:
        leave.wait(10)
        rows.append(len(feeds["x"]))
        return run(feeds, slab)

    monkeypatch.setattr(live.model, "run", noted)
    async with Client(gateway.address) as client:
        calls = [asyncio.create_task(client.predict("m", inputs={"x": SURE})) for _ in range(12)]
        await asyncio.sleep(0.2)
        leave.set()
        assert {got.version for got in await asyncio.gather(*calls)} == {"2"}
    assert max(rows) <= 2
    assert sum(rows) == 12


async def test_what_is_larger_than_what_was_short_is_not_run_where_it_came_in(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the model is quick: nobody knows how long that takes, and there all others wait for it."""
    live = gateway.champions.find("tokens").champion.live
    assert live is not None
    ran, run = [""], live.model.run

    def noted(feeds: Any, slab: Any = None) -> Any:
        ran.append(threading.current_thread().name)
        return run(feeds, slab)

    monkeypatch.setattr(live.model, "run", noted)
    async with Client(gateway.address) as client:

        async def ask_until_run_where_it_came_in() -> None:
            async with asyncio.timeout(30):
                await client.predict("tokens", inputs={"x": TOKENS})
                while ran[-1].startswith("batcher"):
                    await client.predict("tokens", inputs={"x": TOKENS})

        await ask_until_run_where_it_came_in()
        with pytest.raises(InvalidError, match="expected 3 a row"):
            await client.predict("tokens", inputs={"x": np.repeat(TOKENS, 4000, axis=1)})
        assert ran[-1].startswith("batcher")
        await ask_until_run_where_it_came_in()


async def test_a_caller_that_left_before_it_was_parked_lets_go_of_its_version(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pinned version is freed after a swap, whatever became of those who asked for it."""
    pipeline = gateway.champions.find("m")
    live = pipeline.champion.live
    assert live is not None
    entered, leave, run = threading.Event(), threading.Event(), live.model.run

    def slow(feeds: Any, slab: Any) -> Any:
        entered.set()
        leave.wait(10)
        return run(feeds, slab)

    monkeypatch.setattr(live.model, "run", slow)
    install(gateway.registry.folder.parent, "m", "2", told(2), JUDGED)
    async with Client(gateway.address) as client:
        asking = asyncio.create_task(client.predict("m", inputs={"x": UNSURE}, version="1"))
        await asyncio.to_thread(entered.wait, 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0.1)
        leave.set()
        await asyncio.to_thread(
            gateway._slow.run, gateway.champions.ensure(gateway.registry.get("m", "2")), timeout_seconds=10
        )
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(_closed, run):  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.01)


def _closed(run: Any) -> bool:
    try:
        run({"x": SURE})
    except StateError:
        return True
    return False
