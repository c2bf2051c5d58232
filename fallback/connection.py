"""The way to the server: one client, bounded retries, and the scripts.

redis-py repeats commands by itself; here that is switched off, because whether a repeat is safe is ours to know. Every
script that changes something carries a request id under which it keeps its reply, so a repeat after a broken
connection returns that reply instead of doing it twice. Errors of redis-py stop here.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

import structlog
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fallback import embedded, keys
from fallback.config import Config, RedisSettings, redis_url
from fallback.errors import ConfigError, DemurError, FullError, UnavailableError

# Pauses between attempts; a restart of the server takes longer, and is the caller's to wait for.
RETRY_PAUSES_SECONDS: Final = (0.05, 0.15, 0.4)
RETRY_AFTER_SECONDS: Final = 1.0
BLOCK_SECONDS_MAX: Final = 1.0
# A server that is on its way up or down, or a connection that broke: another attempt may go well.
_PASSING: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    OSError,
)
# Arguments that are copied to send a command in one piece, at most.
PIECE_BYTES_MAX: Final = 65_536
_SHEBANG: Final = "#!lua"
_INDEX: Final = re.compile(r"\bK\.(\w+)")
_WORD: Final = re.compile(r"\w+")
_DEFINED: Final = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)

log = structlog.get_logger(__name__)
T = TypeVar("T")
Argument = str | bytes | int | float
# What a script returns: a list whose first item says how it went.
Reply = list[Any]


class Script:
    """One file of fallback/scripts: its first line, the keys' names, what it uses of what all scripts share, the rest.

    `indexes` are those of the queue's that it names, in the order in which it gets them. What it does not use, the
    server need not read at every call.
    """

    def __init__(self, name: str, *, indexes: Sequence[str] = keys.INDEXES, shared: str = "common") -> None:
        folder = resources.files("fallback") / "scripts"
        shebang, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
        if not shebang.startswith(_SHEBANG):
            raise ValueError(f"{name}.lua: expected {_SHEBANG} flags=... on the first line, got {shebang!r}")
        used = _used((folder / f"{shared}.lua").read_text(encoding="utf-8"), body)
        named = set(_INDEX.findall(f"{used}\n{body}"))
        self.name = name
        # One at least: from its keys a cluster knows which of its servers to ask.
        self.indexes = tuple(index for index in indexes if index in named) or tuple(indexes[:1])
        names = ", ".join(f"{index} = KEYS[{number}]" for number, index in enumerate(self.indexes, start=1))
        self.source = "\n".join([shebang, f"local K = {{ {names} }}", used, body])
        self.sha1 = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _used(shared: str, body: str) -> str:
    """Return those parts of the shared text, which empty lines part, that `body` uses, and what these use in turn."""
    first, *parts = shared.split("\n\n")
    kept, words = [], set(_WORD.findall(body))
    # What a part uses stands before it.
    for part in reversed(parts):
        defined = _DEFINED.search(part)
        if defined is None or defined[1] in words:
            kept.append(part)
            words |= set(_WORD.findall(part))
    return "\n\n".join([first, *reversed(kept)])


@cache
def script(name: str) -> Script:
    """Return one of the queue's scripts, read once."""
    return Script(name)


class _Packing:
    """A connection of redis-py that joins a command's parts once; its own does at each argument."""

    # redis-py's, which has no types.
    encoder: Any

    def pack_command(self, *args: Argument) -> list[bytes]:
        """Return the command as the server reads it, in pieces: large arguments are not copied."""
        # As redis-py has it: the first argument may be two words, "SCRIPT LOAD".
        words = args[0].split() if isinstance(args[0], (str, bytes)) else args[:1]
        pieces: list[bytes] = []
        parts = [b"*%d\r\n" % (len(words) + len(args) - 1)]
        for argument in (*words, *args[1:]):
            encoded = argument.encode() if type(argument) is str else self.encoder.encode(argument)
            size = len(encoded)
            if size > PIECE_BYTES_MAX:
                parts.append(b"$%d\r\n" % size)
                pieces += (b"".join(parts), encoded)
                parts = [b"\r\n"]
            else:
                parts.append(b"$%d\r\n%b\r\n" % (size, encoded))
        return [*pieces, b"".join(parts)]

    def pack_commands(self, commands: Iterable[tuple[Argument, ...]]) -> list[bytes]:
        """Return a pipeline's commands, as `pack_command` does."""
        return [piece for command in commands for piece in self.pack_command(*command)]


