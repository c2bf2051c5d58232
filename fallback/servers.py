"""The client of the server that holds the queues: one server, the primary that Sentinels name, or a cluster.

All three are redis-py's own. What differs between them is here: how many servers there are to ask, where a key is,
and how several commands go down one connection so that WAIT speaks of exactly them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, Protocol

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from fallback import keys
from fallback.blocking import Blocking
from fallback.errors import ConfigError
from fallback.listening import check_peer
from fallback.packing import Head, packing, script_head
from fallback.redis_settings import RedisSettings

Command = Sequence[str | bytes | int | float]
Word = str | int | Head
SENTINEL_PASSWORD: Final = "DEMUR_SENTINEL_PASSWORD"  # noqa: S105 - the name of a variable
# Makes sure that WAIT has something to wait for: after a repeat that only read what an earlier call wrote, on another
# connection, it would return at once. Allowed out of memory, as the scripts are that it follows.
_MARK: Final = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '', 'PX', 60000)"
_NO_BOUND: Final = nullcontext()
# Around what is done in one step, where the client `transacts`.
MULTI: Final = ("MULTI",)
EXEC: Final = ("EXEC",)
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})


class Client(Protocol):
    """How the queue reaches its server, or servers. `redis` is redis-py's client.

    `transacts`: whether `send` and `waited` take MULTI and EXEC around some.
    """

    redis: Any
    transacts: bool

    async def close(self) -> None:
        """Give the connections back."""

    async def refresh(self) -> None:
        """Look again where the servers are, after a call that failed."""

    async def primaries(self) -> list[dict[str, Any]]:
        """Return, for each server that holds keys, what makes a command go to it."""

    async def primary_of(self, key: str) -> dict[str, Any]:
        """Return what makes a command without keys go to the server that holds `key`."""

    def room(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which one more call may be under way."""

    def head(self, sha1: str, names: Sequence[str]) -> Sequence[Word]:
        """Return what the run of a script begins with, after EVALSHA."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` at once, and return a reply or the server's error for each."""

    async def waited(self, commands: Sequence[Command], *, replicas: int, seconds: float) -> tuple[list[Any], int]:
        """Send `commands` and wait until `replicas` have them; return the replies and how many replicas do."""


def client(settings: RedisSettings, url: str, *, blocks: bool = False) -> Client:
    """Return the client of what the settings name; connects when first used. Raises ConfigError.

    `blocks`: `send` to the one server at an address waits in the thread (see `fallback.blocking`).
    """
    settings.check_together()
    settings.check_url("DEMUR_REDIS_URL or redis.url", url)
    shared = {
        "max_connections": settings.connections_max,
        "socket_connect_timeout": settings.connect_timeout_seconds,
        # Ours, in `Connection.attempt`: redis-py's may swallow a cancellation before Python 3.12 (asyncio.wait_for).
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        if settings.sentinels:
            return _Single(*_watched(settings, url, shared))
        if settings.cluster:
            return _Cluster(_nodes(url, shared), settings.connections_max)
        pool = BlockingConnectionPool.from_url(url, timeout=settings.command_timeout_seconds, **shared)
    except (ValueError, exceptions.RedisClusterException) as error:
        raise ConfigError(f"DEMUR_REDIS_URL or redis.url: expected redis://, rediss:// or unix://: {error}") from error
    pool.connection_class = packing(pool.connection_class)
    waiting = None
    if blocks:
        connect_seconds, command_seconds = settings.connect_timeout_seconds, settings.command_timeout_seconds
        waiting = Blocking(url, connect_seconds=connect_seconds, command_seconds=command_seconds)
    return _Single(Redis(connection_pool=pool), blocking=waiting)


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Who finds all connections in use waits for one, as with one server."""


def _watched(settings: RedisSettings, url: str, shared: dict[str, Any]) -> tuple[Redis, Sentinel]:
    given = dict(parse_url(url))
    secure = given.pop("connection_class", None) is SSLConnection
    tls = {key: value for key, value in given.items() if key.startswith("ssl_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py annotates all but this
        [check_peer("redis.sentinels", text) for text in settings.sentinels],
        sentinel_kwargs={
            "socket_connect_timeout": settings.connect_timeout_seconds,
            # One that hangs is passed over.
            "socket_timeout": settings.connect_timeout_seconds,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "password": os.environ.get(SENTINEL_PASSWORD) or None,
            **({"ssl": True, **tls} if secure else {}),
        },
    )
    redis = sentinel.master_for(
        settings.sentinel_service,
        connection_pool_class=_SentinelPool,
        connection_class=packing(SentinelManagedSSLConnection if secure else SentinelManagedConnection),
        timeout=settings.command_timeout_seconds,
        **{**given, **shared},
    )
    return redis, sentinel


def _nodes(url: str, shared: dict[str, Any]) -> RedisCluster:
    # A pipeline may need a connection to each node; `room` bounds how many calls are under way.
    return RedisCluster.from_url(url, **{**shared, "max_connections": 2**31})


class _Single:
    """One server: the one at the address, or the one that Sentinels say is the primary now."""

    transacts = True

    def __init__(self, redis: Redis, sentinel: Sentinel | None = None, *, blocking: Blocking | None = None) -> None:
        self.redis: Any = redis
        self._sentinel = sentinel
        self._blocking = blocking

    async def close(self) -> None:
        if self._blocking is not None:
            self._blocking.close()
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    async def refresh(self) -> None:
        """Do nothing: a new connection asks the Sentinels, and the pool bounds the rest."""

    async def primaries(self) -> list[dict[str, Any]]:
        return [{}]

    async def primary_of(self, _key: str) -> dict[str, Any]:
        return {}

    def room(self) -> AbstractAsyncContextManager[None]:
        return _NO_BOUND

    def head(self, sha1: str, names: Sequence[str]) -> Sequence[Word]:
        return (script_head(sha1, tuple(names)),)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send them on a connection of the pool's: a pipeline does more for each, which these need not have."""
        if self._blocking is not None:
            return self._blocking.send(commands)
        pool = self.redis.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _reply(connection) for _ in commands]
        finally:
            # One that was left in the middle has closed itself.
            await asyncio.shield(pool.release(connection))

    async def waited(self, commands: Sequence[Command], *, replicas: int, seconds: float) -> tuple[list[Any], int]:
        return _replies(await self.send((*commands, *_wait(commands, replicas, seconds))))


