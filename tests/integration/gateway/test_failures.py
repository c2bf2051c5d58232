"""The rows of the failure table that are the gateway's: Redis away, more load than capacity, a gateway that stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from demur import kserve
from fallback import embedded
from fallback.config import Config, FallbackSettings, RedisSettings
from fallback.deferral import State
from fallback.errors import (
    AwayError,
    ConfigError,
    ForbiddenError,
    FullError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from gateway.client import Client
from gateway.policy import Policy
from gateway.rules import Decision
from gateway.server import Gateway
from tests.live_gateway import JUDGED, SURE, UNSURE, credentials, install, promote, running, settings, told
from tests.servers import until
from tests.unit.gateway.test_plain import Call

# Of 20 callers: up to 4 are run together, and 4 wait behind them.
REFUSED_AT_LEAST = 12


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A server that a test may stop."""
    server = embedded.Server.start(tmp_path_factory.mktemp("own"))
    server.wait_ready()
    yield server
    server.stop()


def _config(folder: Path, url: str, **fields: Any) -> Config:
    return settings(
        Config(data_folder=folder),
        {"redis": RedisSettings(url=url, connect_timeout_seconds=0.5, command_timeout_seconds=1.0)},
        **fields,
    )


def _lay_down(config: Config, policy: Policy = JUDGED.policy) -> None:
    install(config.data_folder, "m", "1", told(1), msgspec.structs.replace(JUDGED, policy=policy))
    promote(config, "m", "1")


def _predict(gateway: Gateway, x: np.ndarray, **fields: Any) -> Any:
    async def ask() -> Any:
        async with Client(gateway.address, identity="shop") as client:
            return await client.predict("m", inputs={"x": x}, **fields)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_REDIS_URL", raising=False)


def test_while_redis_is_away_the_confident_are_answered_and_the_uncertain_told_to_retry(
    own_server: embedded.Server, tmp_path: Path
) -> None:
    """UNAVAILABLE with RetryInfo; an audit that cannot be parked disturbs no answer."""
    config = _config(tmp_path, own_server.url)
    _lay_down(config, Policy(threshold=0.8, audit_share=1.0))
    with running(config) as gateway:
        own_server.stop()
        assert _predict(gateway, SURE).decision is Decision.ANSWERED
        with pytest.raises(UnavailableError) as caught:
            _predict(gateway, UNSURE)
        assert caught.value.retry_after_seconds
        assert _predict(gateway, SURE).decision is Decision.ANSWERED


def test_the_operator_may_have_the_uncertain_answered_unreviewed(own_server: embedded.Server, tmp_path: Path) -> None:
    """Marked so, with no deferral."""
    config = _config(tmp_path, own_server.url, redis_away="answer_unreviewed")
    _lay_down(config)
    with running(config) as gateway:
        own_server.stop()
        got = _predict(gateway, UNSURE)
        assert (got.decision, got.label, got.deferral) == (Decision.UNREVIEWED, "b", None)


@pytest.mark.parametrize("clerk", [False, True])
def test_a_server_that_hangs_is_waited_for_once(own_server: embedded.Server, tmp_path: Path, *, clerk: bool) -> None:
    """Until somebody finds it back, nobody else waits for its time limit; then the uncertain are parked again."""
    config = _config(tmp_path, own_server.url, redis_away="answer_unreviewed")
    _lay_down(config)
    with running(config, clerk=clerk) as gateway:

        def decision() -> Decision:
            found: Decision = _predict(gateway, UNSURE).decision
            return found

        until(lambda: gateway._clerk is None or gateway._clerk.up)
        assert decision() is Decision.DEFERRED
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            assert decision() is Decision.UNREVIEWED
            start = time.monotonic()
            assert {decision() for _ in range(20)} == {Decision.UNREVIEWED}
            # Each by itself would have waited for a second.
            assert time.monotonic() - start < 10
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        until(lambda: decision() is Decision.DEFERRED)
        until(lambda: not gateway._deferring.backlog._rows)


