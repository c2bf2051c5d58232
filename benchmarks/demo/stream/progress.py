"""What a person sees while a stream runs: one line that ticks; where there is no terminal, a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from benchmarks.demo.stream.run import Stream

LINE_SECONDS: Final = 10.0
_REFRESH_PER_SECOND: Final = 4


def line(stream: Stream, *, requests: int, seconds: float) -> str:
    """Return how far the run is, in one line."""
    standing = stream.standing
    tau = "none yet" if standing.tau is None else f"{standing.tau:.4f}"
    return (
        f"{seconds:5.0f} s  {stream.sent}/{requests} requests  {standing.stage or '-'}  tau {tau}  "
        f"coverage {stream.coverage:.1%}  audits {standing.audits}  open {max(0, stream.open)}"
    )


class Ticker:
    """Shows `line` as the run goes on."""

    def __init__(self, console: Console, requests: int) -> None:
        self._console = console
        self._requests = requests
        self._start = self._told = time.monotonic()
        self._live = Live(Text(), console=console, refresh_per_second=_REFRESH_PER_SECOND, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(Text(f"{time.monotonic() - self._start:5.0f} s  {text}"))

    def show(self, stream: Stream) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        shown = Text(line(stream, requests=self._requests, seconds=now - self._start))
        if self._console.is_terminal:
            self._live.update(shown)
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            self._console.print(shown)
