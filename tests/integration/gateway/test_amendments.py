"""An audit that finds a wrong answer lists those that are like it, with whoever has their inputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from demur.v1 import model_pb2 as pb
from gateway.client import Client
from gateway.model_client import ModelClient
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import SURE

LOOKED_SECONDS = 10.0


def _sure(confidence: float, label: int = 1) -> np.ndarray:
    x = np.full((1, 3), (1 - confidence) / 2, np.float32)
    x[0, label] = confidence
    return x


async def _amendments(models: ModelClient) -> Sequence[pb.Amendment]:
    until = time.monotonic() + LOOKED_SECONDS
    while not (found := await models.amendments("checked")):
        assert time.monotonic() < until, f"no amendment after {LOOKED_SECONDS} s"
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
        (amended,) = await _amendments(models)
    assert (amended.client, amended.predicted, amended.answer.label) == ("shop", "b", "c")
    assert amended.version == "models/checked/versions/1"
    assert [(near.client, near.request, near.row) for near in amended.nearest] == [
        ("shop", "near", 0),
        ("shop", "far", 0),
    ]
