"""The options of `demur bench serve --target`: of whom, what and how much."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

_option = partial(typer.Option, rich_help_panel="Of a target")
_unset = partial(_option, show_default=False)
_SCENARIO_HELP = "single-stream, offline, callers, rates or server; several may be given, all unless said."
_SHAPE_HELP = "NAME=1,3,224,224 of an input with free axes; NAME:FP32=... where the server declares none."
_TARGET_HELP = "HOST:PORT of a KServe v2 server to measure instead."

Address = Annotated[str | None, typer.Option("--target", help=_TARGET_HELP, show_default=False)]
Scenarios = Annotated[list[str] | None, _unset("--scenario", help=_SCENARIO_HELP)]
BoundMs = Annotated[float, _option("--bound", min=0.01, max=60_000, help="server: p99 at most, ms.")]
Shapes = Annotated[list[str] | None, _unset("--shape", help=_SHAPE_HELP)]
Rows = Annotated[int | None, _option("--rows", min=1, max=65_536, help="Samples in a request. [default: 1]")]
Callers = Annotated[int | None, _option("--callers", min=1, max=4_096, help="Callers at most. [default: 64]")]
Seconds = Annotated[float | None, _option("--seconds", min=0.1, max=600, help="Of one run. [default: 2]")]
Processes = Annotated[
    int | None, _option("--processes", min=1, max=64, help="That send. [default: one for four cores]")
]
TimeoutSeconds = Annotated[float, _option("--timeout", min=0.01, max=600, help="Of one request, seconds.")]
Authorities = Annotated[Path | None, _unset("--ca", help="TLS, trusting the authorities in this file.")]
Metadata = Annotated[list[str] | None, _unset("--metadata", help="KEY=VALUE for every call.")]
Pid = Annotated[int | None, _unset("--pid", help="The server's process, with what it started. [default: who listens]")]
Metrics = Annotated[str | None, _unset("--metrics", help="HOST:PORT of a gateway's or a Triton's metrics page.")]
