"""The `demur` command line: collects what the packages register under the entry-point group `demur.commands`.

Only the command that is asked for is imported, so that it starts quickly; for the list of all, each module is imported
and imports in turn only what its help needs.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, Final

import structlog
import typer
import typer.core

from fallback.environment import TOKEN
from fallback.errors import ConfigError, DemurError, InvalidError, NotFoundError, UnauthenticatedError

GROUP: Final = "demur.commands"
_RUN, _USE, _SEE = "Run it", "Use it", "See it work"
# The order and the heading each command is listed under; others come last.
_PANELS: Final[Mapping[str, str]] = {
    "up": _RUN,
    "serve": _RUN,
    "review": _RUN,
    "train": _RUN,
    "config": _RUN,
    "predict": _USE,
    "models": _USE,
    "queue": _USE,
    "certificate": _USE,
    "verify": _USE,
    "demo": _SEE,
    "bench": _SEE,
}
_WRONG_USE: Final = 2
_FAILED: Final = 1


class _Root(typer.core.TyperGroup):
    """Says what the refused value of an option was; newer releases of typer say only what was expected."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Of pydantic, by which typer reads values: each error names its input.
            errors = getattr(error.__cause__, "errors", None)
            if errors is not None:
                error.message = f"{error.message}, got {errors()[0]['input']!r}"
            raise


def run() -> None:
    """Run `demur`; an error that is meant for people is one line on standard error, exit code 2 (use) or 1 (failed)."""
    # What is logged on the way is for processes that nobody watches; those set up logs of their own.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        application(sys.argv[1:])(prog_name="demur")
    except DemurError as error:
        missing = isinstance(error, UnauthenticatedError) and not os.environ.get(TOKEN)
        hint = f"; set {TOKEN} to your token" if missing else ""
        print(f"demur: {error.message}{hint}", file=sys.stderr)  # noqa: T201 - this is the command's voice
        sys.exit(_WRONG_USE if isinstance(error, ConfigError | InvalidError | NotFoundError) else _FAILED)


def application(arguments: Iterable[str]) -> typer.Typer:
    """Return the command line, with the one command that `arguments` begin with, or with all."""
    registered = {entry.name: entry for entry in entry_points(group=GROUP)}
    given = list(arguments)
    asked = next((argument for argument in given if not argument.startswith("-")), "")
    names = [asked] if asked in registered else sorted(registered, key=_place)
    if given[:1] == ["--version"]:
        names = []
    app = typer.Typer(
        name="demur",
        cls=_Root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names:
        _add(app, name, registered[name])
    return app


def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", callback=lambda on: _tell(on=on), is_eager=True),
    ] = False,
) -> None:
    """Demur answers what it is sure of and asks a person about the rest.

    Start everything on this machine with `demur up`; then `demur predict digits --digit 7` asks the model, and the page
    that `up` names is where people answer.
    """


def _tell(*, on: bool) -> None:
    if on:
        print(f"demur {version('demur')}")  # noqa: T201 - this is the command's voice
        raise typer.Exit


def _add(app: typer.Typer, name: str, entry: EntryPoint) -> None:
    panel = _PANELS.get(name, "More")
    command = entry.load()
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, rich_help_panel=panel)
    else:
        app.command(name=name, rich_help_panel=panel)(command)


def _place(name: str) -> tuple[int, str]:
    order = list(_PANELS)
    return (order.index(name) if name in order else len(order), name)
