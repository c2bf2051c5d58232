"""`demur train`: the first model, the watching trainer, one retraining, imported examples, reports, erasing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from fallback.command_line import ConfigFile, Data, load

if TYPE_CHECKING:
    from rich.console import Console

    from fallback.config import Config
    from trainer.reports import Report
    from trainer.sorting import Sorting

PROCESS: Final = "train"
FIRST: Final = "digits"
_NOW: Final = "now"
_NICENESS: Final = 10

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


class _Train(TyperGroup):
    """`demur train MODEL` is short for `demur train now MODEL`."""

    # Typer carries a copy of click whose types have no public name.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a first word that is no command for a model."""
        if args and args[0] not in self.commands:
            args = [_NOW, *args]
        return super().resolve_command(ctx, args)


train = typer.Typer(
    cls=_Train,
    rich_markup_mode="markdown",
    invoke_without_command=True,
    no_args_is_help=True,
    epilog="Examples: demur train digits · demur train --watch · demur train --first digits --as numbers",
)


@train.callback()
def main(
    context: typer.Context,
    *,
    first: Annotated[
        str, typer.Option("--first", metavar=FIRST, help="Train and publish a first model of scikit-learn's digits.")
    ] = "",
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="With --first: the model's name.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay: keep the ledger, retrain when enough new labels are in.")
    ] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Learn from what people answered: retrain, compare, publish.

    `demur train MODEL` retrains a model now: it takes new answers into the ledger, refits the last layer of the live
    version (a Gemm, or MatMul and Add; any other is refused with the reason), and publishes the result if it is not
    worse on the hold-out.
    """
    if context.invoked_subcommand is not None:
        if first or watch or name:
            raise typer.BadParameter("--first, --as and --watch stand alone, without a command or a model")
        if config or data:
            raise typer.BadParameter("--config and --data stand after the command or the model")
    elif first and watch:
        raise typer.BadParameter("expected --first or --watch, got both")
    elif name and not first:
        raise typer.BadParameter("--as goes with --first")
    elif first:
        _first(load(config, data), first, name or first)
    elif watch:
        _watch(load(config, data))


@train.command(_NOW, epilog="Example: demur train now digits, or shorter: demur train digits")
def now(model: Model, *, config: ConfigFile = None, data: Data = None) -> None:
    """Retrain a model now, and say what came of it and why."""
    from fallback.errors import StateError
    from trainer import loop, retrain
    from trainer.reports import Result

    settings = load(config, data)
    rooms = retrain.Rooms.open(settings)
    console = _console()

    async def run() -> Report:
        with _step(console, "taking new outcomes into the ledger"):
            await loop.catch_up(settings, rooms)
        with _step(console, f"retraining {model}"):
            async with retrain.client(settings) as gateway:
                return await retrain.retrain(rooms, model, gateway, why="asked for")

    report = asyncio.run(run())
    _show(console, report)
    if report.result is Result.REFUSED:
        raise StateError(f"{model} was not retrained: {'; '.join(report.reasons)}")


@train.command("import-examples", epilog="Example: demur train import-examples digits examples.npz --split holdout")
def import_examples(
    model: Model,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.npz", help="An array for each of the model's inputs, by its name, and `labels`.", exists=True
        ),
    ],
    *,
    split: Annotated[str, typer.Option("--split", metavar="train|holdout", help="To learn from, or to judge by.")],
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Add labelled examples that did not come from requests; those to judge by are never trained on."""
    from fallback.errors import InvalidError, NotFoundError
    from trainer import imports, retrain

    if split not in set(imports.Split):
        raise InvalidError(f"--split: expected train or holdout, got {split!r}")
    rooms = retrain.Rooms.open(load(config, data))
    versions = rooms.registry.versions(model)
    if not versions:
        raise NotFoundError(f"model {model!r} is not here; there are: {', '.join(rooms.registry.models()) or 'none'}")
    columns, labels = imports.read(file)
    try:
        count = rooms.imports.add(
            versions[-1].manifest,
            columns,
            labels,
            imports.Split(split),
            examples_max=rooms.settings.import_examples_max,
            after_row=rooms.ledger.last_row(),
        )
    except InvalidError as error:
        raise InvalidError(f"{file}: {error.message}") from error
    _console().print(f"{count} examples of {model} are kept for {split}", highlight=False)


@train.command(epilog="Example: demur train report digits")
def report(model: Model, *, config: ConfigFile = None, data: Data = None) -> None:
    """List a model's retrainings: what each did, and why."""
    from fallback.errors import NotFoundError
    from gateway.manifest import check_name
    from trainer import retrain

    check_name("model", model)
    found = retrain.Rooms.open(load(config, data)).reports.all(model)
    if not found:
        raise NotFoundError(f"{model!r} has not been retrained yet: `demur train {model}` does it now")
    console = _console()
    console.print(_table(found))
    for reason in found[-1].reasons:
        console.print(f"{found[-1].number}: {reason}", highlight=False, markup=False)
    for line in _sortings(found[-1]):
        console.print(f"{found[-1].number}: {line}", highlight=False)


