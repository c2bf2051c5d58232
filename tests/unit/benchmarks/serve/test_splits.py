"""Where requests' time went, as servers count it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from prometheus_client import generate_latest
from tritonclient.grpc import service_pb2

from benchmarks.serve import splits
from benchmarks.serve.splits import Page, Stages
from gateway import metrics
from gateway.metrics import Metrics


def test_a_split_adds_up_to_the_mean_latency() -> None:
    """Of the requests between two readings; where nothing was counted there is none."""
    before, after = Stages(1.0, 100, 2.0, 50), Stages(1.2, 200, 2.4, 100)
    split = splits.between(before, after, mean_ms=15.0, source="x")
    assert split is not None
    assert (split.queue_ms, split.compute_ms, split.transport_ms) == (2.0, 8.0, 5.0)
    assert splits.between(before, before, mean_ms=1.0, source="x") is None
    assert splits.between(None, after, mean_ms=1.0, source="x") is None
    short = splits.between(before, after, mean_ms=4.0, source="x")
    assert short is not None
    assert short.transport_ms == 0.0


def test_our_page_is_read() -> None:
    """Of the model that is asked about; another server's page tells nothing."""
    counted = Metrics()
    counted.stage_seconds.labels("m", "queue").observe_all([0.25, 0.75])
    counted.stage_seconds.labels("m", "compute").observe(0.5)
    counted.stage_seconds.labels("other", "queue").observe(9.0)
    page = generate_latest(counted.registry).decode()
    assert splits.stages(page, "m") == ("demur metrics", Stages(1.0, 2, 0.5, 1))
    assert splits.stages(page, "new") == ("demur metrics", Stages(0, 0, 0, 0))
    assert splits.stages("# HELP nv_x x\n", "m") is None


def test_triton_s_page_is_read() -> None:
    """As version 2.51 writes it: summed over versions; a PyTriton serves no other statistics to strangers."""
    name = "nv_inference_compute_{}_duration_us"
    counted = {
        "nv_inference_request_success": 10,
        "nv_inference_queue_duration_us": 1_000_000,
        name.format("input"): 100_000,
        name.format("infer"): 300_000,
        name.format("output"): 100_000,
    }
    page = "".join(
        f"# HELP {family} Of all.\n# TYPE {family} counter\n"
        + "".join(
            f'{family}{{model="{model}",version="{version}"}} {value}\n'
            for model, version in (("m", "1"), ("m", "2"), ("other", "1"))
        )
        for family, value in counted.items()
    )
    assert splits.stages(page, "m") == ("Triton metrics", Stages(2.0, 20, 1.0, 20))
    assert splits.stages(page, "new") == ("Triton metrics", Stages(0, 0, 0, 0))


def test_who_speaks_otherwise_has_no_page() -> None:
    """A server's other ports are asked, too: one of gRPC answers with a frame of HTTP/2."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert Page(f"127.0.0.1:{port}", "m").read() is None
    finally:
        server.stop(None).wait()


def test_a_page_is_asked_for_over_http() -> None:
    """By address or by URL; where nobody answers there is none."""
    counted = Metrics()
    counted.stage_seconds.labels("m", "queue").observe(0.5)
    served = metrics.serve(counted, "127.0.0.1:0")
    try:
        assert Page(served.address, "m").read() == Stages(0.5, 1, 0, 0)
        assert Page(f"http://{served.address}/metrics", "m").read() == Stages(0.5, 1, 0, 0)
    finally:
        served.close()
    assert Page("127.0.0.1:1", "m").read() is None


def test_triton_s_statistics_are_read_as_triton_writes_them() -> None:
    """Summed over versions: what it computes is input, inference and output."""
    said = service_pb2.ModelStatisticsResponse()
    for version in ("1", "2"):
        stats = said.model_stats.add(name="m", version=version, inference_count=10).inference_stats
        stats.queue.count, stats.queue.ns = 10, 1_000_000_000
        for part, ns in ((stats.compute_input, 1), (stats.compute_infer, 3), (stats.compute_output, 1)):
            part.count, part.ns = 10, ns * 100_000_000
        stats.cache_hit.count = 7
    assert splits.summed(said.SerializeToString()) == Stages(2.0, 20, 1.0, 20)
