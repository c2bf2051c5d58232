"""The gateway's own commands: up, serve, predict, config; `demur models` stands in `gateway.models_commands`, its
policy in `gateway.policy_commands`.
"""  # noqa: D205 - one sentence needs two lines

from __future__ import annotations

from typing import Annotated

import typer

from fallback.command_line import ConfigFile, Data, load
from gateway.models_commands import models
from gateway.policy_commands import policy
from gateway.predict_command import predict

__all__ = ["config", "models", "predict", "serve", "up"]

models.add_typer(policy, name="policy")


def up(*, config: ConfigFile = None, data: Data = None) -> None:
    """Start everything on this machine: Valkey, gateway, reviewers' page, trainer.

    Says where each answers and what to try. The first start trains and publishes a model of handwritten digits.
    Ctrl-C stops everything; the next start goes on with the same data. A process that dies is started again.

    Example: demur up --data /srv/demur
    """
    from rich.console import Console

    from gateway import up as stack

    stack.up(load(config, data), console=Console())


def serve(*, config: ConfigFile = None, data: Data = None) -> None:
    """Run the gateway alone: models over gRPC, as `demur up` runs it.

    SIGTERM drains: no new requests are taken, those under way are answered.

    Example: DEMUR_REDIS_URL=redis://queue:6379 demur serve --config demur.toml
    """
    from gateway import logs
    from gateway.server import serve as run

    logs.configure("serve")
    run(load(config, data))


def config(
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="List every key with its type, default and meaning.")
    ] = False,
    config: ConfigFile = None,
    data: Data = None,
) -> None:
    """Check demur.toml, and the files that it names, and show what is in force; secrets are never shown.

    Example: demur config --explain
    """
    from rich.console import Console

    from gateway import settings_screen

    console = Console()
    found = load(config, data)
    if explain:
        settings_screen.explain(console)
    else:
        for table in found.all_tables():
            table.check_here()
        settings_screen.show(console, found)
