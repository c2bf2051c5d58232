"""The table `[redis]`: where the server that holds the queues is, and what it must promise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from fallback import redis_url
from fallback.errors import ConfigError
from fallback.listening import check_peer
from fallback.tables import Table

if TYPE_CHECKING:
    from fallback.config import Config


class RedisSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[redis]`: how the server that holds the queues is reached, and what it must promise.

    What is lost of what was acknowledged, by `appendfsync` and `replicas_min`, when
      - the server's process is killed: nothing (always); up to about 2 s, while a sync runs (everysec)
      - the machine loses power: nothing (always, a disk that keeps its word); about 1 s, 2 s on a slow disk (everysec)
      - a replica takes over: what it had not received yet (replicas_min = 0), in a partition all that the old primary
        took until it noticed; nothing as long as one of the `replicas_min` that have it is the one that takes over
        (replicas hold it in memory first: their own appendfsync says when it is on their disks).
    """

    url: Annotated[
        str,
        Meta(
            description="redis://, rediss:// or unix:// address without a password; empty: the embedded server. "
            "With sentinels only the scheme and the database count"
        ),
    ] = ""
    cluster: Annotated[bool, Meta(description="the address is a node of a cluster, the others are found from it")] = (
        False
    )
    sentinels: Annotated[
        tuple[str, ...], Meta(description="host:port of each Sentinel, which say where the primary is; none: url does")
    ] = ()
    sentinel_service: Annotated[str, Meta(description="what the Sentinels call the primary; only with sentinels")] = ""
    connect_timeout_seconds: Annotated[
        float, Meta(gt=0, le=60, description="how long connecting may take, seconds")
    ] = 2.0
    command_timeout_seconds: Annotated[
        float, Meta(gt=0, le=60, description="how long one command may take, seconds")
    ] = 5.0
    connections_max: Annotated[int, Meta(ge=4, le=10_000, description="open connections of one process")] = 64
    fsync: Annotated[
        Literal["always", "everysec"],
        Meta(
            description="the server's appendfsync, at least. always: what was acknowledged is on the disk; "
            "everysec: about the last second of it, two on a slow disk, may be lost with the machine. "
            "no (up to half a minute) is refused"
        ),
    ] = "always"
    allow_unsafe: Annotated[
        bool,
        Meta(
            description="start also on a server that evicts, has no append-only file or syncs less than fsync says; "
            "what it forgets is lost"
        ),
    ] = False
    replicas_min: Annotated[
        int,
        Meta(
            ge=0,
            le=16,
            description="replicas that must have a change before it is acknowledged (WAIT); where they do not in time "
            "the caller gets UNAVAILABLE and repeats with the same request id. 0: a failover may lose what was "
            "acknowledged shortly before it",
        ),
    ] = 0
    replicas_timeout_seconds: Annotated[
        float,
        Meta(gt=0, le=30, description="how long to wait for them, seconds; less than command_timeout_seconds"),
    ] = 1.0

    def check(self, _config: Config) -> None:
        """Raise ConfigError where the address is none or holds a password, or what is not for it is beside it."""
        if redis_url.has_password(self.url):
            raise ConfigError("redis.url: expected no password here, got one; set $DEMUR_REDIS_URL instead")
        self.check_together()
        if self.url:
            self.check_url("redis.url", self.url)

    def check_here(self) -> None:
        """Raise ConfigError where the address in the environment, which wins, is none."""
        given = os.environ.get("DEMUR_REDIS_URL")
        if given:
            self.check_url("DEMUR_REDIS_URL", given)

    def check_together(self) -> None:
        """Raise ConfigError where two keys do not go together, or a Sentinel's address is none."""
        if self.replicas_min and self.replicas_timeout_seconds >= self.command_timeout_seconds:
            raise ConfigError(
                f"redis.replicas_timeout_seconds: expected less than command_timeout_seconds "
                f"({self.command_timeout_seconds:g}), got {self.replicas_timeout_seconds:g}"
            )
        if self.cluster and self.sentinels:
            raise ConfigError(
                "redis.cluster: expected false with redis.sentinels, got true: a cluster has no Sentinels"
            )
        if bool(self.sentinels) != bool(self.sentinel_service):
            raise ConfigError("redis.sentinel_service: expected together with redis.sentinels, got only one of them")
        for address in self.sentinels:
            check_peer("redis.sentinels", address)

    def check_url(self, name: str, url: str) -> None:
        """Raise ConfigError, which shows no password, unless `url`, called `name`, is an address for these settings."""
        problem = redis_url.problem(url, cluster=self.cluster, sentinels=bool(self.sentinels))
        if problem:
            raise ConfigError(f"{name}: {problem}")
