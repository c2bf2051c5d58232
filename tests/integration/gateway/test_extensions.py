"""What an unmodified Triton client asks beside inference, on either transport: configuration, statistics, the index."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
import redis
import tritonclient.grpc as triton
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from fallback import embedded
from fallback.config import Config, RedisSettings
from gateway import extensions
from gateway.batching import Batching, QueuePolicy
from gateway.manifest import Manifest
from gateway.model_client import ModelClient
from tests.integration.gateway.conftest import Stand
from tests.live_gateway import JUDGED, SURE, UNSURE, install, promote, running, settings, shadow, table, told
from tests.transporting import until

SECONDS = 10.0
LEVELS = Batching(
    max_batch_size=8, priority_levels=2, default_priority_level=2, priority_queue_policy={1: QueuePolicy()}
)


@pytest.fixture(scope="module", params=["cq", "aio"])
def stand(
    server: embedded.Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stand]:
    """Models that are live, in shadow, and on the disk alone."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    base = Config(data_folder=tmp_path_factory.mktemp("extensions"))
    config = settings(base, {"redis": RedisSettings(url=server.url)}, transport=str(request.param))
    for version in range(1, 4):
        install(base.data_folder, "m", str(version), told(version), JUDGED)
    install(base.data_folder, "idle", "1", told(1), JUDGED)
    install(base.data_folder, "levels", "1", told(1), msgspec.structs.replace(JUDGED, batching=LEVELS))
    install(base.data_folder, "swapped", "1", told(1), JUDGED)
    install(base.data_folder, "swapped", "2", told(2), JUDGED)
    install(base.data_folder, "table", "1", table(), Manifest(forbid_nan=False))
    for model, live in (("m", "2"), ("levels", "1"), ("table", "1"), ("swapped", "1")):
        promote(config, model, live)
    shadow(config, "m", "3")
    with running(config) as gateway:
        yield Stand(gateway, config)


@pytest.fixture(scope="module")
def client(stand: Stand) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stand.address) as found:
        yield found


def _infer(client: Any, model: str, x: np.ndarray) -> Any:
    given = triton.InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x)
    return client.infer(model, [given], client_timeout=SECONDS)


def _one(client: Any, model: str, *, succeeded: int = 0) -> Any:
    """Return a model's statistics, once so many requests are counted as answered: that is after the reply."""
    found = service_pb2.ModelStatistics()

    def asked() -> bool:
        (one,) = client.get_inference_statistics(model).model_stats
        found.CopyFrom(one)
        return bool(found.inference_stats.success.count >= succeeded)

    until(asked)
    return found


