"""The way to the server: one client (see `fallback.servers`), bounded retries, and the scripts.

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
from typing import Any, Final, NamedTuple, TypeVar

import structlog
from redis import exceptions

from fallback import embedded, keys, servers
from fallback.config import Config, RedisSettings, redis_url
from fallback.errors import AwayError, DemurError, FullError, UnavailableError

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
    exceptions.RedisClusterException,
    OSError,
)
# The same, where redis-py has no class for it: a primary that became a replica, has too few, or cannot write its file.
_PASSING_REPLIES: Final = ("UNBLOCKED", "NOREPLICAS", "MISCONF")
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
        self.writes = "no-writes" not in shebang
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


def attempt_seconds_max(settings: RedisSettings) -> float:
    """Return how long `Connection.attempt` goes on at most: one last time may begin when the first's is over."""
    return 2 * settings.command_timeout_seconds + max(RETRY_PAUSES_SECONDS)


def passing(error: Exception) -> bool:
    """Say whether the server is only away for a moment, or becomes another; else it refused this one command."""
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_REPLIES)


def apart(replies: list[Any]) -> list[Any]:
    """Return the replies of a pipeline, some of which may be errors; raises where the server is away."""
    for reply in replies:
        if isinstance(reply, Exception) and passing(reply):
            raise reply
    return replies


@cache
def script(name: str) -> Script:
    """Return one of the queue's scripts, read once."""
    return Script(name)


class Run(NamedTuple):
    """One of many runs of a script: the keys and arguments it gets, and the commands that go before it.

    `together`: all of it in one step of the server, where it can, which then syncs its file once.
    """

    names: Sequence[str]
    arguments: Sequence[Argument]
    before: Sequence[tuple[Argument, ...]] = ()
    together: bool = False


