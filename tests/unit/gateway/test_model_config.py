"""A model's configuration is said in Triton's words, as Triton's own classes read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as triton

from gateway.batching import Batching, QueuePolicy
from gateway.manifest import DATATYPES, Manifest, TensorSpec
from gateway.model import CPU, CUDA, TENSORRT, Signature
from gateway.model_config import data_type, model_config
from gateway.way import Way

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 3, -1))
Y = TensorSpec(name="y", datatype="BYTES", shape=(-1,))


def _config(*, provider: str = CPU, instances: int = 1, **facts: Any) -> Any:
    manifest = Manifest(model="m", version="7", **facts)
    live: Any = SimpleNamespace(
        version=SimpleNamespace(model="m", version="7"),
        manifest=manifest,
        model=SimpleNamespace(signature=Signature((X,), (Y,)), provider=provider),
        way=Way(instances=instances, rows_max=8),
    )
    return triton.ModelConfig.FromString(model_config(live).SerializeToString())


def test_what_a_model_is_and_takes() -> None:
    """Dims leave out the axis of rows, of which there may be as many as the manifest says, however it is run."""
    found = _config(batching=Batching(max_batch_size=16), instances=3)
    assert (found.name, found.platform, found.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert (found.max_batch_size, found.default_model_filename) == (16, "model.onnx")
    (x,), (y,), (group,) = found.input, found.output, found.instance_group
    assert (x.name, x.data_type, list(x.dims)) == ("x", triton.TYPE_FP32, [3, -1])
    assert (y.name, y.data_type, list(y.dims)) == ("y", triton.TYPE_STRING, [])
    assert list(found.version_policy.specific.versions) == [7]
    assert (group.name, group.kind, group.count, list(group.gpus)) == ("m", group.KIND_CPU, 3, [])
    assert found.HasField("model_transaction_policy")
    assert not found.model_transaction_policy.decoupled
    assert not found.HasField("sequence_batching")
    assert not found.HasField("ensemble_scheduling")


def test_a_model_without_an_axis_of_rows_has_no_batch_size() -> None:
    """Its dims are whole."""
    found = _config(batched=False, batching=Batching(max_batch_size=16))
    assert (found.max_batch_size, list(found.input[0].dims)) == (0, [-1, 3, -1])


def test_how_requests_are_batched_is_said_as_the_manifest_has_it() -> None:
    """Every word of Triton's that a manifest knows."""
    patient = QueuePolicy(timeout_action="DELAY", default_timeout_microseconds=9, max_queue_size=4)
    batching = Batching(
        max_queue_delay_microseconds=200,
        priority_levels=3,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(default_timeout_microseconds=5, allow_timeout_override=True),
        priority_queue_policy={3: patient},
    )
    found = _config(batching=batching).dynamic_batching
    assert (found.max_queue_delay_microseconds, found.priority_levels, found.default_priority_level) == (200, 3, 2)
    default, others = found.default_queue_policy, dict(found.priority_queue_policy)
    assert (default.timeout_action, default.default_timeout_microseconds) == (default.REJECT, 5)
    assert (default.allow_timeout_override, default.max_queue_size) == (True, 0)
    assert list(others) == [3]
    assert (others[3].timeout_action, others[3].default_timeout_microseconds) == (default.DELAY, 9)
    assert (others[3].allow_timeout_override, others[3].max_queue_size) == (False, 4)
    plain = _config(batching=Batching(preserve_ordering=True)).dynamic_batching
    assert plain.preserve_ordering
    assert plain.HasField("default_queue_policy")


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_model_on_a_gpu_says_so(provider: str) -> None:
    """On the first one."""
    (group,) = _config(provider=provider).instance_group
    assert (group.kind, list(group.gpus)) == (group.KIND_GPU, [0])


def test_every_type_that_a_model_may_take_has_a_name() -> None:
    """One of its own."""
    found = {triton.DataType.Value(data_type(datatype)) for datatype in DATATYPES}
    assert len(found) == len(DATATYPES)
    assert triton.TYPE_INVALID not in found