class Connection:
    """A client of one event loop; connects when first used. All methods raise DemurError only."""

    def __init__(self, config: Config) -> None:
        settings = config.table("redis", RedisSettings)
        self.url = redis_url(config) or embedded.url(embedded.folder(config.data_folder))
        self._timeout_seconds = settings.command_timeout_seconds
        self.block_seconds = min(BLOCK_SECONDS_MAX, settings.command_timeout_seconds / 2)
        try:
            pool = BlockingConnectionPool.from_url(
                self.url,
                max_connections=settings.connections_max,
                timeout=settings.command_timeout_seconds,
                socket_connect_timeout=settings.connect_timeout_seconds,
                # Ours, in `attempt`: redis-py's may swallow a cancellation before Python 3.12 (asyncio.wait_for).
                socket_timeout=None,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:
            raise ConfigError(
                f"DEMUR_REDIS_URL or redis.url: expected redis://, rediss:// or unix://: {error}"
            ) from error
        pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
        # redis-py annotates the replies of all protocols at once; ours is 2, and what we read we name.
        self.redis: Any = Redis(connection_pool=pool)

    async def close(self) -> None:
        """Give the connections back."""
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()

    async def attempt(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call()`, again after a passing failure; `call` must be safe to repeat.

        Raises UnavailableError when it does not go well within the bounds, FullError when the server has no memory.
        """
        started = time.monotonic()
        for pause in (*RETRY_PAUSES_SECONDS, None):
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await call()
            except exceptions.OutOfMemoryError as error:
                raise FullError("the queue's server has no memory left", retry_after_seconds=10.0) from error
            except _PASSING as error:
                if pause is None or time.monotonic() - started > self._timeout_seconds:
                    raise self._unavailable(error) from error
            except exceptions.RedisError as error:
                log.exception("the queue's server refused a command")
                raise self._unavailable(error) from error
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def run(self, what: Script, names: Sequence[str], *arguments: Argument) -> Reply:
        """Run a script; loads it where the server does not know it (yet, or after a restart)."""

        async def call() -> Reply:
            try:
                reply = await self.redis.evalsha(what.sha1, len(names), *names, *arguments)
            except exceptions.NoScriptError:
                reply = await self.redis.eval(what.source, len(names), *names, *arguments)
            return _texts(reply)

        return await self.attempt(call)

    async def run_all(
        self,
        before: Sequence[tuple[Argument, ...]],
        what: Script,
        calls: Sequence[tuple[Sequence[str], Sequence[Argument]]],
    ) -> list[Reply | DemurError]:
        """Send `before`, then a run of the script for each of `calls`, in one pipeline; return each run's verdict."""

        async def call() -> list[Reply | DemurError]:
            pipeline = self.redis.pipeline(transaction=False)
            for command in before:
                pipeline.execute_command(*command)
            for names, arguments in calls:
                pipeline.evalsha(what.sha1, len(names), *names, *arguments)
            replies = await pipeline.execute(raise_on_error=False)
            failed = next((reply for reply in replies[: len(before)] if isinstance(reply, Exception)), None)
            if failed is not None:
                raise failed
            return [
                await self._verdict(reply, what, sent)
                for reply, sent in zip(replies[len(before) :], calls, strict=True)
            ]

        return await self.attempt(call)

    async def newest(self, stream: str) -> str:
        """Return the id of the newest entry that a stream ever had, trimmed or not; "0-0" where it had none."""

        async def call() -> str:
            if not await self.redis.exists(stream):
                return "0-0"
            return str((await self.redis.xinfo_stream(stream))["last-generated-id"].decode())

        return await self.attempt(call)

    async def _verdict(
        self, reply: object, what: Script, sent: tuple[Sequence[str], Sequence[Argument]]
    ) -> Reply | DemurError:
        match reply:
            case exceptions.NoScriptError():
                return await self.run(what, sent[0], *sent[1])
            case exceptions.OutOfMemoryError():
                return FullError("the queue's server has no memory left", retry_after_seconds=10.0)
            case Exception():
                raise reply
            case list():
                return _texts(reply)
            case _:
                raise AssertionError(f"{what.name}.lua returned {reply!r}")

    def _unavailable(self, error: Exception) -> UnavailableError:
        log.warning("the queue's server is away", error=str(error))
        return UnavailableError(
            "the queue's server is away; nothing was lost, try again", retry_after_seconds=RETRY_AFTER_SECONDS
        )


def _texts(reply: Iterable[object]) -> Reply:
    """Turn the bytes of a script's reply into text, in nested lists too."""
    return [
        _texts(item) if isinstance(item, list) else item.decode() if isinstance(item, bytes) else item for item in reply
    ]
