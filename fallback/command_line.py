"""What the commands share: their options, how they reach the service or the server, how they end."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fallback.client import ReviewClient
    from fallback.config import Config

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
DeferralName = Annotated[str, typer.Argument(metavar="NAME", help="`queues/<queue>/deferrals/<id>`")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


def load(config: Path | None, data: Path | None) -> Config:
    """Read the configuration as the options say."""
    from fallback.config import load as read

    if data is not None:
        os.environ["DEMUR_DATA"] = str(data)
    return read(config)


class OpenQueue:
    """The queue's server itself, for the time of one command."""

    def __init__(self, config: Path | None, data: Path | None) -> None:
        from fallback.queue import Queue

        self._config = load(config, data)
        self._queue = Queue.connect(self._config)

    async def __aenter__(self) -> Any:
        return self._queue

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        from fallback import embedded
        from fallback.config import redis_url
        from fallback.errors import UnavailableError
        from fallback.redis_url import without_password

        await self._queue.close()
        if isinstance(error, UnavailableError):
            named = redis_url(self._config)
            where = without_password(named) if named else embedded.url(embedded.folder(self._config.data_folder))
            how = "is DEMUR_REDIS_URL right?" if named else "start it with `demur up`, or set DEMUR_REDIS_URL"
            raise UnavailableError(f"no Redis answers at {where}: {how}") from error


def connect(address: str, config: Path | None, data: Path | None) -> ReviewClient:
    """Return a client of the review service, not yet connected."""
    from fallback import channel
    from fallback.client import ReviewClient

    return ReviewClient(address or _running(load(config, data)), **channel.shown(getpass.getuser()))


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


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run one command to its end; Ctrl-C ends it without a trace."""
    from fallback.ending import until_cancelled

    try:
        asyncio.run(until_cancelled(work))
    except KeyboardInterrupt:
        sys.exit(130)


def agree(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone; ends the command where the answer is no.

    Raises InvalidError where nobody can be asked and `yes` was not said.
    """
    from fallback.errors import InvalidError

    if yes:
        return
    if not at_terminal():
        raise InvalidError("--yes: expected it, since this cannot be undone and nobody is at a terminal to be asked")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def at_terminal() -> bool:
    """Return whether somebody is there to be asked."""
    return sys.stdin.isatty()


def say(text: str) -> None:
    """Tell a person how it went."""
    from rich.console import Console

    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def whisper(text: str) -> None:
    """Say something to a person who watches; never where a program reads."""
    if sys.stderr.isatty():
        typer.echo(text, err=True)
