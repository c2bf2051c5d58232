"""How long requests waited and were computed, as the server counts it: our gateway on a page, Triton by RPC."""

from __future__ import annotations

import urllib.request
from typing import Any, Final, NamedTuple, Protocol

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serve.results import Split
from demur import kserve

_ASK_SECONDS: Final = 2.0
_STAGES: Final = "demur_stage_seconds"
_METHOD: Final = f"/{kserve.SERVICE}/ModelStatistics"
_NS: Final = 1e9
_MS: Final = 1e3
_PACKAGE: Final = "inference"
_TYPES: Final = descriptor_pb2.FieldDescriptorProto
# Of Triton's published contract what is read here: messages with names, numbers and kinds of their fields ("*": many).
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "ModelStatisticsRequest": (("name", 1, "string"), ("version", 2, "string")),
    "StatisticDuration": (("count", 1, "uint64"), ("ns", 2, "uint64")),
    "InferStatistics": (
        ("success", 1, "StatisticDuration"),
        ("queue", 3, "StatisticDuration"),
        ("compute_input", 4, "StatisticDuration"),
        ("compute_infer", 5, "StatisticDuration"),
        ("compute_output", 6, "StatisticDuration"),
    ),
    "ModelStatistics": (("name", 1, "string"), ("inference_stats", 6, "InferStatistics")),
    "ModelStatisticsResponse": (("model_stats", 1, "*ModelStatistics"),),
}


class Stages(NamedTuple):
    """What a server counted since it started: seconds in all, and of how many requests (or, computing, batches)."""

    queue_seconds: float
    queue_count: float
    compute_seconds: float
    compute_count: float


class Source(Protocol):
    """Somebody who knows."""

    name: str

    def read(self) -> Stages | None:
        """Return what was counted until now; None where it cannot be told."""


def between(before: Stages | None, after: Stages | None, *, mean_ms: float, source: str) -> Split | None:
    """Return the split of the requests between two readings, whose mean latency was `mean_ms`."""
    if before is None or after is None or after.queue_count <= before.queue_count:
        return None
    queue = _MS * (after.queue_seconds - before.queue_seconds) / (after.queue_count - before.queue_count)
    computed = after.compute_count - before.compute_count
    compute = _MS * (after.compute_seconds - before.compute_seconds) / computed if computed else 0.0
    rest = max(0.0, mean_ms - queue - compute)
    queue, compute, rest = (float(f"{ms:.4g}") for ms in (queue, compute, rest))
    return Split(queue_ms=queue, compute_ms=compute, transport_ms=rest, source=source)


class Page:
    """The gateway's Prometheus page at `address` (host:port, or a URL)."""

    name = "demur metrics"

    def __init__(self, address: str, model: str) -> None:
        self._url = address if "://" in address else f"http://{address}/metrics"
        self._model = model

    def read(self) -> Stages | None:
        """Return what stands there of the model."""
        try:
            with urllib.request.urlopen(self._url, timeout=_ASK_SECONDS) as page:  # noqa: S310 - what the user names
                return stages(page.read().decode(), self._model)
        except (OSError, ValueError):
            return None


def stages(page: str, model: str) -> Stages | None:
    """Read a page; None where it is not our gateway's. A model that nothing was asked of yet counts 0."""
    if _STAGES not in page:
        return None
    found: dict[tuple[str, str], float] = {}
    for each in text_string_to_metric_families(page):
        if each.name == _STAGES:
            for one in each.samples:
                if one.labels.get("model") == model:
                    found[one.labels["stage"], one.name] = one.value
    return Stages(
        *(found.get((stage, f"{_STAGES}_{what}"), 0.0) for stage in ("queue", "compute") for what in ("sum", "count"))
    )


class Statistics:
    """Triton's ModelStatistics."""

    name = "ModelStatistics"

    def __init__(self, channel: grpc.Channel, model: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call: Any = channel.unary_unary(_METHOD)
        self._asked = message_class("ModelStatisticsRequest")(name=model).SerializeToString()
        self._metadata = metadata

    def read(self) -> Stages | None:
        """Return the sums over the model's versions; None where the server does not serve it."""
        try:
            said = self._call(self._asked, timeout=_ASK_SECONDS, metadata=self._metadata)
        except grpc.RpcError:
            return None
        return summed(said)


def summed(said: bytes) -> Stages:
    """Read a ModelStatisticsResponse."""
    versions = [each.inference_stats for each in message_class("ModelStatisticsResponse").FromString(said).model_stats]
    computing = [part for each in versions for part in (each.compute_input, each.compute_infer, each.compute_output)]
    return Stages(
        sum(each.queue.ns for each in versions) / _NS,
        sum(each.queue.count for each in versions),
        sum(part.ns for part in computing) / _NS,
        sum(each.compute_infer.count for each in versions),
    )


def message_class(name: str) -> Any:
    """Return the class of one of `_MESSAGES`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def _pool() -> descriptor_pool.DescriptorPool:
    """Return a pool of its own, as `demur.kserve` has one: others may register the same names."""
    file = descriptor_pb2.FileDescriptorProto(name="statistics.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, number, said in fields:
            kind = said.lstrip("*")
            label = _TYPES.LABEL_OPTIONAL if kind == said else _TYPES.LABEL_REPEATED
            one = made.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                one.type, one.type_name = _TYPES.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                one.type = _TYPES.TYPE_STRING if kind == "string" else _TYPES.TYPE_UINT64
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL: Final = _pool()