class _Cluster:
    """The primaries of a cluster; a queue's keys are all on one of them."""

    # Its pipeline sends each command to where its keys are.
    transacts = False

    def __init__(self, redis: RedisCluster, calls_max: int) -> None:
        self.redis: Any = redis
        self._room = asyncio.Semaphore(calls_max)

    async def close(self) -> None:
        await self.redis.aclose()

    async def refresh(self) -> None:
        """Ask the nodes who has which slots: redis-py's pipelines do not when a node is gone."""
        if not self.redis._initialize:  # noqa: SLF001 - the first call does all of it
            await self.redis.nodes_manager.initialize()

    async def primaries(self) -> list[dict[str, Any]]:
        await self.redis.initialize()
        return [{"target_nodes": node} for node in self.redis.get_primaries()]

    async def primary_of(self, key: str) -> dict[str, Any]:
        await self.redis.initialize()
        return {"target_nodes": self.redis.get_node_from_key(key)}

    def room(self) -> AbstractAsyncContextManager[None]:
        return self._room

    def head(self, sha1: str, names: Sequence[str]) -> Sequence[Word]:
        # From the keys its client knows the node.
        return sha1, len(names), *names

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def waited(self, commands: Sequence[Command], *, replicas: int, seconds: float) -> tuple[list[Any], int]:
        await self.redis.initialize()
        groups: dict[Any, list[int]] = {}
        for number, command in enumerate(commands):
            groups.setdefault(self.redis.get_node_from_key(_key(command)), []).append(number)
        found: dict[int, Any] = {}
        counts = []
        for node, numbers in groups.items():
            own = [commands[number] for number in numbers]
            sent = [PipelineCommand(n, *each) for n, each in enumerate((*own, *_wait(own, replicas, seconds)))]
            await node.execute_pipeline(sent)
            replies, count = _replies([each.result for each in sent])
            if any(isinstance(reply, exceptions.AskError) for reply in replies):
                await self.redis.nodes_manager.initialize()
                raise exceptions.TryAgainError("the keys are on another node now")
            found |= dict(zip(numbers, replies, strict=True))
            counts.append(count)
        return [found[number] for number in range(len(commands))], min(counts)


def _wait(commands: Sequence[Command], replicas: int, seconds: float) -> list[Command]:
    """Return what follows `commands` on their connection: a mark on the same server, and the wait for all of it."""
    first = commands[1] if commands[0] == MULTI else commands[0]
    return [("EVAL", _MARK, 1, keys.mark(_key(first))), ("WAIT", replicas, max(1, int(seconds * 1000)))]


async def _reply(connection: Any) -> object:
    """Return the next reply, or the error that the server has instead."""
    try:
        return await connection.read_response()
    except exceptions.ResponseError as error:
        return error


def _replies(found: list[Any]) -> tuple[list[Any], int]:
    *replies, mark, count = found
    for reply in (count, mark):
        # A mark that has moved to another server has so with its commands, which the caller sees.
        if isinstance(reply, Exception) and not isinstance(reply, exceptions.AskError):
            raise reply
    return replies, int(count)


def _key(command: Command) -> str:
    """Return the first key of a command that has one."""
    return str(command[3] if command[0] in _SCRIPTS else command[1])
