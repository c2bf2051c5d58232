"""`demur review`, and `demur queue ...` for looking after what waits for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from fallback.callback_commands import callbacks
from fallback.command_line import (
    AsJson,
    ConfigFile,
    Data,
    DeferralName,
    OpenQueue,
    QueueName,
    ReviewAddress,
    Yes,
    agree,
    connect,
    load,
    run,
    say,
    whisper,
)
from fallback.gold_commands import gold

_WATCH_SECONDS: Final = 10.0

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
        async with connect(address, config, data) as client:
            screen.queues(await client.queues(), json=json)

    run(work())


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
        async with connect(address, config, data) as client:
            wanted = None if state is None else State(state.value)
            async for deferral in client.list(name, state=wanted, flagged=flagged, page_size=limit):
                found.append(deferral)
                if len(found) == limit:
                    break
        such = " ".join(word for word in ("flagged" * flagged, state.value if state else "", "deferral") if word)
        screen.deferrals(found, json=json, empty=f"queue {name} has no {such}; all queues: demur queue list")

    run(work())


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
        async with connect(address, config, data) as client:
            screen.deferral(await client.get(name), json=json)

    run(work())


@queue.command(epilog="Example: demur queue erase queues/digits/deferrals/0198c2")
def erase(
    name: DeferralName,
    *,
    yes: Yes = False,
    address: ReviewAddress = "",
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Erase a deferral's content for good: what people are shown, the model's inputs, unfinished work.

    Its state stays, and one that is open is still asked about. Digests, counts, answers, comments and attributes stay;
    the trainer erases its own copy of the inputs when it next looks. It asks first, unless --yes is given.
    """
    agree(f"Erase the content of {name} for good?", yes=yes)

    async def work() -> None:
        async with connect(address, config, data) as client:
            erased = await client.erase(name)
        say(f"the content of {erased.name} is erased")

    run(work())


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
    """Print outcomes as they come, until Ctrl-C. Reads the queue's server itself, as cancel does."""
    from fallback import screen

    async def work() -> None:
        async with OpenQueue(config, data) as found:
            whisper(f"outcomes of {name} as they come; Ctrl-C ends this")
            cursor = "0" if from_start else await found.last_cursor(name)
            while True:
                for event in await found.outcomes(name, cursor, wait_seconds=_WATCH_SECONDS, whole=True):
                    cursor = event.cursor
                    screen.outcome(event.deferral, json=json)

    run(work())


@queue.command(epilog="Example: demur queue cancel queues/digits/deferrals/0198c2")
def cancel(name: DeferralName, *, config: ConfigFile = None, data: Data = None) -> None:
    """Take a question back; its client is told that it was cancelled."""
    from uuid import uuid4

    async def work() -> None:
        async with OpenQueue(config, data) as found:
            cancelled = await found.cancel(name, request_id=uuid4().hex)
        say(f"{cancelled.name} is cancelled")

    run(work())


queue.add_typer(callbacks, name="callbacks")
queue.add_typer(gold, name="gold")
