"""`demur review`, and `demur queue ...` for looking after what waits for people."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from fallback.client import ReviewClient
    from fallback.config import Config

T = TypeVar("T")

TOKEN: Final = "DEMUR_TOKEN"  # noqa: S105  # the name of the environment variable, not a token
_WATCH_SECONDS: Final = 10.0

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="demur.toml; else $DEMUR_CONFIG, else ./demur.toml if it is there."),
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="FOLDER", help="The data folder; else $DEMUR_DATA, else data_folder.")
]
ReviewAddress = Annotated[
    str, typer.Option("--review", metavar="HOST:PORT", help="The review service; else the one `demur up` runs here.")
]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name, e.g. digits.")]
DeferralName = Annotated[str, typer.Argument(metavar="NAME", help="queues/<queue>/deferrals/<id>")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]

queue = typer.Typer(
    no_args_is_help=True,
    help="See and tend what waits for people: counts, items, outcomes as they come, callbacks that nobody took.",
)


class ItemState(StrEnum):
    """The states that may be asked for."""

    OPEN = "open"
    RESOLVED = "resolved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


def review(*, config: ConfigFile = None, data: Data = None) -> None:
    """Run the review side alone: ReviewService, the reviewers' page, the reaper, callbacks; as `demur up` runs it.

    SIGTERM drains: no new calls are taken, those under way end, and what was claimed is told by the next process.

    Example: DEMUR_REDIS_URL=redis://queue:6379 demur review --config demur.toml
    """
    from fallback import logs, serve

    logs.configure(serve.PROCESS)
    serve.run(load(config, data))


@queue.command(name="list", epilog="Example: demur queue list")
def list_queues(
    *, address: ReviewAddress = "", json: AsJson = False, config: ConfigFile = None, data: Data = None
) -> None:
    """Count what waits, what somebody holds and all that is open, queue by queue."""
    from fallback import screen

    async def work() -> None:
        async with _client(address, config, data) as client:
            screen.queues(await client.queues(), json=json)

    _run(work())


@queue.command(epilog="Example: demur queue items digits --state open")
def items(
    name: QueueName,
    *,
    state: Annotated[ItemState | None, typer.Option("--state", help="Only those in this state.")] = None,
    flagged: Annotated[bool, typer.Option("--flagged", help="Only those flagged, or skipped by many.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    address: ReviewAddress = "",
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """List the deferrals of one queue."""
    from fallback import screen
    from fallback.deferral import State

    async def work() -> None:
        found = []
        async with _client(address, config, data) as client:
            wanted = None if state is None else State(state.value)
            async for deferral in client.list(name, state=wanted, flagged=flagged, page_size=limit):
                found.append(deferral)
                if len(found) == limit:
                    break
        such = " ".join(word for word in ("flagged" * flagged, state.value if state else "", "deferral") if word)
        screen.deferrals(found, json=json, empty=f"queue {name} has no {such}; all queues: demur queue list")

    _run(work())


@queue.command(epilog="Example: demur queue show queues/digits/deferrals/0198c2")
def show(
    name: DeferralName,
    *,
    address: ReviewAddress = "",
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Show one deferral; the model's guess is left out while you may still be asked about it."""
    from fallback import screen

    async def work() -> None:
        async with _client(address, config, data) as client:
            screen.deferral(await client.get(name), json=json)

    _run(work())


@queue.command(epilog="Example: demur queue erase queues/digits/deferrals/0198c2")
def erase(name: DeferralName, *, address: ReviewAddress = "", config: ConfigFile = None, data: Data = None) -> None:
    """Erase a deferral's content for good: what people are shown, the model's inputs, unfinished work.

    Its state stays, and one that is open is still asked about. Digests, counts, answers, comments and attributes stay;
    the trainer erases its own copy of the inputs when it next looks.
    """

    async def work() -> None:
        async with _client(address, config, data) as client:
            erased = await client.erase(name)
        _say(f"the content of {erased.name} is erased")

    _run(work())


