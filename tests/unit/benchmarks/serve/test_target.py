"""What is asked for of a target, and what is refused before anything is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgspec
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks import bench_target, figures, machine
from benchmarks.serve import results, target
from benchmarks.serve.results import SCENARIOS
from demur import kserve
from fallback.errors import InvalidError
from tests.unit.benchmarks.serve import made_up


def wish(**changed: Any) -> target.Wish:
    """Return what a command line asks for."""
    plain: dict[str, Any] = {
        "to": "localhost:8001",
        "models": ["m"],
        "shapes": [],
        "metadata": [],
        "rows": None,
        "timeout_seconds": 1.0,
        "ca": None,
        "pid": None,
        "metrics": None,
    }
    return bench_target.wish(**{**plain, **changed})


def order(**changed: Any) -> bench_target.Order:
    """Return how a command line asks for it."""
    plain: dict[str, Any] = {
        "chosen": [],
        "bound_ms": 10.0,
        "processes": None,
        "callers": None,
        "seconds": None,
        "quick": False,
        "as_json": True,
    }
    return bench_target.order(**{**plain, **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"to": "localhost"}, "--target: expected HOST:PORT, got 'localhost'"),
        ({"to": "http://localhost:8000"}, "--target: expected HOST:PORT, got 'http://localhost:8000'"),
        ({"to": "localhost:0"}, "--target: expected HOST:PORT"),
        ({"models": []}, "--model: expected one model of the target, got none"),
        ({"models": ["a", "b"]}, "--model: expected one model of the target, got a, b"),
        ({"metadata": ["authorization"]}, "--metadata: expected KEY=VALUE in ASCII, got 'authorization'"),
        ({"metadata": ["a=\u00e9"]}, "--metadata: expected KEY=VALUE in ASCII, got 'a='"),
        ({"metadata": ["grpc-timeout=1S"]}, "--metadata: expected neither gRPC's own keys nor binary ones"),
        ({"shapes": ["x"]}, "--shape: expected NAME=1,3,224,224"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(changed: dict[str, Any], said: str) -> None:
    """With what was expected and what was got, but for what may be a secret."""
    with pytest.raises(InvalidError, match=said):
        wish(**changed)


def test_a_wish_is_read() -> None:
    """Metadata's keys in lower case, as HTTP/2 wants them; a value may hold what it likes of ASCII."""
    found = wish(to="[::1]:8001", metadata=["Authorization=Bearer a=b c"], shapes=["x=1,2"])
    assert (found.address, found.metadata) == ("[::1]:8001", (("authorization", "Bearer a=b c"),))
    assert found.shapes[0].shape == (1, 2)
    assert target.grpc_timeout(0.25) == "250m"


def test_scenarios_are_chosen_in_the_order_in_which_they_are_measured() -> None:
    """All unless said."""
    assert order().chosen == SCENARIOS
    assert order(chosen=["server", "offline"]).chosen == ("offline", "server")
    assert order(callers=7, seconds=0.25, quick=True).size.callers == 7
    with pytest.raises(InvalidError, match=r"--scenario: expected some of single-stream, .* got 'multi-stream'"):
        order(chosen=["multi-stream"])


def test_options_of_a_target_want_one() -> None:
    """Rather than being left aside."""
    bench_target.expect_none(None, None)
    with pytest.raises(InvalidError, match="--target"):
        bench_target.expect_none(None, ["x=1"])


def test_an_answer_that_a_person_is_asked_about_is_known() -> None:
    """By the gateway's parameter; another server has none."""
    answer = kserve.ModelInferResponse(model_name="m")
    assert not target.deferring(answer.SerializeToString())
    for decision, deferring in (("answered", False), ("provisional", True), ("deferred", True)):
        answer.parameters["demur_decision"].string_param = decision
        assert target.deferring(answer.SerializeToString()) == deferring


def test_what_a_reader_has_to_know_is_said() -> None:
    """Who else worked on the machine, whose limit offline may be, and how few requests a percentile stands on."""
    server = results.Target(address="a:1", tls=False, name="", version="", extensions=(), pids=(1,))
    model = results.Asked(
        name="m", version="", platform="", inputs=(), outputs=(), rows=1, request_bytes=1, reply_bytes=1
    )
    found = target.Found(target=server, model=model, payload=b"", steady=False, source=None, notes=("one",))
    offline = results.Offline(samples=figures.spread([1.0]), callers=1, runs=())
    beside = bench_target.Beside(others=64.0, above="process 7: see above")
    said = bench_target.notes(found, results.Scenarios(offline=offline), c_client=False, beside=beside)
    assert [each.split(":")[0].split(",")[0] for each in said] == [
        "one",
        "offline is measured with Python processes",
        "client and server share this machine's cores",
        "process 7",
        f"other processes took 64 of {machine.cores():g} cores meanwhile",
    ]
    assert "differing lengths" in said[1]
    assert len(bench_target.notes(found, results.Scenarios(), c_client=False, beside=bench_target.Beside())) == 2


def test_a_rate_that_was_not_found_is_not_told_as_0() -> None:
    """But what was tried, and what may help: on a machine that stalls short runs keep no bound."""
    found = made_up.result().scenarios.server
    assert found is not None
    said = bench_target.server_line(found)
    assert said.startswith(f"server: {found.rate:g} a second with p99 within 10 ms; with more ")
    least = min(run.rate or 0 for run in found.searched)
    none = msgspec.structs.replace(found, rate=0.0, verified=())
    assert bench_target.server_line(none).startswith(
        f"server: no rate was verified with p99 within 10 ms, down to {least:g} a second; "
    )


def test_a_process_that_started_the_server_and_works_for_it_is_named() -> None:
    """The topmost of those that work, since its family is all of them; a supervisor that sleeps is none."""
    said = bench_target.busy_above({7: 0.9, 6: 0.3, 5: 0.01}, served=2.0)
    assert said.startswith("process 6 (")
    assert said.endswith("worked 0.3 s beside the server's 2.0: --pid 6 counts both")
    assert bench_target.busy_above({5: 0.01}, served=2.0) == ""
    assert bench_target.busy_above({}, served=0.0) == ""


class Bare(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    """A server of which only ModelInfer is there, as where the other methods are kept from strangers."""

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Answer with as many rows as were asked for."""
        del context
        reply = service_pb2.ModelInferResponse(model_name=request.model_name)
        reply.outputs.add(name="y", datatype="FP32", shape=[request.inputs[0].shape[0]])
        reply.raw_output_contents.append(b"\0" * 4 * request.inputs[0].shape[0])
        return reply


def test_a_server_without_metadata_is_measured_with_what_is_given() -> None:
    """Inputs with datatypes, and rows where they are said; without them it is told what to give."""
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Bare(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with target.asked(wish(to=address, shapes=["x:FP32=4,2"], rows=4)) as found:
            assert (found.model.rows, found.model.inputs[0].sent, found.target.name) == (4, (4, 2), "")
            assert found.source is None
        with (
            pytest.raises(InvalidError, match="does not declare the model's inputs: expected --shape NAME:DATATYPE="),
            target.asked(wish(to=address)),
        ):
            pass
    finally:
        server.stop(None).wait()
