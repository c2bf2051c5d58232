"""`demur` without a process of its own: what a command says and its exit code, for tests that start it often."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys

import structlog

from gateway import cli


async def demur_here(*arguments: str) -> tuple[int, str]:
    """Run the command in a thread of this process; its exit code and all it said, in one line."""
    return await asyncio.to_thread(demur_on_this_thread, *arguments)


def demur_on_this_thread(*arguments: str) -> tuple[int, str]:
    """Run the command here, where it may want the main thread; its exit code and all it said, in one line."""
    said, known, kept = io.StringIO(), sys.argv, structlog.get_config()
    code: object = 0
    sys.argv = ["demur", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as done:
        code = done.code
    finally:
        sys.argv = known
        structlog.configure(**kept)
    return int(str(code or 0)), " ".join(said.getvalue().split())
