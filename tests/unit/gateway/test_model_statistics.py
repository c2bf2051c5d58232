"""What came of requests is said in Triton's words, as Triton's own classes read them."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as triton

from gateway.counted import Counted
from gateway.model_statistics import model_statistics


def _statistics(counted: Counted) -> Any:
    version: Any = type("Version", (), {"model": "m", "version": "7"})
    said = model_statistics(version, counted, last_ms=1_234)
    return triton.ModelStatistics.FromString(said.SerializeToString())


def test_what_is_counted_is_said() -> None:
    """Durations in nanoseconds; what nobody measures is there, and 0."""
    found = _statistics(
        Counted(
            succeeded=4,
            failed=2,
            queued=5,
            queue_seconds=0.25,
            computed=5,
            compute_seconds=1.5,
            sizes={3: (1, 0.25), 1: (2, 0.5)},
        )
    )
    assert (found.name, found.version, found.last_inference) == ("m", "7", 1_234)
    assert (found.inference_count, found.execution_count) == (5, 3)
    stats = found.inference_stats
    said = {field.name: (part.count, part.ns) for field, part in stats.ListFields()}
    assert said == {
        "success": (4, 1_750_000_000),
        "fail": (2, 0),
        "queue": (5, 250_000_000),
        "compute_input": (0, 0),
        "compute_infer": (5, 1_500_000_000),
        "compute_output": (0, 0),
        "cache_hit": (0, 0),
        "cache_miss": (0, 0),
    }
    batches = [(each.batch_size, each.compute_infer.count, each.compute_infer.ns) for each in found.batch_stats]
    assert batches == [(1, 2, 500_000_000), (3, 1, 250_000_000)]
    assert all(each.HasField("compute_input") and each.HasField("compute_output") for each in found.batch_stats)
    assert not found.response_stats
    assert not found.memory_usage


def test_a_version_that_never_ran_has_no_last_inference() -> None:
    """As JSON its durations are there, as Triton's are."""
    found = _statistics(Counted())
    assert found.last_inference == 0
    assert json_format.MessageToDict(found, preserving_proto_field_name=True)["inference_stats"]["fail"] == {}
