"""Versions are swapped under load: no request fails, no batch mixes two versions."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest

from demur import kserve
from demur.v1 import model_pb2, model_pb2_grpc
from fallback.config import Config
from gateway import manifest
from gateway.batching import Batching
from gateway.client import Client
from gateway.server import Gateway
from tests.live_gateway import JUDGED, SURE, install, promote, running, settings, told

INFER = "/inference.GRPCInferenceService/ModelInfer"
SECONDS = 10.0
VERSIONS = 6
CALLERS = 6


class Load:
    """Callers that ask for `rows` rows again and again and note which version said so in each row."""

    def __init__(self, address: str) -> None:
        self.problems: list[str] = []
        self.versions: list[int] = []
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(1 + number % 4,)) for number in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int) -> None:
        """Return once a reply came from `version`."""
        end = time.monotonic() + SECONDS
        while version not in self.versions[-200:]:
            assert time.monotonic() < end, f"version {version} never answered"
            time.sleep(0.01)

    def _call(self, rows: int) -> None:
        x = np.repeat(SURE, rows, axis=0)
        request = kserve.ModelInferRequest(model_name="m")
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
        payload = request.SerializeToString()
        with grpc.insecure_channel(self._address) as channel:
            infer: Any = channel.unary_unary(INFER)
            while not self._stop.is_set():
                try:
                    reply = kserve.ModelInferResponse.FromString(infer(payload, timeout=SECONDS))
                except grpc.RpcError as error:
                    self.problems.append(str(error))
                    return
                said = set(np.frombuffer(reply.raw_output_contents[1], np.float32).astype(int).tolist())
                if said != {int(reply.model_version)}:
                    self.problems.append(f"version {reply.model_version} said {said}")
                self.versions.append(int(reply.model_version))


def _lay_down(config: Config) -> None:
    for version in range(1, VERSIONS + 1):
        install(config.data_folder, "m", str(version), told(version, scale=20), JUDGED)
    promote(config, "m", "1")


def test_versions_are_swapped_under_load(config: Config) -> None:
    """Six versions live one after the other while callers go on."""
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway, Load(gateway.address) as load:
        for version in range(1, VERSIONS + 1):
            if version > 1:
                promote(config, "m", str(version))
            load.wait_for(version)
    assert load.problems == []
    assert sorted(set(load.versions)) == list(range(1, VERSIONS + 1))


def test_a_swap_by_the_model_service_is_live_when_it_returns(config: Config) -> None:
    """Promote and roll back over a real channel; the very next request is the new version's."""
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway, grpc.insecure_channel(gateway.address) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        models.PromoteModelVersion(model_pb2.PromoteModelVersionRequest(name="models/m/versions/2"), timeout=SECONDS)
        assert asyncio.run(_version(gateway)) == "2"
        models.RollBackModel(model_pb2.RollBackModelRequest(model="m"), timeout=SECONDS)
        assert asyncio.run(_version(gateway)) == "1"


def test_a_version_that_does_not_load_fails_no_request(config: Config) -> None:
    """FAILED_PRECONDITION for whoever promoted it; the champion answers on."""
    config = settings(config)
    _lay_down(config)
    (config.data_folder / "models" / "m" / "3" / "model.onnx").write_bytes(b"broken")
    with running(config) as gateway, Load(gateway.address) as load, grpc.insecure_channel(gateway.address) as channel:
        load.wait_for(1)
        models = model_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="version 1 stays live"):
            models.PromoteModelVersion(
                model_pb2.PromoteModelVersionRequest(name="models/m/versions/3"), timeout=SECONDS
            )
        seen = len(load.versions)
        while len(load.versions) < seen + 20:
            time.sleep(0.01)
    assert load.problems == []
    assert set(load.versions) == {1}


def test_a_version_published_over_the_wire_answers(config: Config, tmp_path: Path) -> None:
    """Admission, registry, swap and prediction in one go."""
    artefact = tmp_path / "any.onnx"
    artefact.write_bytes(told(7))
    header = model_pb2.PublishModelVersionRequest.Header(model="new", manifest=manifest.render(JUDGED), promote=True)
    parts = [
        model_pb2.PublishModelVersionRequest(header=header),
        model_pb2.PublishModelVersionRequest(chunk=artefact.read_bytes()),
    ]
    with running(settings(config)) as gateway, grpc.insecure_channel(gateway.address) as channel:
        published = model_pb2_grpc.ModelServiceStub(channel).PublishModelVersion(iter(parts), timeout=60)
        assert published.state == model_pb2.ModelVersion.CHAMPION
        assert asyncio.run(_version(gateway, "new")) == "1"


def test_requests_prepared_for_another_intake_are_prepared_again(config: Config) -> None:
    """A swap to a version with other limits fails only those that no longer fit."""
    config = settings(config)
    wide = manifest.Manifest(batching=Batching(max_batch_size=4), output=manifest.Output(tensor="p"))
    install(config.data_folder, "m", "1", told(1, scale=40), wide)
    install(config.data_folder, "m", "2", told(2, scale=40), manifest.Manifest(output=manifest.Output(tensor="p")))
    promote(config, "m", "1")
    with running(config) as gateway, Load(gateway.address) as load:
        load.wait_for(1)
        promote(config, "m", "2")
        load.wait_for(2)
    assert load.problems == []


async def _version(gateway: Gateway, model: str = "m") -> str:
    async with Client(gateway.address) as client:
        return (await client.predict(model, inputs={"x": SURE})).version
