"""What the gateway counts, and the page a Prometheus server reads it from."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fallback.errors import ConfigError
from gateway.counted import Counted
from gateway.observed import Cumulated, Observed, Runs

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

_STAGE_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
_CHAMPION: Final = "demur_champion"
_ASK_SECONDS: Final = 5.0
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Distribution(Collector):
    """A histogram to which a batch is added in one go; `labels` as the page has them."""

    def __init__(self, name: str, text: str, *labels: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = bounds
        self._observed: dict[tuple[str, ...], Observed] = {}
        self._shown: dict[tuple[str, ...], Callable[[], Cumulated]] = {}

    def labels(self, *values: str) -> Observed:
        """Return what was observed with these values of the labels."""
        return self._observed.get(values) or self._observed.setdefault(values, Observed(self._bounds))

    def show(self, read: Callable[[], Cumulated], *values: str) -> None:
        """Show what `read` returns for these values of the labels: it is observed elsewhere."""
        self._shown[values] = read

    def collect(self) -> Iterable[Metric]:
        """Return all of it."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        reads = {values: observed.read for values, observed in list(self._observed.items())}
        for values, read in {**reads, **self._shown}.items():
            buckets, total = read()
            family.add_metric(list(values), buckets, total)
        return [family]


class Metrics:
    """One gateway's counters, in a registry of their own so that two gateways in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "requests", "Requests by model, decision and gRPC code", "model", "decision", "code"
        )
        self._answered: dict[tuple[str, str], Counter] = {}
        self.parked = self._counter("parked", "Deferrals parked, audits left out", "model")
        self.audits = self._counter("audits", "Answered requests parked for a check", "model")
        self.sampled = self._counter("sampled", "Requests recorded as evidence for a certificate", "model")
        self.unsampled = self._counter(
            "unsampled", "Rows that went without a record: it could not be made, or their queue takes nothing", "model"
        )
        self.audits_lost = self._counter("audits_lost", "Audits given up: no queue would take them", "model")
        self.spool_bytes = Gauge(
            "demur_spool_bytes", "Evidence and audits on this machine's disk", ["model"], registry=self.registry
        )
        self.redis_errors = self._counter(
            "redis_errors", "Calls to Redis that failed, by what they were for", "operation"
        )
        self.over = self._counter(
            "over", "Requests that met a queue over a limit, by what was done", "queue", "limit", "done"
        )
        self.swaps = self._counter("swaps", "Versions swapped in", "model")
        self.shadow_silent = self._counter(
            "shadow_silent", "Sampled rows of which a challenger said nothing: errors of it", "model", "version"
        )
        self.swap_failures = self._counter("swap_failures", "Versions that could not be loaded", "model")
        self.batch_rows = Distribution("demur_batch_rows", "Rows run together", "model", bounds=_ROWS)
        self.registry.register(self.batch_rows)
        self.queue_rows = Gauge("demur_queue_rows", "Rows waiting for a run", ["model"], registry=self.registry)
        self.stage_seconds = Distribution(
            "demur_stage_seconds",
            "Where a request's time went: queue, compute, park",
            "model",
            "stage",
            bounds=_STAGE_SECONDS,
        )
        self.registry.register(self.stage_seconds)
        self._champion = Gauge(
            _CHAMPION,
            "1 for the version that is live here",
            ["model", "version", "provider"],
            registry=self.registry,
        )
        self._build = Info("demur_build", "This program", registry=self.registry)
        self._live: dict[str, tuple[str, str]] = {}
        self._runs: dict[str, Runs] = {}
        # What there was of a model when its live version took over.
        self._before: dict[str, Counted] = {}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"demur_{name}", text, labels, registry=self.registry)

    def answered(self, model: str, decision: str) -> Counter:
        """Return what counts a model's requests that were answered, by what the answer is worth; it is kept at hand."""
        key = model, decision
        found = self._answered.get(key)
        if found is None:
            found = self._answered[key] = self.requests.labels(model, str(decision), "OK")
        return found

    def runs(self, model: str) -> Runs:
        """Return what counts a model's runs, on the page in `demur_batch_rows` and as the stage "compute"."""
        found = self._runs.get(model)
        if found is None:
            found = self._runs[model] = Runs(rows=_ROWS, seconds=_STAGE_SECONDS)
            self.batch_rows.show(found.rows, model)
            self.stage_seconds.show(found.seconds, model, "compute")
        return found

    def counted(self, models: Iterable[str]) -> dict[str, Counted]:
        """Return what came of models' requests since their live versions took over, to within that moment."""
        ends = self._ends()
        return {model: self._counted(model, ends).since(self._before.get(model, Counted())) for model in models}

    def _ends(self) -> dict[str, list[int]]:
        """Return by model how many requests failed and how many succeeded."""
        ends: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for sample in next(iter(self.requests.collect())).samples:
            if sample.name.endswith("_total"):
                ends[sample.labels["model"]][sample.labels["code"] == "OK"] += int(sample.value)
        return ends

    def _counted(self, model: str, ends: Mapping[str, Sequence[int]]) -> Counted:
        failed, succeeded = ends[model]
        queued, queue_seconds = self.stage_seconds.labels(model, "queue").total()
        computed, compute_seconds, sizes = self.runs(model).read()
        return Counted(
            succeeded=succeeded,
            failed=failed,
            queued=queued,
            queue_seconds=queue_seconds,
            computed=computed,
            compute_seconds=compute_seconds,
            sizes=sizes,
        )

    def set_build(self, *, version: str, device: str) -> None:
        """Say which program this is and what it runs on."""
        self._build.info({"version": version, "device": device})

    def set_champion(self, model: str, version: str, provider: str) -> None:
        """Say which version of `model` is live; the one before it leaves the page."""
        before = self._live.get(model)
        if before is not None and before != (version, provider):
            self._champion.remove(model, *before)
        if before != (version, provider):
            self._before[model] = self._counted(model, self._ends())
        self._live[model] = (version, provider)
        self._champion.labels(model, version, provider).set(1)

    def unset_champion(self, model: str) -> None:
        """Say that no version of `model` is live."""
        before = self._live.pop(model, None)
        if before is not None:
            self._champion.remove(model, *before)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPage:
    """A running page at http://<address>/metrics."""

    address: str
    server: WSGIServer
    thread: Thread

    def close(self) -> None:
        """Stop answering and free the port."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def providers(address: str) -> list[str]:
    """Ask the page at `address` (host:port) what live models run on; none where it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_ASK_SECONDS) as page:
            families = [*text_string_to_metric_families(page.read().decode())]
    except OSError:
        return []
    samples = [sample for family in families if family.name == _CHAMPION for sample in family.samples]
    return sorted({sample.labels["provider"] for sample in samples})


def serve(metrics: Metrics, listen: str) -> MetricsPage:
    """Answer GET /metrics on `listen` (host:port, port 0 for any); raises ConfigError where the port cannot be had."""
    host, _, port = listen.rpartition(":")
    try:
        server, thread = prometheus_client.start_http_server(
            int(port), addr=host.strip("[]"), registry=metrics.registry
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"gateway.metrics_listen: cannot listen on {listen}: {error}") from error
    return MetricsPage(address=f"{host}:{server.server_port}", server=server, thread=thread)
