"""How long requests waited and were computed, as the server counts it: by RPC, or on a page for Prometheus.

Triton and our gateway serve both; PyTriton keeps the RPC to itself. MLServer and the KServe SDK count neither apart.
"""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import grpc
from google.protobuf.message import DecodeError
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serve.results import Split
from demur import kserve

_ASK_SECONDS: Final = 2.0
_STAGES: Final = "demur_stage_seconds"
# On Triton's page: microseconds of all requests together, and how many there were; each counts its batch's whole time.
_ASKED: Final = "nv_inference_request_success"
_QUEUE: Final = "nv_inference_queue_duration_us"
_COMPUTE: Final = tuple(f"nv_inference_compute_{part}_duration_us" for part in ("input", "infer", "output"))
_METHOD: Final = f"/{kserve.SERVICE}/ModelStatistics"
_NS: Final = 1e9
_US: Final = 1e6
_MS: Final = 1e3


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
    """A page for Prometheus at `address` (host:port, or a URL): our gateway's, or Triton's."""

    # Whose it is shows when it is read.
    name = "metrics"

    def __init__(self, address: str, model: str) -> None:
        self._url = address if "://" in address else f"http://{address}/metrics"
        self._model = model

    def read(self) -> Stages | None:
        """Return what stands there of the model."""
        try:
            with urllib.request.urlopen(self._url, timeout=_ASK_SECONDS) as page:  # noqa: S310 - what the user names
                found = stages(page.read().decode(), self._model)
        except (OSError, ValueError, http.client.HTTPException):
            return None
        if found is None:
            return None
        self.name, counted = found
        return counted


def stages(page: str, model: str) -> tuple[str, Stages] | None:
    """Read a page; returns whose it is, too. None where nobody is known to write such a page.

    A model that nothing was asked of yet counts 0.
    """
    for name, (mark, read) in _PAGES.items():
        if mark in page:
            return name, read(list(text_string_to_metric_families(page)), model)
    return None


def _ours(families: list[Metric], model: str) -> Stages:
    found: dict[tuple[str, str], float] = {}
    for each in families:
        if each.name == _STAGES:
            for one in each.samples:
                if one.labels.get("model") == model:
                    found[one.labels["stage"], one.name] = one.value
    return Stages(
        *(found.get((stage, f"{_STAGES}_{what}"), 0.0) for stage in ("queue", "compute") for what in ("sum", "count"))
    )


def _tritons(families: list[Metric], model: str) -> Stages:
    """Return the sums over the model's versions."""
    # By family: its samples' names are the parser's, with "_total" behind them.
    found = {each.name: sum(one.value for one in each.samples if one.labels.get("model") == model) for each in families}
    asked = found.get(_ASKED, 0.0)
    computing = sum(found.get(name, 0.0) for name in _COMPUTE)
    return Stages(found.get(_QUEUE, 0.0) / _US, asked, computing / _US, asked)


_PAGES: Final[dict[str, tuple[str, Callable[[list[Metric], str], Stages]]]] = {
    "demur metrics": (_STAGES, _ours),
    "Triton metrics": (_QUEUE, _tritons),
}


class Statistics:
    """Triton's ModelStatistics."""

    name = "ModelStatistics"

    def __init__(self, channel: grpc.Channel, model: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call: Any = channel.unary_unary(_METHOD)
        self._asked = kserve.ModelStatisticsRequest(name=model).SerializeToString()
        self._metadata = metadata

    def read(self) -> Stages | None:
        """Return the sums over the model's versions; None where the server does not serve it."""
        try:
            return summed(self._call(self._asked, timeout=_ASK_SECONDS, metadata=self._metadata))
        except (grpc.RpcError, DecodeError):
            return None


def summed(said: bytes) -> Stages:
    """Read a ModelStatisticsResponse."""
    versions = [each.inference_stats for each in kserve.ModelStatisticsResponse.FromString(said).model_stats]
    computing = [part for each in versions for part in (each.compute_input, each.compute_infer, each.compute_output)]
    return Stages(
        sum(each.queue.ns for each in versions) / _NS,
        sum(each.queue.count for each in versions),
        sum(part.ns for part in computing) / _NS,
        sum(each.compute_infer.count for each in versions),
    )
