"""Which transport carries the calls: cq where it is proven, aio where it is not, and a clear word about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fallback.errors import ConfigError, InvalidError
from gateway import transports
from gateway.aio import AioTransport
from gateway.cq import CqTransport
from gateway.slow import SlowLoop
from gateway.transport import Routes
from gateway.transports import PROVEN, make, why_not
from tests.transporting import nothing

SECOND = "1.84.2"
ROOT = Path(__file__).parents[3]
ROUTES = Routes(hot={}, slow={})


@pytest.fixture
def terms() -> Iterator[Any]:
    slow = SlowLoop()
    slow.start()
    yield {
        "listen": "127.0.0.1:0",
        "slow_loop": slow.loop,
        "message_bytes_max": 1024,
        "calls_max": 1,
        "requests_bytes_max": 1024,
        "names": (),
        "files": (),
    }
    slow.stop(1.0, last=nothing)


def test_auto_is_cq_where_grpcio_is_proven(terms: Any) -> None:
    """After it has answered a call of each kind."""
    assert metadata.version("grpcio") in PROVEN
    assert why_not(terms["slow_loop"]) is None
    for choice in ("auto", "cq"):
        assert isinstance(make(choice, ROUTES, **terms), CqTransport)
    assert isinstance(make("aio", ROUTES, **terms), AioTransport)


def test_a_grpcio_that_is_not_proven_is_served_by_aio(terms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one line that says why; who insists on cq is told so."""
    monkeypatch.setattr(transports, "PROVEN", frozenset({"0.1"}))
    with capture_logs() as logs:
        assert isinstance(make("auto", ROUTES, **terms), AioTransport)
    (line,) = logs
    assert line["event"] == "the transport is aio"
    assert line["because"] == f"grpcio {metadata.version('grpcio')} is not one it is proven on (0.1)"
    with pytest.raises(ConfigError, match=r"gateway\.transport: expected one that works here, got cq"):
        make("cq", ROUTES, **terms)


def test_a_self_test_that_fails_is_served_by_aio(terms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was that failed."""

    async def broken(_: Any) -> None:
        raise InvalidError("broken")

    monkeypatch.setattr(transports, "_gather", broken)
    with capture_logs() as logs:
        assert isinstance(make("auto", ROUTES, **terms), AioTransport)
    assert "its self-test failed" in logs[-1]["because"]


@pytest.mark.timeout(300)
def test_cq_holds_on_a_second_version_of_grpcio(pytestconfig: pytest.Config) -> None:
    """The suite of the transports, its part for cq, in a process of its own on that version."""
    assert SECOND in PROVEN
    assert metadata.version("grpcio") != SECOND
    folder = pytestconfig.cache.mkdir(f"grpcio-{SECOND}") if pytestconfig.cache else ROOT / "unused"
    if not (folder / "complete").exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder))
        subprocess.run((*pip, f"grpcio=={SECOND}"), check=True, capture_output=True)
        (folder / "complete").touch()
    code = "from importlib import metadata; import grpc, sys; print(metadata.version('grpcio'), grpc.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    said = subprocess.run((sys.executable, "-c", code), env=environment, check=True, capture_output=True, text=True)
    assert said.stdout.split() == [SECOND, str(folder / "grpc" / "__init__.py")]
    names = ("test_transports", "test_hostile_callers", "test_connections")
    suite = [str(ROOT / "tests" / "unit" / "gateway" / f"{name}.py") for name in names]
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "CqTransport", *suite)
    ran = subprocess.run(pytest_, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:]