@train.command(epilog="Example: demur train erase 3f5a...e1 (a digest stands in the ledger as inputs_digest)")
def erase(
    digest: Annotated[str, typer.Argument(metavar="SHA256", help="The content's sha256, 64 hexadecimal digits.")],
    *,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Erase a kept input for good; training goes on without it, and the same content is not kept again.

    The queue's own copy goes by itself, queues.retention_seconds after the outcome. The ledger keeps its row: labels,
    attributes, reviewers' comments.
    """
    from fallback.errors import NotFoundError
    from trainer import retrain

    if not retrain.Rooms.open(load(config, data)).contents.erase(digest):
        raise NotFoundError(f"no content {digest} is kept here; should it come, it will not be kept")
    _console().print(f"erased {digest}", highlight=False)


def _first(settings: Config, kind: str, name: str) -> None:
    from fallback.errors import InvalidError
    from gateway.manifest import check_name
    from trainer import first, retrain

    if kind != FIRST:
        raise InvalidError(f"--first: expected {FIRST}, got {kind!r}; your own: demur models publish MODEL.onnx")
    check_name("--as", name)
    console = _console()

    async def run() -> tuple[str, bool]:
        async with retrain.client(settings) as gateway:
            with _telling(console) as tell:
                return await first.publish(retrain.Rooms.open(settings), gateway, name, tell)

    version, did = asyncio.run(run())
    console.print(f"{name} version {version} is live" + ("" if did else " already"), highlight=False)


def _watch(settings: Config) -> None:
    from fallback import presence
    from gateway import logs
    from trainer import loop

    logs.configure(PROCESS)
    # Learning can wait; whoever serves requests on this machine cannot.
    os.nice(_NICENESS)

    def ready() -> None:
        presence.announce(settings.data_folder, PROCESS, presence.Running(pid=os.getpid()))

    async def run() -> None:
        stop = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        await loop.watch(settings, stop, ready=ready)

    try:
        asyncio.run(run())
    finally:
        presence.withdraw(settings.data_folder, PROCESS)


def _show(console: Console, report: Report) -> None:
    from trainer.reports import Result

    head = {
        Result.PROMOTED: f"version {report.version} is live, in place of version {report.parent}",
        Result.SHADOWED: f"version {report.version} is in shadow, and takes over once its own certificate is as good",
        Result.REJECTED: f"version {report.parent} stays live: the retrained one did not pass",
        Result.REFUSED: f"version {report.parent} stays live: it could not be retrained",
        Result.UNCHANGED: f"version {report.parent} stays live",
    }[report.result]
    console.print(head, style="bold", highlight=False)
    for reason in report.reasons:
        console.print(f"  {reason}", highlight=False, markup=False)
    if report.counts is not None:
        skipped = ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in report.counts.skipped.items())
        # Where nothing was judged, nothing was trained.
        done = "nothing was trained; there are" if report.before is None else "trained on"
        console.print(
            f"  {done} {report.counts.fresh} new and {report.counts.replayed} older examples, "
            f"{'to judge by' if report.before is None else 'judged on'} {report.counts.holdout}; "
            f"left out: {skipped or 'none'}",
            highlight=False,
        )
    for line in _sortings(report):
        console.print(f"  {line}", highlight=False)


def _sorting(found: Sorting) -> str:
    """Return how well a version's scores sort right from wrong, in a line."""
    proved = ""
    if found.certified_coverage is not None:
        proved = f", {found.certified_coverage:.0%} certified at alpha {found.alpha:g} by these alone"
    return (
        f"{found.scorer} AURC {found.aurc:.4f} (E-AURC {found.e_aurc:.4f}, AUGRC {found.augrc:.4f}){proved}; "
        f"ECE {found.ece:.4f}, at temperature {found.temperature:.2f} {found.ece_tempered:.4f}"
    )


def _table(found: list[Report]) -> object:
    from rich.table import Table

    table = Table("", "when", "result", "version", "accuracy", "deferred", "error of answered", "new labels", box=None)
    table.caption = "on the hold-out; its live part was deferred or audited, so it is harder than traffic is"
    for report in found:
        before, after, counts = report.before, report.after, report.counts
        table.add_row(
            str(report.number),
            f"{report.create_time:%Y-%m-%d %H:%M:%S}",
            report.result.value,
            f"{report.parent} -> {report.version or '-'}",
            f"{before.all.accuracy:.3f} -> {after.all.accuracy:.3f}" if before and after else "",
            f"{before.all.deferred_share:.2f} -> {after.all.deferred_share:.2f}" if before and after else "",
            f"{before.all.auto_error:.4f} -> {after.all.auto_error:.4f}" if before and after else "",
            str(counts.fresh) if counts is not None else "",
        )
    return table


def _sortings(report: Report) -> list[str]:
    """Return how well the scores of both versions sort right from wrong; nothing where none were compared."""
    return [
        f"version {name}: {_sorting(scores.sorting)}"
        for name, scores in ((report.parent, report.before), (report.version or "retrained", report.after))
        if scores is not None and scores.sorting is not None
    ]


def _console() -> Console:
    """Return where a command speaks; what is logged on the way is for processes that nobody watches."""
    from rich.console import Console

    from gateway import logs

    logs.configure(PROCESS, level=logging.ERROR)
    return Console()


@contextlib.contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    with _telling(console) as tell:
        tell(what)
        yield


@contextlib.contextmanager
def _telling(console: Console) -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is under way: a spinner on a terminal, a line elsewhere."""
    if not console.is_terminal:
        yield lambda what: console.print(f"{what} ...", highlight=False)
        return
    with console.status("") as status:
        yield lambda what: status.update(f"{what} ...")