class Connection:
    """A client of one event loop; connects when first used. All methods raise DemurError only.

    `blocks`: `run_all` waits in the thread where it can, for who has nothing else to do.
    """

    def __init__(self, config: Config, *, blocks: bool = False) -> None:
        self.settings = settings = config.table("redis", RedisSettings)
        self.url = redis_url(config) or embedded.url(embedded.folder(config.data_folder))
        self._timeout_seconds = settings.command_timeout_seconds
        self.block_seconds = min(BLOCK_SECONDS_MAX, settings.command_timeout_seconds / 2)
        self.client = servers.client(settings, self.url, blocks=blocks)
        # redis-py annotates the replies of all protocols at once; ours is 2, and what we read we name.
        self.redis: Any = self.client.redis

    async def close(self) -> None:
        """Give the connections back."""
        await self.client.close()

    async def attempt(self, call: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
        """Await `call()`, again after a passing failure unless `once`; `call` must be safe to repeat.

        Raises UnavailableError when it does not go well within the bounds, FullError when the server has no memory.
        """
        started = time.monotonic()
        for number, pause in enumerate((None,) if once else (*RETRY_PAUSES_SECONDS, None)):
            try:
                async with asyncio.timeout(self._timeout_seconds), self.client.room():
                    if number:
                        await self.client.refresh()
                    return await call()
            except exceptions.OutOfMemoryError as error:
                raise FullError("the queue's server has no memory left", retry_after_seconds=10.0) from error
            except (*_PASSING, exceptions.RedisError) as error:
                if not passing(error):
                    log.exception("the queue's server refused a command")
                    raise self._unavailable(error, UnavailableError) from error
                if pause is None or time.monotonic() - started > self._timeout_seconds:
                    raise self._unavailable(error) from error
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def run(self, what: Script, names: Sequence[str], *arguments: Argument, raw: bool = False) -> Reply:
        """Run a script; loads it where the server does not know it (yet, or after a restart).

        Its reply's bytes are read as text, unless it is to be left `raw`.
        """
        reply = await self.attempt(lambda: self._run(what, names, arguments))
        return reply if raw else _texts(reply)

    async def run_all(self, what: Script, runs: Sequence[Run]) -> list[Reply | DemurError]:
        """Send `runs` of a script in one pipeline; return the verdict of each.

        One that the server refuses, as it does where a key is of the wrong kind, keeps the others from nothing.
        """
        return await self.attempt(lambda: self._run_all(what, runs))

    async def _run_all(self, what: Script, runs: Sequence[Run]) -> list[Reply | DemurError]:
        parts = [[*run.before, ("EVALSHA", what.sha1, len(run.names), *run.names, *run.arguments)] for run in runs]
        together = [run.together and self.client.transacts for run in runs]
        sent = [
            [servers.MULTI, *part, servers.EXEC] if one else part for part, one in zip(parts, together, strict=True)
        ]
        commands = [command for part in sent for command in part]
        found = await (self._waited(what, commands) if self.settings.replicas_min else self.client.send(commands))
        replies = iter(found)
        verdicts: list[Reply | DemurError] = []
        for run, part, one in zip(runs, sent, together, strict=True):
            own = [next(replies) for _ in part]
            *before, last = _apart(own) if one else own
            failed = next((reply for reply in before if isinstance(reply, Exception)), None)
            verdicts.append(await self._verdict(failed or last, what, run))
        return verdicts

    async def newest(self, stream: str) -> str:
        """Return the id of the newest entry that a stream ever had, trimmed or not; "0-0" where it had none."""

        async def call() -> str:
            if not await self.redis.exists(stream):
                return "0-0"
            return str((await self.redis.xinfo_stream(stream))["last-generated-id"].decode())

        return await self.attempt(call)

    async def time(self, key: str, *, once: bool = False) -> tuple[int, int]:
        """Return the time of the server that holds `key`: Unix seconds, microseconds."""

        async def call() -> tuple[int, int]:
            seconds, microseconds = await self.redis.time(**await self.client.primary_of(key))
            return int(seconds), int(microseconds)

        return await self.attempt(call, once=once)

    async def _run(self, what: Script, names: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        if self.settings.replicas_min and what.writes:
            (reply,) = await self._waited(what, [("EVALSHA", what.sha1, len(names), *names, *arguments)])
            if isinstance(reply, Exception):
                raise reply
            return list(reply)
        try:
            reply = await self.redis.execute_command("EVALSHA", *self.client.head(what.sha1, names), *arguments)
        except exceptions.NoScriptError:
            reply = await self.redis.eval(what.source, len(names), *names, *arguments)
        return list(reply)

    async def _waited(self, what: Script, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Send commands, and return their replies once enough replicas have them; raises UnavailableError.

        Those that run the script are of the form EVALSHA sha1 ...; all may be sent twice.
        """
        wanted, seconds = self.settings.replicas_min, self.settings.replicas_timeout_seconds
        replies, got = await self.client.waited(commands, replicas=wanted, seconds=seconds)
        if any(isinstance(reply, exceptions.NoScriptError) for reply in _flat(replies)):
            whole = [
                ("EVAL", what.source, *command[2:]) if command[0] == "EVALSHA" else command for command in commands
            ]
            replies, got = await self.client.waited(whole, replicas=wanted, seconds=seconds)
        if got < wanted:
            log.warning("too few replicas have a change in time", wanted=wanted, got=got)
            raise UnavailableError(
                f"only {got} of {wanted} replicas have it in time; it may be done, repeat it with the same request id",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        return replies

    async def _verdict(self, reply: object, what: Script, run: Run) -> Reply | DemurError:
        match reply:
            case exceptions.NoScriptError():
                try:
                    return _texts(await self._run(what, run.names, run.arguments))
                except exceptions.ResponseError as error:
                    return await self._verdict(error, what, run)
            case exceptions.OutOfMemoryError():
                return FullError("the queue's server has no memory left", retry_after_seconds=10.0)
            case exceptions.ResponseError() if not passing(reply):
                log.error("the queue's server refused a script", script=what.name, error=str(reply))
                return UnavailableError(
                    "the queue's server refused a command; try again", retry_after_seconds=RETRY_AFTER_SECONDS
                )
            case Exception():
                raise reply
            case list():
                return _texts(reply)
            case _:
                raise AssertionError(f"{what.name}.lua returned {reply!r}")

    def _unavailable(self, error: Exception, kind: type[UnavailableError] = AwayError) -> UnavailableError:
        log.warning("the queue's server is away", error=str(error))
        return kind("the queue's server is away; nothing was lost, try again", retry_after_seconds=RETRY_AFTER_SECONDS)


def _texts(reply: Iterable[object]) -> Reply:
    """Turn the bytes of a script's reply into text, in nested lists too."""
    return [
        _texts(item) if isinstance(item, list) else item.decode() if isinstance(item, bytes) else item for item in reply
    ]


def _apart(replies: Sequence[object]) -> Sequence[object]:
    """Return a reply for each of the commands that went together, of which all, or none, were done."""
    begun, *queued, done = replies
    if isinstance(begun, Exception):
        # It was not begun, so each was done by itself, or refused.
        return queued
    if isinstance(done, list):
        return done
    # One that is refused at once has the others undone; else it is the step itself.
    why = next((reply for reply in queued if isinstance(reply, Exception)), done)
    return [why for _ in queued]


def _flat(replies: Iterable[object]) -> Iterable[object]:
    for reply in replies:
        yield from reply if isinstance(reply, list) else (reply,)
