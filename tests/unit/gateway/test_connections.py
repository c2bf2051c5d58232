"""Every transport: TLS, addresses, ages and limits of connections, health and reflection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from demur.v1 import prediction_pb2
from fallback.errors import ConfigError
from fallback.tls import Tls, tls_of
from gateway.config import GatewaySettings
from gateway.connections import Connections
from gateway.standing import files_of
from gateway.transport import Call, Routes
from tests import certificates
from tests.raw_http2 import GOAWAY, Raw
from tests.transporting import SECONDS, Serving, ask, hot, until

Status = health_pb2.HealthCheckResponse


def echo(call: Call) -> None:
    call.reply(call.payload)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return certificates.authority()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    return certificates.write(authority, tmp_path)


def _mutual(files: Path) -> Tls:
    return Tls(
        table="gateway",
        certificate_file=files / "server.pem",
        key_file=files / "server.key",
        client_ca_file=files / "ca.pem",
    )


def _said(address: str, credentials: grpc.ChannelCredentials) -> bytes:
    with grpc.secure_channel(address, credentials) as channel:
        return ask(channel, timeout=2)


def test_tls_shows_the_certificate_and_takes_no_plain_text(serving: Serving, files: Path) -> None:
    """One that the caller's authority signed."""
    tls = Tls(table="gateway", certificate_file=files / "server.pem", key_file=files / "server.key")
    with serving(hot(echo), connections=Connections(tls=tls)) as (transport, plain):
        address = f"localhost:{transport.port}"
        assert _said(address, grpc.ssl_channel_credentials((files / "ca.pem").read_bytes())) == b"x"
        with pytest.raises(grpc.RpcError):
            ask(plain, timeout=0.3)


def test_mutual_tls_takes_only_callers_that_its_authority_signed(serving: Serving, files: Path) -> None:
    """A caller without a certificate gets nowhere."""
    tls = Tls(
        table="gateway",
        certificate_file=files / "server.pem",
        key_file=files / "server.key",
        client_ca_file=files / "ca.pem",
    )
    with serving(hot(echo), connections=Connections(tls=tls)) as (transport, _):
        address, roots = f"localhost:{transport.port}", (files / "ca.pem").read_bytes()
        known = grpc.ssl_channel_credentials(
            roots, (files / "client.key").read_bytes(), (files / "client.pem").read_bytes()
        )
        assert _said(address, known) == b"x"
        with pytest.raises(grpc.RpcError):
            _said(address, grpc.ssl_channel_credentials(roots))


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("tls_certificate_file", None),
        ("tls_certificate_file", b"-----BEGIN CERTIFICATE-----\n"),
        ("tls_key_file", None),
        ("tls_key_file", b"\x00\xff"),
        ("tls_client_ca_file", None),
        ("tls_client_ca_file", b"no certificate"),
    ],
)
def test_a_file_of_tls_that_does_not_do_is_named(
    serving: Serving, files: Path, field: str, content: bytes | None
) -> None:
    """Missing or hostile, before anything listens."""
    path = files / {"tls_certificate_file": "server.pem", "tls_key_file": "server.key"}.get(field, "ca.pem")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    tls = Tls(
        table="gateway",
        certificate_file=files / "server.pem",
        key_file=files / "server.key",
        client_ca_file=files / "ca.pem",
    )
    with (
        pytest.raises(ConfigError, match=rf"gateway\.{field}"),
        serving(hot(echo), connections=Connections(tls=tls)),
    ):
        pass


def test_one_file_of_tls_asks_for_the_other() -> None:
    """And none means no TLS."""
    assert tls_of("gateway", GatewaySettings()) is None
    with pytest.raises(ConfigError, match=r"gateway\.tls_key_file"):
        tls_of("gateway", GatewaySettings(tls_certificate_file="a.pem"))
    with pytest.raises(ConfigError, match=r"gateway\.tls_certificate_file"):
        tls_of("gateway", GatewaySettings(tls_client_ca_file="ca.pem"))


