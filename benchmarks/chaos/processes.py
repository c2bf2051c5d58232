"""One process of a run as the run holds it: started, struck, started again, ended."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.supervise import leashed

END_SECONDS = 4.0


class Process:
    """A process that ends with this one; `ready(pid)` says, without waiting, whether it answers."""

    def __init__(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path, ready: Callable[[int], bool]
    ) -> None:
        self.name = name
        self.log = log
        # How often it ended although nobody killed it.
        self.deaths: list[str] = []
        self._argv = leashed(argv)
        self._env = dict(env)
        self._ready = ready
        self._child: subprocess.Popen[bytes] | None = None
        self._busy = False

    @property
    def ready(self) -> bool:
        """Whether it runs and answers."""
        return self._child is not None and self._child.poll() is None and self._ready(self._child.pid)

    @property
    def struck(self) -> bool:
        """Whether a fault is at work on it now: it would not feel a second one."""
        return self._busy

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - this Python, our own commands
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def kill(self) -> None:
        """End it with SIGKILL; `start` starts it again."""
        self._busy = True
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def start_again(self) -> None:
        """Start it after `kill`."""
        self.start()
        self._busy = False

    def stop(self) -> None:
        """Stop it with SIGSTOP."""
        self._busy = True
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on with SIGCONT."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)
        self._busy = False

    def look(self) -> None:
        """Notice an end that nobody asked for, and start it again."""
        if self._child is None or self._busy:
            return
        code = self._child.poll()
        if code is not None:
            self.deaths.append(f"{self.name} ended by itself with {code}; see {self.log.name}")
            self.start()

    def ask_to_end(self) -> None:
        """Ask it to end in good order."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()

    def end(self) -> None:
        """Wait until it has ended; kill it where it takes too long."""
        if self._child is None:
            return
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