@queue.command(epilog="Example: demur queue watch digits --from-start --json | jq .outcome")
def watch(
    name: QueueName,
    *,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest outcome that is kept.")
    ] = False,
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Print outcomes as they come, until Ctrl-C. Reads the queue's server itself, like all commands below it."""
    from fallback import screen

    async def work() -> None:
        async with _Queue(config, data) as found:
            _whisper(f"outcomes of {name} as they come; Ctrl-C ends this")
            cursor = "0" if from_start else await found.last_cursor(name)
            while True:
                for event in await found.outcomes(name, cursor, wait_seconds=_WATCH_SECONDS):
                    cursor = event.cursor
                    screen.outcome(event.deferral, json=json)

    _run(work())


@queue.command(epilog="Example: demur queue cancel queues/digits/deferrals/0198c2")
def cancel(name: DeferralName, *, config: ConfigFile = None, data: Data = None) -> None:
    """Take a question back; its client is told that it was cancelled."""
    from uuid import uuid4

    async def work() -> None:
        async with _Queue(config, data) as found:
            cancelled = await found.cancel(name, request_id=uuid4().hex)
        _say(f"{cancelled.name} is cancelled")

    _run(work())


@queue.command(epilog="Example: demur queue dead digits")
def dead(name: QueueName, *, json: AsJson = False, config: ConfigFile = None, data: Data = None) -> None:
    """List the callbacks that were given up, the oldest first, with the reason of the last failure."""
    from fallback import screen

    async def work() -> None:
        async with _Queue(config, data) as found:
            screen.dead_letters(await found.dead_letters(name), json=json)

    _run(work())


@queue.command(epilog="Example: demur queue redeliver digits --all")
def redeliver(
    name: QueueName,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids as `demur queue dead` shows them.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Have callbacks that were given up told again, from now on as if for the first time."""
    from fallback.errors import InvalidError, NotFoundError

    if bool(ids) == every:
        raise InvalidError("redeliver: expected ids, or --all, got " + ("both" if ids else "neither"))

    async def work() -> None:
        count = 0
        async with _Queue(config, data) as found:
            if not every:
                count = await found.redeliver(name, ids or [])
            while every and (letters := await found.dead_letters(name)):
                taken = await found.redeliver(name, [letter.id for letter in letters])
                count += taken
                if taken == 0:
                    break
        if ids and not count:
            raise NotFoundError(f"{', '.join(ids)}: not given up; those that were: demur queue dead {name}")
        _say(f"{count} of {name} will be told again")

    _run(work())


def load(config: Path | None, data: Path | None) -> Config:
    """Read the configuration as the options say."""
    from fallback.config import load as read

    if data is not None:
        os.environ["DEMUR_DATA"] = str(data)
    return read(config)


class _Queue:
    """The queue's server itself, for the time of one command."""

    def __init__(self, config: Path | None, data: Path | None) -> None:
        from fallback.queue import Queue

        self._config = load(config, data)
        self._queue = Queue.connect(self._config)

    async def __aenter__(self) -> Any:
        return self._queue

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        from fallback import embedded
        from fallback.config import redis_url, without_password
        from fallback.errors import UnavailableError

        await self._queue.close()
        if isinstance(error, UnavailableError):
            named = redis_url(self._config)
            where = without_password(named) if named else embedded.url(embedded.folder(self._config.data_folder))
            how = "is DEMUR_REDIS_URL right?" if named else "start it with `demur up`, or set DEMUR_REDIS_URL"
            raise UnavailableError(f"no Redis answers at {where}: {how}") from error


def _client(address: str, config: Path | None, data: Path | None) -> ReviewClient:
    from fallback.client import ReviewClient

    token = os.environ.get(TOKEN, "")
    return ReviewClient(address or _running(load(config, data)), identity=getpass.getuser(), token=token)


def _running(config: Config) -> str:
    """Return where the review service of the stack on this data folder answers."""
    import msgspec

    from fallback.errors import UnavailableError

    try:
        stack = msgspec.json.decode((config.data_folder / "stack.json").read_bytes(), type=dict[str, Any])
        return str(stack["review"])
    except (OSError, msgspec.DecodeError, KeyError) as error:
        where = config.data_folder.resolve()
        raise UnavailableError(
            f"no stack runs on {where}: start one with `demur up`, or give --review HOST:PORT"
        ) from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(130)


def _say(text: str) -> None:
    from rich.console import Console

    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def _whisper(text: str) -> None:
    """Say something to a person who watches; never where a program reads."""
    if sys.stderr.isatty():
        typer.echo(text, err=True)
