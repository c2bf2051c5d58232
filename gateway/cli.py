"""Where the `demur` command begins: what it must do before anything that takes time to import.

The kernel gives the first process of a container (PID 1) no signal that it has no handler for, where any other process
would end. SIGTERM that comes while such a process imports or loads would be lost, and the container killed only when
its time to end is over. So it ends at once here, as any other process does; once there is something to drain, `serve`,
`review`, `train` and `up` put their own handlers in place of this one.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

_FIRST: Final = 1
_INTERRUPTED: Final = 130
# What a shell says of a process that SIGTERM ended.
_TERMINATED: Final = 128 + signal.SIGTERM


def main() -> None:
    """Run `demur`; see `gateway.application`."""
    if os.getpid() == _FIRST:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))
    try:
        from gateway.application import run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