def test_a_unix_socket_is_an_address(serving: Serving, tmp_path: Path) -> None:
    """Its callers are on this machine."""
    peers: list[str] = []

    def handler(call: Call) -> None:
        peers.append(call.peer)
        call.reply(b"here")

    with serving(hot(handler), listen=f"unix:{tmp_path}/s") as (transport, channel):
        assert ask(channel) == b"here"
        assert transport.port in {0, 1}
    assert peers[0].startswith("unix:")


def test_a_connection_that_is_old_is_asked_to_go(serving: Serving) -> None:
    """Politely: what it sends meanwhile is answered."""
    with serving(hot(echo), connections=Connections(age_seconds=0.1)) as (transport, channel):
        raw = Raw(transport.port)
        assert any(kind == GOAWAY for kind, _, _ in raw.frames(until=GOAWAY))
        raw.close()
        assert ask(channel) == b"x"


def test_health_is_watched_listed_and_unknown_for_strangers(serving: Serving) -> None:
    """A watcher hears of every change, and is let go when the transport stops."""
    heard: list[int] = []
    with serving(Routes(hot={}, slow={})) as (transport, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(service="test.T"), timeout=SECONDS)

        def listen() -> None:
            heard.extend(response.status for response in watching)

        listening = threading.Thread(target=listen)
        listening.start()
        until(lambda: heard == [Status.NOT_SERVING])
        transport.set_ready(ready=True)
        until(lambda: heard == [Status.NOT_SERVING, Status.SERVING])
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="stranger"), timeout=SECONDS)
        told: Any = caught.value
        assert told.code() is grpc.StatusCode.NOT_FOUND
        assert told.details() == "service: expected '' or one of test.T, got 'stranger'"
        strange = stub.Watch(health_pb2.HealthCheckRequest(service="stranger"), timeout=SECONDS)
        assert next(strange).status == Status.SERVICE_UNKNOWN
        strange.cancel()
        listing: Any = channel.unary_unary("/grpc.health.v1.Health/List")
        assert listing(b"", timeout=SECONDS) == b"\n\x06\n\x00\x12\x02\x08\x01" + b"\n\x0c\n\x06test.T\x12\x02\x08\x01"
        transport.stop(SECONDS)
        listening.join(SECONDS)
        assert not listening.is_alive()
    assert heard == [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_shows_services_and_their_files(serving: Serving, version: str) -> None:
    """On one stream, question by question; both versions are one protocol."""
    fields: Any = {"names": ("demur.v1.PredictionService",), "files": files_of(prediction_pb2.DESCRIPTOR)}
    with serving(Routes(hot={}, slow={}), **fields) as (_, channel):
        method: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="demur.v1.PredictionService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="demur.v1.PredictionService.Predict"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="demur.v1.PredictionService.Guess"),
        ]

        def one_by_one() -> Iterator[Any]:
            yield from asked

        listed, own, health, by_method, stranger = method(one_by_one(), timeout=SECONDS)
        names = {service.name for service in listed.list_services_response.service}
        assert {"demur.v1.PredictionService", "grpc.health.v1.Health"} <= names
        assert own.file_descriptor_response.file_descriptor_proto
        assert health.file_descriptor_response.file_descriptor_proto
        assert by_method.file_descriptor_response == own.file_descriptor_response
        assert stranger.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_options_say_only_what_was_asked_for() -> None:
    """What is 0 stays gRPC's own."""
    plain = dict(Connections().options(1024))
    assert plain["grpc.max_receive_message_length"] == 1024
    assert "grpc.max_connection_age_ms" not in plain
    every = dict(
        Connections(
            calls_max=7,
            age_seconds=1.0,
            age_grace_seconds=2.0,
            keepalive_seconds=3.0,
            keepalive_timeout_seconds=4.0,
            ping_seconds_min=5.0,
        ).options(1024)
    )
    assert every["grpc.max_concurrent_streams"] == 7
    assert every["grpc.max_connection_age_ms"] == 1_000
    assert every["grpc.max_connection_age_grace_ms"] == 2_000
    assert every["grpc.keepalive_time_ms"] == 3_000
    assert every["grpc.keepalive_timeout_ms"] == 4_000
    assert every["grpc.http2.min_ping_interval_without_data_ms"] == 5_000
