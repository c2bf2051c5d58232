"""Which client the settings ask for, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from fallback import servers
from fallback.config import RedisSettings
from fallback.errors import ConfigError

WATCHED: dict[str, Any] = {"sentinels": ("one:26379", "[::1]:26380"), "sentinel_service": "main"}


async def test_each_kind_has_its_client() -> None:
    """With our time-outs and without redis-py's repeats; TLS where the address says so."""
    single = servers.client(RedisSettings(), "rediss://user:pw@host:6380/2?ssl_cert_reqs=none").redis
    assert isinstance(single, Redis)
    assert issubclass(single.connection_pool.connection_class, SSLConnection)
    watched = servers.client(RedisSettings(**WATCHED), "rediss://user:pw@/2").redis
    pool = watched.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["db"]) == ("user", 2)
    nodes = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(node["host"], node["port"], node.get("password")) for node in nodes] == [
        ("one", 26379, None),
        ("::1", 26380, None),
    ]
    for found in (single.connection_pool, pool):
        assert found.connection_kwargs["socket_timeout"] is None
        assert found.connection_kwargs["socket_connect_timeout"] == 2.0
        assert found.connection_kwargs["retry"].get_retries() == 0
    cluster = servers.client(RedisSettings(cluster=True), "redis://host:7000").redis
    assert isinstance(cluster, RedisCluster)
    assert cluster.retry is not None
    assert cluster.retry.get_retries() == 0


def test_the_sentinels_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the server's."""
    monkeypatch.setenv(servers.SENTINEL_PASSWORD, "theirs")
    pool = servers.client(RedisSettings(**WATCHED), "redis://:ours@").redis.connection_pool
    assert pool.connection_kwargs["password"] == "ours"
    (one, _) = pool.sentinel_manager.sentinels
    assert one.connection_pool.connection_kwargs["password"] == "theirs"


@pytest.mark.parametrize(
    ("settings", "url", "told"),
    [
        ({}, "http://host", "expected redis://, rediss:// or unix://"),
        ({"cluster": True}, "unix:///tmp/x.sock", "expected redis:// or rediss:// with redis.cluster"),
        ({"cluster": True}, "redis://host/3", "expected redis://, rediss:// or unix://"),
        ({"cluster": True, **WATCHED}, "redis://", "redis.cluster: expected false with redis.sentinels"),
        ({"sentinels": ("a:1",)}, "redis://", "redis.sentinel_service: expected together with redis.sentinels"),
        ({"sentinel_service": "main"}, "redis://", "redis.sentinel_service: expected together with redis.sentinels"),
        (WATCHED, "redis://host", "without a host beside redis.sentinels, got 'redis://host'"),
        (
            {**WATCHED, "sentinels": ("a",)},
            "redis://",
            "redis.sentinels: expected host:port with a port from 1 ",
        ),
        (
            {"replicas_min": 1, "replicas_timeout_seconds": 5.0},
            "redis://host",
            r"redis.replicas_timeout_seconds: expected less than command_timeout_seconds \(5\), got 5",
        ),
    ],
)
async def test_what_does_not_go_together_is_refused(settings: dict[str, Any], url: str, told: str) -> None:
    """Naming the setting, what was expected and what it is."""
    with pytest.raises(ConfigError, match=told):
        servers.client(RedisSettings(**settings), url)
