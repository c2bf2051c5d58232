"""A gateway of one's own as a target: `python -m benchmarks.serve.own MODEL [options of bench serve --target]`.

It is started with the model published, measured by `demur bench serve --target` as any server is, and ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import bench_serve, screen, stack
from benchmarks.serve import ground
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from fallback.errors import DemurError, UnavailableError
from gateway.up import demur

_SECONDS_MAX: Final = 400.0
_SWAPPED: Final = "swapped"


def measured(
    folder: Path, name: Name, options: Sequence[str], *, settings: Sequence[str] = ()
) -> tuple[dict[str, Any], str]:
    """Measure a gateway that serves `name`; returns the object that was printed, and what provider ran the model.

    `settings` are lines of the gateway's table. Raises UnavailableError where nothing was printed.
    """
    page = f"{stack.LOOPBACK}:{ground.free_port()}"
    with ground.gateway(folder, transport="auto", settings=settings, metrics=page) as served:
        ground.published(served.address, name)
        argv = ["--target", served.address, "--model", name, "--pid", str(served.pid), "--metrics", page, "--json"]
        ran = subprocess.run(  # noqa: S603 - this Python, our own command
            demur("bench", "serve", *argv, *options), stdout=subprocess.PIPE, check=False, timeout=_SECONDS_MAX
        )
        ran_on = provider(served)
    lines = ran.stdout.splitlines()
    if not lines:
        raise UnavailableError(f"bench serve --target ended with {ran.returncode}; what it said stands above")
    found: dict[str, Any] = msgspec.json.decode(lines[-1])
    return found, ran_on


def provider(served: Served) -> str:
    """Return what the gateway's log says that the last version it put in place runs on; empty where it says nothing."""
    found = ""
    for line in served.log.read_bytes().splitlines():
        try:
            said: Any = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(said, dict) and said.get("event") == _SWAPPED:
            found = str(said.get("provider", ""))
    return found


def main() -> None:
    """Measure what is asked for and print the object."""
    try:
        (name,) = bench_serve.named(sys.argv[1:2] or [""])
        with stack.tidily(), stack.place(None) as folder:
            found, _ = measured(folder, name, sys.argv[2:])
    except DemurError as error:
        sys.exit(str(error))
    screen.print_json(found)
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
