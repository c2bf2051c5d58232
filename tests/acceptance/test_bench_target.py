"""`demur bench serve --target` against servers of KServe's v2 protocol: one that is none of ours, and the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.serve import ground, latencies
from benchmarks.serve.results import Result
from tests.acceptance.test_bench import run


class Other(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    """A server after Triton's own contract: it adds up the numbers of each row, and counts its time."""

    def __init__(self) -> None:
        self.metadata: set[tuple[str, str]] = set()
        self.count = 0
        self.ns = 0

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Say who it is."""
        del request, context
        return service_pb2.ServerMetadataResponse(name="other", version="7", extensions=["statistics"])

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Say what the model takes."""
        if request.name != "sum":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        self.metadata |= {(str(key), str(value)) for key, value in context.invocation_metadata()}
        found = service_pb2.ModelMetadataResponse(name="sum", versions=["3"], platform="numpy")
        found.inputs.add(name="x", datatype="FP32", shape=[-1, -1])
        found.outputs.add(name="y", datatype="FP32", shape=[-1])
        return found

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Add up; as MLServer's codecs do, from raw bytes or from typed fields."""
        begin = time.monotonic_ns()
        self.metadata |= {(str(key), str(value)) for key, value in context.invocation_metadata()}
        (one,) = request.inputs
        values = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(list(one.shape))
        reply = service_pb2.ModelInferResponse(model_name="sum", model_version="3")
        reply.outputs.add(name="y", datatype="FP32", shape=[len(values)])
        reply.raw_output_contents.append(values.sum(axis=1).astype("<f4").tobytes())
        self.count, self.ns = self.count + 1, self.ns + time.monotonic_ns() - begin
        return reply

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell what was counted."""
        del request, context
        found = service_pb2.ModelStatisticsResponse()
        stats = found.model_stats.add(name="sum", version="3").inference_stats
        stats.queue.count = stats.compute_infer.count = self.count
        stats.compute_infer.ns = self.ns
        return found


@contextmanager
def other() -> Iterator[tuple[str, Other]]:
    """Run it in this process."""
    server, servicer = grpc.server(ThreadPoolExecutor(4)), Other()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait()


def test_any_server_of_the_protocol_is_measured(tmp_path: Path) -> None:
    """With requests made up from what it declares, in every scenario; the object is what `results` says it is."""
    argv = ["--model", "sum", "--shape", "x=4,5", "--metadata", "Tenant=t", "--quick", "--seconds", "0.2"]
    with other() as (address, servicer):
        ran, got = run(tmp_path, "serve", "--target", address, *argv, "--callers", "4", "--bound", "5000")
    result = msgspec.convert(got, Result, strict=False)
    assert (result.target.name, result.target.version, result.model.version) == ("other", "7", "3")
    assert result.model.inputs[0].sent == (4, 5)
    assert (result.model.rows, result.model.reply_bytes > 0) == (4, True)
    assert {("tenant", "t")} <= servicer.metadata
    found = result.scenarios
    assert found.single_stream is not None
    assert found.offline is not None
    assert found.callers is not None
    assert found.rates is not None
    assert found.server is not None
    alone = found.single_stream.run
    assert (alone.codes, alone.failed) == ({"OK": alone.requests}, 0)
    assert alone.samples == pytest.approx(4 * alone.answered, rel=1e-2)
    assert alone.cpu_us is not None
    assert alone.split is not None
    assert alone.split.source == "ModelStatistics"
    parts = alone.split.queue_ms + alone.split.compute_ms + alone.split.transport_ms
    assert parts == pytest.approx(alone.latency.mean_ms, rel=1e-2)
    assert latencies.latency(latencies.merged(alone.latency.hdr)) == alone.latency
    assert [each.callers for each in found.callers.points] == [1, 2, 4]
    assert len(found.server.verified) == 5
    assert result.ok == all(check.ok for check in result.checks)
    assert ran.returncode == (0 if result.ok else 1)


def test_what_the_server_or_the_wish_lacks_is_said(tmp_path: Path) -> None:
    """A model that there is not, axes that nobody knows; in one line, and with another code than a broken promise."""
    for argv, said in (
        (("--model", "none"), "NOT_FOUND: no model none"),
        (("--model", "sum"), "input 'x': expected --shape x=... since axes 1 of [-1, -1] are free, got none"),
    ):
        with other() as (address, _), pytest.raises(AssertionError) as raised:
            run(tmp_path, "serve", "--target", address, *argv)
        assert said in " ".join(str(raised.value).split())


@pytest.mark.parametrize("transport", ["cq", "aio"])
def test_our_gateway_is_measured_on_either_transport(transport: str, tmp_path: Path) -> None:
    """It says itself where the time went; nothing of it is parked, and nothing fails."""
    page = f"127.0.0.1:{ground.free_port()}"
    with ground.gateway(tmp_path, transport=transport, metrics=page) as served:
        ground.published(served.address, "tiny")
        argv = ["--scenario", "single-stream", "--quick", "--seconds", "0.3", "--processes", "2"]
        _, got = run(tmp_path, "serve", "--target", served.address, "--model", "tiny", *argv, "--html", "tiny.html")
    assert "<h1>tiny on demur" in (tmp_path / "tiny.html").read_text(encoding="utf-8")
    result = msgspec.convert(got, Result, strict=False)
    assert (result.target.name, result.target.pids[0]) == ("demur", served.pid)
    assert result.scenarios.single_stream is not None
    alone = result.scenarios.single_stream.run
    assert alone.failed == 0
    assert alone.split is not None
    assert alone.split.source == "demur metrics"
    assert result.scenarios.offline is None
    assert not any("parks" in note for note in result.notes)


def test_our_gateway_without_a_page_says_where_the_time_went_by_rpc(tmp_path: Path) -> None:
    """As Triton does."""
    with ground.gateway(tmp_path, transport="cq") as served:
        ground.published(served.address, "tiny")
        argv = ["--scenario", "single-stream", "--quick", "--seconds", "0.3", "--processes", "2"]
        _, got = run(tmp_path, "serve", "--target", served.address, "--model", "tiny", *argv)
    found = msgspec.convert(got, Result, strict=False).scenarios.single_stream
    assert found is not None
    assert found.run.split is not None
    assert found.run.split.source == "ModelStatistics"
