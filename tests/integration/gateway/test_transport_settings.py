"""What demur.toml says of transport and TLS is what a real gateway does."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fallback.config import Config, load
from fallback.errors import ConfigError
from gateway.aio import AioTransport
from gateway.cq import CqTransport
from gateway.server import Gateway

SETTINGS = """
[gateway]
grpc_listen = "127.0.0.1:0"
metrics_listen = ""
transport = "{transport}"
tls_certificate_file = "{folder}/{certificate}"
tls_key_file = "{folder}/key"
connection_calls_max = 100
keepalive_seconds = 10
"""


@pytest.fixture
def folder(config: Config, tmp_path: Path) -> Path:
    """Certificate, key and authority, where demur.toml is looked for."""
    assert config
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    return tmp_path


def _write(folder: Path, transport: str, certificate: str) -> None:
    text = SETTINGS.format(transport=transport, folder=folder, certificate=certificate)
    (folder / "demur.toml").write_text(text)


@pytest.mark.parametrize(("transport", "class_"), [("auto", CqTransport), ("cq", CqTransport), ("aio", AioTransport)])
def test_a_gateway_serves_on_the_transport_and_with_the_certificate_it_is_told(
    folder: Path, transport: str, class_: type
) -> None:
    """Its health is asked for over TLS."""
    _write(folder, transport, "certificate")
    gateway = Gateway(load())
    gateway.start()
    try:
        assert type(gateway._transport) is class_
        credentials = grpc.ssl_channel_credentials((folder / "authority").read_bytes())
        with grpc.secure_channel(gateway.address.replace("127.0.0.1", "localhost"), credentials) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    finally:
        gateway.drain(0.5)


@pytest.mark.parametrize("transport", ["cq", "aio"])
def test_a_certificate_that_is_not_there_keeps_it_from_starting(folder: Path, transport: str) -> None:
    """The setting is named."""
    _write(folder, transport, "nothing")
    with pytest.raises(ConfigError, match=r"gateway\.tls_certificate_file"):
        Gateway(load()).start()
