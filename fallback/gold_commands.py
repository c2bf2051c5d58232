"""`demur queue gold ...`: items whose answer is known, and how often reviewers are wrong about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fallback.command_line import (
    AsJson,
    ConfigFile,
    Data,
    DeferralName,
    QueueName,
    ReviewAddress,
    connect,
    run,
    say,
)

GoldName = Annotated[str, typer.Argument(metavar="NAME", help="`queues/<queue>/gold/<id>`")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="What people will be shown, at most 1 MiB each.")]

gold = typer.Typer(
    no_args_is_help=True,
    help="Items whose answer is known, shown to reviewers among the others, to see how often they are wrong.",
)


@gold.command(epilog="Example: demur queue gold add digits seven.png seven-too.png --answer 7")
def add(
    name: QueueName,
    files: Files,
    *,
    answer: Annotated[str, typer.Option("--answer", metavar="LABEL", help="The label that is right for all of them.")],
    address: ReviewAddress = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Add files of which you know the answer. People are asked what the queue's newest item asks."""
    from mimetypes import guess_type

    from fallback.answer import Label, Subject
    from fallback.errors import InvalidError

    async def work() -> None:
        async with connect(address, config, data) as client:
            for path in files:
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise InvalidError(f"{path}: cannot be read: {error.strerror}") from error
                media_type = guess_type(path.name)[0] or "application/octet-stream"
                subject = Subject(content=content, media_type=media_type, attributes={})
                say(f"{path}: {await client.add_gold(name, subject=subject, answer=Label(answer))}")

    run(work())


@gold.command(epilog="Example: demur queue gold keep queues/digits/deferrals/0198c2")
def keep(
    name: DeferralName,
    *,
    answer: Annotated[
        str, typer.Option("--answer", metavar="LABEL", help="What is right; if left out, what people answered.")
    ] = "",
    address: ReviewAddress = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Make a gold item of a deferral whose answer is sure by now: nothing tells it from the others of its queue."""
    from fallback.answer import Label
    from fallback.wire import name_from_wire

    async def work() -> None:
        owner, _ = name_from_wire("NAME", name)
        async with connect(address, config, data) as client:
            say(await client.add_gold(owner, deferral=name, answer=Label(answer) if answer else None))

    run(work())


@gold.command(name="list", epilog="Example: demur queue gold list digits")
def list_gold(
    name: QueueName,
    *,
    address: ReviewAddress = "",
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """List the gold items of a queue, and how reviewers did with them in the last 90 days."""
    from fallback import screen

    async def work() -> None:
        async with connect(address, config, data) as client:
            screen.gold(name, await client.gold(name), json=json)

    run(work())


@gold.command(epilog="Example: demur queue gold remove queues/digits/gold/abcd")
def remove(name: GoldName, *, address: ReviewAddress = "", config: ConfigFile = None, data: Data = None) -> None:
    """Take a gold item away, and what it found out with it: its answer was not right, or everybody knows it."""

    async def work() -> None:
        async with connect(address, config, data) as client:
            await client.remove_gold(name)
        say(f"{name} is removed")

    run(work())
