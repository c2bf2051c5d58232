"""An audit that finds a wrong answer lists those that are like it, with whoever has their inputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from demur.v1 import model_pb2 as pb
from fallback.config import Config, RedisSettings
from gateway.client import Client
from gateway.model_client import ModelClient
from gateway.policy import Policy
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import JUDGED, SURE, install, promote, running, settings, told

LOOKED_SECONDS = 10.0


def _sure(confidence: float, label: int = 1) -> np.ndarray:
    x = np.full((1, 3), (1 - confidence) / 2, np.float32)
    x[0, label] = confidence
    return x


async def _amendments(models: ModelClient, model: str, *, nearest: int) -> Sequence[pb.Amendment]:
    until = time.monotonic() + LOOKED_SECONDS
    while not (found := await models.amendments(model)) or len(found[0].nearest) < nearest:
        assert time.monotonic() < until, f"after {LOOKED_SECONDS} s: {found}"
        await asyncio.sleep(0.1)
    return found


async def test_an_answer_that_people_overturn_is_listed_with_those_like_it(stand: Stand) -> None:
    """Same label, nearest confidence first, by the names that clients gave; not what people see anyway."""
    async with (
        Client(stand.address, identity="shop") as client,
        ModelClient(stand.address, identity="ann") as models,
    ):
        for name, x in (("far", _sure(0.99)), ("near", _sure(0.91)), ("other", _sure(0.9, label=0))):
            await client.predict("checked", inputs={"x": x}, idempotency_key=name)
        await client.predict("checked", inputs={"x": _sure(0.5)}, idempotency_key="unsure")
        await asyncio.to_thread(stand.review, "checked", "c")
        policy = await models.get_policy("checked")
        policy.audit_share = 1.0
        await models.update_policy(policy)
        for name, answer in (("right", "b"), ("wrong", "c")):
            await client.predict("checked", inputs={"x": SURE}, idempotency_key=name)
            await asyncio.to_thread(stand.review, "checked", answer)
        (amended,) = await _amendments(models, "checked", nearest=2)
    assert (amended.client, amended.predicted, amended.answer.label) == ("shop", "b", "c")
    assert amended.version == "models/checked/versions/1"
    assert [(near.client, near.request, near.row) for near in amended.nearest] == [
        ("shop", "near", 0),
        ("shop", "far", 0),
    ]


def test_what_several_gateways_remember_stands_in_one_list(config: Config, tmp_path: Path) -> None:
    """Whichever is asked, though each remembers its own answers alone."""
    shared = settings(Config(data_folder=tmp_path), {"redis": config.table("redis", RedisSettings)})
    policy = Policy(threshold=0.8, audit_share=0.0)
    install(tmp_path, "shared", "1", told(1), msgspec.structs.replace(JUDGED, policy=policy))
    promote(shared, "shared", "1")

    async def ask() -> Sequence[pb.Amendment]:
        async with (
            Client(one.address, identity="here") as here,
            Client(two.address, identity="there") as there,
            ModelClient(one.address, identity="ann") as models,
            ModelClient(two.address, identity="ann") as others,
        ):
            await here.predict("shared", inputs={"x": _sure(0.92)}, idempotency_key="a")
            await there.predict("shared", inputs={"x": _sure(0.91)}, idempotency_key="b")
            changed = await models.get_policy("shared")
            changed.audit_share = 1.0
            await models.update_policy(changed)
            await here.predict("shared", inputs={"x": SURE}, idempotency_key="wrong")
            stand = Stand(one, shared)
            await asyncio.to_thread(stand.review, "shared", "c")
            return await _amendments(others, "shared", nearest=2)

    with running(shared) as one, running(shared) as two:
        (amended,) = asyncio.run(ask())
    assert [(near.client, near.request) for near in amended.nearest] == [("there", "b"), ("here", "a")]
