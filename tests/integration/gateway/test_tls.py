"""By TLS from end to end: what the environment says is enough for Demur's own clients."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from pathlib import Path

import pytest

from fallback import channel, serve
from fallback.client import ReviewClient
from fallback.config import Config, load
from fallback.errors import ConfigError, UnavailableError
from gateway.client import Client
from gateway.model_client import ModelClient
from gateway.server import Gateway
from tests import certificates
from tests.commands import demur_on_this_thread

SETTINGS = """
[gateway]
grpc_listen = "127.0.0.1:0"
metrics_listen = ""
{tls}
[fallback]
grpc_listen = "127.0.0.1:0"
page_listen = "127.0.0.1:0"
{tls}
"""
VARIABLES = tuple(f"DEMUR_{name}" for name in ("CA", "CERTIFICATE", "KEY", "SERVER_NAME"))
TLS = """
tls_certificate_file = "{folder}/server.pem"
tls_key_file = "{folder}/server.key"
tls_client_ca_file = "{folder}/ca.pem"
"""


@pytest.fixture
def folder(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates where demur.toml is looked for, which names them, and an environment that trusts them."""
    assert config
    certificates.write(certificates.authority(), tmp_path)
    (tmp_path / "demur.toml").write_text(SETTINGS.format(tls=TLS.format(folder=tmp_path)))
    for name, value in (("CA", "ca.pem"), ("CERTIFICATE", "client.pem"), ("KEY", "client.key")):
        monkeypatch.setenv(f"DEMUR_{name}", str(tmp_path / value))
    monkeypatch.setenv("DEMUR_SERVER_NAME", certificates.HOST)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_gateway_is_reached_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the clear it is not, nor under another name than the certificate's; what failed says so."""
    gateway = Gateway(load())
    gateway.start()

    async def listed() -> int:
        async with ModelClient(gateway.address, **channel.shown("ann")) as client:
            return len(await client.list())

    async def predicted() -> None:
        async with Client(gateway.address, **channel.shown("ann")) as client:
            await client.predict("nothing", text="x")

    try:
        assert asyncio.run(listed()) == 0
        with pytest.raises(Exception, match="nothing"):
            asyncio.run(predicted())
        monkeypatch.delenv("DEMUR_SERVER_NAME")
        with pytest.raises(UnavailableError, match=r"cannot be reached.*TLS"):
            asyncio.run(listed())
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(UnavailableError, match=r"cannot be reached.*TLS"):
            asyncio.run(listed())
    finally:
        gateway.drain(0.5)


async def test_reviewers_are_served_by_tls_too(folder: Path) -> None:
    """Their programs show a certificate, their browsers are asked for none."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    review = serve.Review(load())
    async with review:
        stop = asyncio.Event()
        running = asyncio.create_task(review.run(stop))
        async with ReviewClient(review.addresses["grpc"], **channel.shown("ann")) as client:
            assert await client.queues() == []
        url = f"https://{review.addresses['page']}/".replace("127.0.0.1", certificates.HOST)

        def page() -> int:
            with urllib.request.urlopen(url, context=context, timeout=10) as reply:
                return int(reply.status)

        assert await asyncio.to_thread(page) == 200
        stop.set()
        await running


def test_a_stack_is_not_started_half_by_tls_or_where_its_parts_could_not_call_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting, or the variable, is named."""
    monkeypatch.delenv("DEMUR_CERTIFICATE")
    code, said = demur_on_this_thread("up")
    assert code == 2
    assert "demur: DEMUR_CERTIFICATE: expected a PEM file" in said
    monkeypatch.delenv("DEMUR_CA")
    code, said = demur_on_this_thread("up")
    assert code == 2
    assert "demur: DEMUR_CA: expected the PEM file" in said
    (folder / "demur.toml").write_text(f"[gateway]\n{TLS.format(folder=folder)}")
    code, said = demur_on_this_thread("up")
    assert code == 2
    assert "demur: fallback.tls_certificate_file: expected a file" in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"CA": "absent"}, "DEMUR_CA: absent cannot be read"),
        ({"CA": "noise"}, "DEMUR_CA: expected a file in PEM form"),
        ({"CERTIFICATE": "client.pem"}, "DEMUR_KEY: expected a PEM file"),
        ({"SERVER_NAME": "localhost"}, "DEMUR_CA: expected a PEM file or 'system' beside DEMUR_SERVER_NAME"),
        ({"KEY": "client.key"}, "DEMUR_CERTIFICATE: expected a PEM file"),
        ({"KEY": "client.key", "CERTIFICATE": "client.pem"}, "DEMUR_CA: expected a PEM file or 'system'"),
    ],
)
def test_a_variable_that_does_not_do_is_named(
    given: dict[str, str], expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is called."""
    monkeypatch.chdir(folder)
    (folder / "noise").write_bytes(b"\x00")
    for name in VARIABLES:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(f"DEMUR_{name}", value)
    with pytest.raises(ConfigError, match=expected):
        channel.shown("ann")


@pytest.mark.parametrize("where", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_system_is_whom_this_machine_trusts(folder: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenSSL looks for that: a file, or a folder of files named after their hashes."""
    monkeypatch.setenv("DEMUR_CA", "system")
    (folder / "trusted").mkdir()
    for name, value in (("SSL_CERT_FILE", folder / "absent.pem"), ("SSL_CERT_DIR", folder / "trusted")):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="no list of whom it trusts"):
        channel.shown("ann")
    (folder / "trusted" / "0a1b2c3d.0").write_bytes((folder / "ca.pem").read_bytes())
    if where == "SSL_CERT_FILE":
        monkeypatch.setenv(where, str(folder / "ca.pem"))
    gateway = Gateway(load())
    gateway.start()

    async def listed() -> int:
        async with ModelClient(gateway.address, **channel.shown("ann")) as client:
            return len(await client.list())

    try:
        assert asyncio.run(listed()) == 0
    finally:
        gateway.drain(0.5)


def test_without_any_variable_calls_go_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gRPC has it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert channel.shown("ann")["credentials"] is None
