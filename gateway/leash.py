"""Runs a command that ends when its supervisor does, however that ends: `python leash.py SUPERVISOR_PID -- ARGV...`.

On Linux the kernel is told to kill the process when its parent dies, and the command takes this process's place.
Elsewhere (or with `--watch`) this process stays, and kills the command when the pipe on its standard input, whose other
end only the supervisor holds, comes to its end. Imports nothing but the standard library: it starts in milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_ORPHANED: Final = 3


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` (its parent now) dies; at once where that has happened."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(_ORPHANED)


def watch(argv: Sequence[str]) -> int:
    """Run `argv`, end it when standard input ends, pass on SIGTERM and SIGINT; return its exit code."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - what the supervisor was told to run
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda got, _frame: child.send_signal(got))

    def end_with_the_pipe() -> None:
        while os.read(0, 4096):
            pass
        child.kill()

    threading.Thread(target=end_with_the_pipe, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    """Read the command line and run the command."""
    watching = "--watch" in sys.argv[1 : sys.argv.index("--")]
    parent, argv = int(sys.argv[1]), sys.argv[sys.argv.index("--") + 1 :]
    if watching or sys.platform != "linux":
        sys.exit(watch(argv))
    die_with(parent)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()
