"""Judges whether a server may hold the queue: one that evicts, keeps no file or syncs too rarely loses what it took.

Facts come from INFO, which managed servers allow, and from CONFIG GET, which many do not; what could not be read is
said in a warning. The servers are judged when a process starts: what somebody changes later, or a replica that takes
over with other settings, is not seen before the next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from redis import exceptions

from fallback.connection import Connection
from fallback.errors import ConfigError, UnavailableError
from fallback.redis_settings import RedisSettings

VERSION_MIN: Final = 7
# From the one that promises least.
_FSYNCS: Final = ("no", "everysec", "always")
_SERVER: Final = "the queue's server"

log = structlog.get_logger(__name__)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What one server says of itself. `fsync` and `fsync_paused` are None where it does not tell."""

    version: str
    maxmemory: int
    policy: str
    append_only: bool
    fsync: str | None
    fsync_paused: bool | None
    cluster: bool
    primary: bool
    loading: bool
    replicas: int


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """`wrong` never works; `unsafe` may lose what was accepted; `doubts` are what could not be made sure of."""

    wrong: tuple[str, ...]
    unsafe: tuple[str, ...]
    doubts: tuple[str, ...]


def judge(facts: Facts, settings: RedisSettings) -> Judgement:
    """Return what speaks against a server, each a sentence with what was expected and what it has. Pure."""
    wrong, unsafe, doubts = [], [], []
    if int(facts.version.split(".", maxsplit=1)[0]) < VERSION_MIN:
        wrong.append(f"expected version {VERSION_MIN} or later, got {facts.version}")
    if facts.cluster and not settings.cluster:
        wrong.append("expected redis.cluster = true for a server in cluster mode, got false")
    if facts.maxmemory > 0 and facts.policy != "noeviction":
        unsafe.append(f"expected maxmemory-policy noeviction, got {facts.policy}: it would evict")
    if not facts.append_only:
        unsafe.append("expected appendonly yes, got no: it would lose what it accepted")
    elif facts.fsync is None:
        doubts.append(
            f"cannot read its appendfsync (CONFIG is not allowed): make sure that it is {settings.fsync}, "
            "or what it acknowledged may be lost"
        )
    elif facts.fsync not in _FSYNCS or _FSYNCS.index(facts.fsync) < _FSYNCS.index(settings.fsync):
        unsafe.append(
            f"expected appendfsync {settings.fsync}, got {facts.fsync}: what it acknowledged last would be lost with it"
            + ('; accept that with redis.fsync = "everysec"' if facts.fsync == "everysec" else "")
        )
    elif facts.fsync_paused:
        unsafe.append("expected no-appendfsync-on-rewrite no, got yes: it would not sync while it rewrites its file")
    if facts.replicas < settings.replicas_min:
        doubts.append(
            f"has {facts.replicas} replicas now, redis.replicas_min is {settings.replicas_min}: "
            "nothing is acknowledged until there are as many"
        )
    return Judgement(wrong=tuple(wrong), unsafe=tuple(unsafe), doubts=tuple(doubts))


async def check(connection: Connection) -> None:
    """Raise ConfigError for a server that does not fit; warn, each time, of what is allowed or could not be read.

    Raises UnavailableError where it is away.
    """
    settings = connection.settings
    for where in await connection.attempt(connection.client.primaries):
        facts = await _facts(connection, where)
        if not facts.primary:
            # One that was the primary a moment ago: there is, or will be, another.
            raise UnavailableError(f"{_SERVER}: is a replica now; the primary is awaited", retry_after_seconds=1.0)
        if facts.loading:
            # Until it has read its append-only file it says that it keeps none.
            raise UnavailableError(f"{_SERVER}: still reads what it keeps on its disk", retry_after_seconds=1.0)
        found = judge(facts, settings)
        for sentence in found.wrong:
            raise ConfigError(f"{_SERVER}: {sentence}")
        for sentence in found.unsafe:
            if not settings.allow_unsafe:
                raise ConfigError(f"{_SERVER}: {sentence}")
            log.error("UNSAFE server, allowed by redis.allow_unsafe", why=sentence)
        for sentence in found.doubts:
            log.warning("the queue's server may not be safe", why=sentence)


async def _facts(connection: Connection, where: Mapping[str, Any]) -> Facts:
    redis = connection.redis

    async def configured() -> dict[str, str]:
        try:
            return dict(await redis.config_get("appendfsync", "no-appendfsync-on-rewrite", **where))
        except (exceptions.NoPermissionError, exceptions.ResponseError):
            return {}

    info = await connection.attempt(lambda: redis.info(**where))
    told = await connection.attempt(configured)
    paused = told.get("no-appendfsync-on-rewrite")
    return Facts(
        version=str(info.get("valkey_version") or info.get("redis_version") or "0"),
        maxmemory=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        append_only=bool(int(info.get("aof_enabled", 0))),
        fsync=told.get("appendfsync"),
        fsync_paused=None if paused is None else paused == "yes",
        cluster=bool(int(info.get("cluster_enabled", 0))),
        primary=info.get("role", "master") == "master",
        loading=bool(int(info.get("loading", 0))),
        replicas=int(info.get("connected_slaves", 0)),
    )
