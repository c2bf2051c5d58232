"""`demur queue callbacks ...`: what is still to be told to clients or was given up, and how it is signed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fallback.command_line import AsJson, ConfigFile, Data, OpenQueue, QueueName, ReviewAddress, connect, load, run, say

CallbackName = Annotated[str, typer.Argument(metavar="NAME", help="`queues/<queue>/callbacks/<id>`")]

callbacks = typer.Typer(
    no_args_is_help=True, help="See callbacks that wait or were given up, tell them again, change what signs them."
)


class Wanted(StrEnum):
    """The states that may be asked for."""

    PENDING = "pending"
    DEAD = "dead"


@callbacks.command(name="list", epilog="Example: demur queue callbacks list digits --state pending")
def list_callbacks(
    name: QueueName,
    *,
    state: Annotated[Wanted, typer.Option("--state", help="Those that wait, or those given up.")] = Wanted.DEAD,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")] = 50,
    address: ReviewAddress = "",
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """List callbacks, those due or given up first before others, with the reason of the last failure."""
    from fallback import screen
    from fallback.telling import PAGE_MAX, CallbackState

    async def work() -> None:
        found = []
        async with connect(address, config, data) as service:
            wanted = CallbackState(state.value)
            async for entry in service.callbacks(name, state=wanted, page_size=min(limit, PAGE_MAX)):
                found.append(entry)
                if len(found) == limit:
                    break
        screen.callbacks(found, json=json, empty=f"queue {name} has no {state.value} callback")

    run(work())


@callbacks.command(epilog="Example: demur queue callbacks show queues/digits/callbacks/0198c2")
def show(
    name: CallbackName,
    *,
    address: ReviewAddress = "",
    json: AsJson = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Show one callback, told ones too while they are kept."""
    from fallback import screen

    async def work() -> None:
        async with connect(address, config, data) as service:
            screen.callback(await service.callback(name), json=json)

    run(work())


@callbacks.command(epilog="Example: demur queue callbacks redeliver digits --all")
def redeliver(
    name: QueueName,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="As `demur queue callbacks list` shows them.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
    address: ReviewAddress = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Have callbacks that were given up told again as if for the first time, also to targets that answered 410."""
    from fallback.errors import InvalidError, NotFoundError

    if bool(names) == every:
        raise InvalidError("redeliver: expected names, or --all, got " + ("both" if names else "neither"))

    async def work() -> None:
        async with connect(address, config, data) as service:
            count = await service.redeliver(name, names or [], every=every)
        if names and not count:
            raise NotFoundError(f"none of these was given up; those that were: demur queue callbacks list {name}")
        say(f"{count} of {name} will be told again")

    run(work())


@callbacks.command(epilog="Example: demur queue callbacks enable digits https://shop.example/hook")
def enable(
    name: QueueName,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The URL or host:port, as clients gave it.")],
    *,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Have a target called again that answered 410 Gone. Speaks with the queue's server itself."""
    from fallback.errors import NotFoundError

    async def work() -> None:
        async with OpenQueue(config, data) as found:
            if not await found.enable_target(name, target):
                raise NotFoundError(f"{target}: nothing of queue {name} stopped calling it")
        say(f"{target} is called again; what was given up meanwhile: demur queue callbacks redeliver {name} --all")

    run(work())


@callbacks.command(name="rotate-secret", epilog="Example: demur queue callbacks rotate-secret")
def rotate_secret(
    *,
    finish: Annotated[bool, typer.Option("--finish", help="Forget all secrets but the newest.")] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Make a new secret that signs webhooks beside the old one, until --finish; `demur review` reads it as it starts.

    In order: rotate, start `demur review` anew, give receivers the new secret, finish, start it anew.
    """
    from fallback.secret import rotate_webhook_secret

    kept = rotate_webhook_secret(load(config, data), finish=finish)
    what = "holds the newest secret alone" if finish else "holds a new secret, before the old one; webhooks bear both"
    say(f"{kept} {what} once `demur review` is started anew")