def test_a_configuration_is_read_by_triton_s_client(client: Any) -> None:
    """As a message and as JSON."""
    found = client.get_model_config("levels", "1").config
    assert (found.name, found.platform, found.backend, found.max_batch_size) == (
        "levels",
        "onnxruntime_onnx",
        "onnxruntime",
        8,
    )
    assert [(each.name, each.data_type, list(each.dims)) for each in found.input] == [
        ("x", model_config_pb2.TYPE_FP32, [3])
    ]
    assert [(each.name, list(each.dims)) for each in found.output] == [("p", [3]), ("v", [1])]
    assert (found.instance_group[0].kind, found.instance_group[0].count) == (
        model_config_pb2.ModelInstanceGroup.KIND_CPU,
        1,
    )
    as_json = client.get_model_config("levels", as_json=True)["config"]
    assert as_json["dynamic_batching"] == {
        "priority_levels": "2",
        "default_priority_level": "2",
        "default_queue_policy": {},
        "priority_queue_policy": {"1": {}},
    }
    assert as_json["version_policy"] == {"specific": {"versions": ["1"]}}
    assert as_json["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]


def test_a_configuration_and_metadata_speak_of_the_same_tensors(client: Any) -> None:
    """Metadata has the axis of rows where there may be several, as load generators take for granted."""
    for model in ("m", "levels", "table"):
        config, about = client.get_model_config(model).config, client.get_model_metadata(model)
        for ours, theirs in ((config.input, about.inputs), (config.output, about.outputs)):
            head = [-1] if config.max_batch_size else []
            assert [[*head, *each.dims] for each in ours] == [list(each.shape) for each in theirs]
            assert [each.name for each in ours] == [each.name for each in theirs]


def test_a_load_generator_finds_its_window_in_the_statistics(client: Any) -> None:
    """What perf_analyzer does: it reads what the model takes, asks, and subtracts what was counted before."""
    options: dict[str, Any] = {"always_print_fields_with_no_presence": True, "preserving_proto_field_name": True}
    config = json_format.MessageToDict(client.get_model_config("m").config, **options)
    assert config["max_batch_size"] == 16
    assert config["model_transaction_policy"]["decoupled"] is False
    assert not {"sequence_batching", "ensemble_scheduling"} & config.keys()
    metadata = json_format.MessageToDict(client.get_model_metadata("m"), **options)
    shape = [4, *map(int, metadata["inputs"][0]["shape"][1:])]
    before = _one(client, "m")
    start = time.time()
    for _ in range(5):
        _infer(client, "m", np.broadcast_to(SURE, shape))
    after = _one(client, "m", succeeded=before.inference_stats.success.count + 5)
    took_ns = 1e9 * (time.time() - start)
    assert (after.name, after.version) == (before.name, before.version) == ("m", "2")
    assert after.inference_count - before.inference_count == 20
    assert after.execution_count - before.execution_count == 5
    stats, earlier = after.inference_stats, before.inference_stats
    for name in ("success", "queue", "compute_infer"):
        assert getattr(stats, name).count - getattr(earlier, name).count == 5
    waited, computed, whole = (
        getattr(stats, name).ns - getattr(earlier, name).ns for name in ("queue", "compute_infer", "success")
    )
    assert 0 < computed < took_ns
    assert whole == pytest.approx(waited + computed, abs=2)
    assert start <= after.last_inference / 1000 + 0.002 <= time.time() + 0.002
    counts = {each.batch_size: each.compute_infer.count for each in before.batch_stats}
    fours = [each for each in after.batch_stats if each.batch_size == 4]
    assert fours[0].compute_infer.count - counts.get(4, 0) == 5


def test_statistics_count_what_failed_and_what_people_are_asked_about(stand: Stand, client: Any) -> None:
    """The first as failed, the second as answered."""
    before = _one(client, "m").inference_stats
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        _infer(client, "m", np.zeros((1, 5), np.float32))
    _infer(client, "m", UNSURE)
    after = _one(client, "m", succeeded=before.success.count + 1).inference_stats
    assert (after.fail.count - before.fail.count, after.success.count - before.success.count) == (1, 1)
    stand.review("m", "a")


def test_statistics_of_all_models_are_those_of_the_live_ones(client: Any) -> None:
    """As JSON each has all of its durations; one that never ran has no last inference."""
    found = client.get_inference_statistics()
    assert [each.name for each in found.model_stats] == ["levels", "m", "swapped", "table"]
    said = {each["name"]: each for each in client.get_inference_statistics(as_json=True)["model_stats"]}
    assert said["levels"]["version"] == "1"
    assert "last_inference" not in said["levels"]
    durations = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"}
    assert durations | {"cache_hit", "cache_miss"} == said["levels"]["inference_stats"].keys()


def test_a_version_that_takes_over_counts_from_nothing(stand: Stand, client: Any) -> None:
    """So that nobody takes another version's figures for its own."""
    _infer(client, "swapped", SURE)
    found = _one(client, "swapped", succeeded=1)
    assert (found.version, found.execution_count) == ("1", 1)

    async def take_over() -> None:
        async with ModelClient(stand.address) as models:
            await models.promote("swapped", "2")

    asyncio.run(take_over())
    found = _one(client, "swapped")
    assert (found.version, found.execution_count, found.last_inference) == ("2", 0, 0)
    _infer(client, "swapped", SURE)
    assert _one(client, "swapped", succeeded=1).execution_count == 1


def test_what_is_not_live_has_neither_configuration_nor_statistics(client: Any) -> None:
    """The errors that metadata has."""
    asks = (client.get_model_config, client.get_inference_statistics)
    for model, version in (("nope", ""), ("idle", ""), ("m", "1"), ("m", "9")):
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata(model, version)
        said = str(caught.value)
        assert "NOT_FOUND" in said
        for ask in asks:
            with pytest.raises(InferenceServerException, match=re.escape(said)):
                ask(model, version)


def test_the_index_lists_what_is_live_and_what_is_on_the_disk(client: Any) -> None:
    """With why it is not ready; what is ready comes first, and alone where only that is asked for."""
    found = client.get_model_repository_index()
    listed = {(each.name, each.version): (each.state, each.reason) for each in found.models}
    assert len(listed) == len(found.models) == 8
    assert listed["m", "1"] == ("UNAVAILABLE", "version 2 is live")
    assert listed["m", "2"] == ("READY", "")
    assert listed["m", "3"] == ("UNAVAILABLE", "in shadow of version 2")
    assert listed["idle", "1"] == ("UNAVAILABLE", "no version of it is live")
    assert [each.state for each in found.models] == ["READY"] * 4 + ["UNAVAILABLE"] * 4
    as_json = client.get_model_repository_index(as_json=True)["models"]
    assert {"name": "m", "version": "2", "state": "READY"} in as_json
    assert json.loads(json.dumps(as_json)) == as_json


def test_the_index_of_what_is_ready(stand: Stand) -> None:
    """The client has no word for it, the protocol has."""
    with grpc.insecure_channel(stand.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ready = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=SECONDS)
        assert [each.name for each in ready.models] == ["levels", "m", "swapped", "table"]
        with pytest.raises(grpc.RpcError, match="repository_name: expected none, got 'other'") as caught:
            stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="other"), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_index_is_bounded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each model the newest, and what is live whatever else there is."""
    monkeypatch.setattr(extensions, "VERSIONS_SHOWN", 1)
    shown = {(each.name, each.version) for each in client.get_model_repository_index().models}
    assert {("m", "2"), ("m", "3"), ("idle", "1")} < shown
    assert ("m", "1") not in shown
    monkeypatch.setattr(extensions, "ENTRIES_MAX", 5)
    assert [each.state for each in client.get_model_repository_index().models] == ["READY"] * 4 + ["UNAVAILABLE"]


def test_loading_is_left_to_demur_models(client: Any) -> None:
    """The refusal says so."""
    for ask in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.* is not served; .*`demur models promote`"):
            ask("m")


def test_bytes_that_are_no_request_are_refused(stand: Stand) -> None:
    """INVALID_ARGUMENT that names what was expected."""
    with grpc.insecure_channel(stand.address) as channel:
        for method in ("ModelConfig", "ModelStatistics", "RepositoryIndex"):
            call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError, match=f"expected a inference.{method}Request") as caught:
                call(b"\xff\xff", timeout=SECONDS)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