def test_a_server_is_found_back_though_content_elsewhere_is_not(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds out asks the server alone."""
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway:

        async def fail(*_: object, **__: object) -> None:
            raise UnavailableError("the volume is away")

        monkeypatch.setattr(gateway.queue, "list_deferrals", fail)
        gateway._deferring.hold_off.failed("m", AwayError("away"))
        until(lambda: not gateway._deferring.hold_off.away)
        assert _predict(gateway, UNSURE).decision is Decision.DEFERRED


def test_a_gateway_starts_while_redis_is_away(own_server: embedded.Server, tmp_path: Path) -> None:
    """From this machine's copies, and answers what is confident."""
    config = _config(tmp_path, own_server.url)
    _lay_down(config)
    with running(config):
        pass
    own_server.stop()
    with running(config) as gateway:
        assert _predict(gateway, SURE).decision is Decision.ANSWERED
        with pytest.raises(UnavailableError):
            _predict(gateway, UNSURE)


def test_a_retry_after_the_gateway_was_gone_gets_the_same_deferral(config: Config) -> None:
    """What was parked before the reply was lost is found by its key."""
    config = settings(config)
    _lay_down(config)
    with running(config) as gateway:
        first = _predict(gateway, UNSURE, idempotency_key="k").deferral
    with running(config) as gateway:
        again = _predict(gateway, UNSURE, idempotency_key="k").deferral
    assert first.name == again.name


def test_a_retry_stays_deferred_when_a_surer_version_is_live(config: Config) -> None:
    """The client gets the deferral it was promised, and hears why."""
    config = settings(config)
    _lay_down(config)
    lax = msgspec.structs.replace(JUDGED, policy=Policy(threshold=0.1, audit_share=0))
    install(config.data_folder, "m", "2", told(2), lax)
    with running(config) as gateway:
        first = _predict(gateway, UNSURE, idempotency_key="k")
        promote(config, "m", "2")
        while _predict(gateway, SURE).version != "2":
            pass
        again = _predict(gateway, UNSURE, idempotency_key="k")
        assert again.deferral.name == first.deferral.name
        assert ("retry", True) in [(rule.rule, rule.defers) for rule in again.rules]
        assert _predict(gateway, UNSURE, idempotency_key="other").decision is Decision.ANSWERED


def test_more_load_than_capacity_is_refused_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo; what was taken is answered."""
    config = settings(config, queue_rows_max=4)
    _lay_down(config)
    with running(config) as gateway:
        live = gateway.champions.find("m").champion.live
        assert live is not None
        leave, run = threading.Event(), live.model.run
        monkeypatch.setattr(live.model, "run", lambda feeds, slab: leave.wait(10) and run(feeds, slab))

        async def flood() -> list[Any]:
            async with Client(gateway.address) as client:
                calls = [asyncio.create_task(client.predict("m", inputs={"x": SURE})) for _ in range(20)]
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                assert all(isinstance(call.exception(), FullError) for call in done)
                while sum(call.done() for call in calls) < REFUSED_AT_LEAST:
                    await asyncio.wait([call for call in calls if not call.done()], return_when=asyncio.FIRST_COMPLETED)
                leave.set()
                return await asyncio.gather(*calls, return_exceptions=True)

        found = asyncio.run(flood())
    refused = [each for each in found if isinstance(each, FullError)]
    answered = [each for each in found if not isinstance(each, BaseException)]
    assert len(refused) + len(answered) == 20
    assert len(answered) >= 4
    assert all(error.retry_after_seconds for error in refused)


def test_what_waits_where_it_came_in_is_counted_when_there_is_no_room(config: Config) -> None:
    """A request of more rows than may wait is answered alone; another beside it is told how many wait."""
    config = settings(config, queue_rows_max=4)
    _lay_down(config)
    x = np.repeat(SURE, 6, axis=0)
    with running(config) as gateway:
        pipeline = gateway.champions.find("m")
        assert _rows_answered(gateway, x) == 6
        until(lambda: _rows_answered(gateway, x) == 6 and pipeline.batcher.direct)
        calls = [Call(_asked(x)) for _ in range(2)]
        for call in calls:
            question = gateway._inference._questions.find(call.payload)
            assert question is not None
            assert pipeline.submit_quick(call, question, "", gateway._inference._wording, driven=True)
        gateway.champions.drained()
        until(lambda: bool(calls[0].got))
    assert isinstance(calls[0].got, bytes)
    assert isinstance(calls[1].got, FullError)
    assert str(calls[1].got) == "model 'm': 6 rows wait, the most is 4"


def _asked(x: np.ndarray) -> bytes:
    message = kserve.ModelInferRequest(model_name="m", raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    content: bytes = message.SerializeToString()
    return content


def _rows_answered(gateway: Gateway, x: np.ndarray) -> int:
    with grpc.insecure_channel(gateway.address) as channel:
        ask = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer", bytes, kserve.ModelInferResponse.FromString)
        rows: int = ask(_asked(x), timeout=10).outputs[0].shape[0]
    return rows


def test_a_gateway_that_stops_answers_what_is_under_way(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain fails nobody who was taken; newcomers are turned away."""
    config = settings(config)
    _lay_down(config)
    gateway = Gateway(config)
    gateway.start()
    live = gateway.champions.find("m").champion.live
    assert live is not None
    entered, leave, run = threading.Event(), threading.Event(), live.model.run

    def slow(feeds: Any, slab: Any) -> Any:
        entered.set()
        assert leave.wait(10)
        return run(feeds, slab)

    monkeypatch.setattr(live.model, "run", slow)

    async def stop_while_asking() -> Any:
        async with Client(gateway.address, identity="shop") as client:
            asked = asyncio.create_task(client.predict("m", inputs={"x": UNSURE}))
            await asyncio.to_thread(entered.wait, 10)
            draining = asyncio.create_task(asyncio.to_thread(gateway.drain))
            await asyncio.sleep(0.3)
            leave.set()
            got = await asked
            await draining
            with pytest.raises(UnavailableError):
                await client.predict("m", inputs={"x": SURE}, timeout_seconds=2)
            return got

    assert asyncio.run(stop_while_asking()).decision is Decision.DEFERRED


def test_a_gateway_that_stops_ends_its_streams_and_waits(config: Config) -> None:
    """They do not hold up the drain; the deferral stays open."""
    config = settings(config, drain_seconds=60.0)
    waits = msgspec.structs.replace(JUDGED, on_deferral="wait")
    install(config.data_folder, "m", "1", told(1), waits)
    promote(config, "m", "1")
    gateway = Gateway(config)
    gateway.start()
    request = kserve.ModelInferRequest(model_name="m", raw_input_contents=[UNSURE.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])

    async def stop_while_waiting() -> None:
        async with Client(gateway.address) as client, grpc.aio.insecure_channel(gateway.address) as channel:
            got = await client.predict("m", inputs={"x": UNSURE})
            assert got.deferral is not None
            stream = client.watch("m")
            infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            watching = asyncio.ensure_future(anext(stream))
            inferring = asyncio.ensure_future(infer(request.SerializeToString(), timeout=50))
            waiting = asyncio.ensure_future(client.wait(got.deferral.name, timeout_seconds=1))
            await asyncio.sleep(0.5)
            start = time.monotonic()
            await asyncio.to_thread(gateway.drain)
            assert time.monotonic() - start < 20
            with pytest.raises(UnavailableError, match="go on from the last cursor"):
                await watching
            with pytest.raises(grpc.aio.AioRpcError, match="the deferral stays open"):
                await inferring
            with contextlib.suppress(UnavailableError):
                assert (await waiting).state is State.OPEN

    asyncio.run(stop_while_waiting())


def test_a_port_that_is_taken_is_named(config: Config) -> None:
    """ConfigError, and nothing is left running."""
    sentence = r"gateway\.grpc_listen: cannot listen on 127\.0\.0\.1"
    with running(settings(config)) as gateway, pytest.raises(ConfigError, match=sentence):
        Gateway(settings(config, grpc_listen=gateway.address)).start()


def test_a_start_that_fails_early_says_why(tmp_path: Path) -> None:
    """Not what then could not be closed since it was never opened."""
    with pytest.raises(ConfigError, match=r"redis\.url: expected redis://"):
        Gateway(_config(tmp_path, "nonsense://x")).start()


def test_nothing_listens_beyond_loopback_without_credentials(config: Config) -> None:
    """Refused before anything is loaded."""
    with pytest.raises(ConfigError, match="without credentials nothing listens beyond loopback"):
        Gateway(settings(config, grpc_listen="0.0.0.0:0")).start()


def test_with_credentials_a_client_sees_its_own_deferrals_only(config: Config, tmp_path: Path) -> None:
    """Another's are not there; no token, no answer; a reviewer's token is not a client's."""
    file = credentials(tmp_path, ann=("client",), bob=("client",), rev=("reviewer",))
    secured = settings(config, {"fallback": FallbackSettings(credentials_file=file)})
    _lay_down(secured)

    async def ask(gateway: Gateway) -> None:
        async with Client(gateway.address, token="ann") as ann, Client(gateway.address, token="bob") as bob:
            got = await ann.predict("m", inputs={"x": UNSURE})
            assert got.deferral is not None
            assert (await ann.get(got.deferral.name)).deferral.name == got.deferral.name
            for look in (bob.get, bob.cancel):
                with pytest.raises(NotFoundError):
                    await look(got.deferral.name)
            await ann.cancel(got.deferral.name)
        async with Client(gateway.address, identity="ann") as nobody, Client(gateway.address, token="rev") as reviewer:
            with pytest.raises(UnauthenticatedError):
                await nobody.predict("m", inputs={"x": SURE})
            with pytest.raises(ForbiddenError):
                await reviewer.predict("m", inputs={"x": SURE})

    with running(secured) as gateway:
        asyncio.run(ask(gateway))


def test_health_and_reflection_answer(config: Config) -> None:
    """Serving only when champions are loaded; both contracts are shown."""
    from google.protobuf import descriptor_pb2
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with running(settings(config)) as gateway, grpc.insecure_channel(gateway.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "demur.v1.PredictionService", "inference.GRPCInferenceService"):
            reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest
        asked = [ask(list_services=""), ask(file_containing_symbol="inference.ModelInferRequest")]
        asked.append(ask(file_containing_symbol="demur.v1.PredictRequest"))
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed, *files = stub.ServerReflectionInfo(iter(asked), timeout=5)
        names = {service.name for service in listed.list_services_response.service}
        assert {"demur.v1.PredictionService", "demur.v1.ModelService", "inference.GRPCInferenceService"} <= names
        for reply, message in zip(files, ("ModelInferRequest", "PredictRequest"), strict=True):
            raw = reply.file_descriptor_response.file_descriptor_proto
            found = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in raw]
            assert any(message in [each.name for each in file.message_type] for file in found)
