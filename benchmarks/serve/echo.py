"""An echo on one of the gateway's transports: `python -m benchmarks.serve.echo cq 8001`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, Final

from benchmarks.stack import LOOPBACK
from gateway.aio import AioTransport
from gateway.cq import CqTransport
from gateway.slow import SlowLoop
from gateway.transport import Routes

METHOD: Final = "/demur.bench.Echo/Echo"
_KINDS: Final[dict[str, Any]] = {"aio": AioTransport, "cq": CqTransport}
_MIB: Final = 1024 * 1024


def main(kind: str, port: int) -> None:
    """Serve until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    slow = SlowLoop()
    slow.start()
    transport = _KINDS[kind](
        Routes(hot={METHOD: lambda call: call.reply(call.payload)}, slow={}),
        listen=f"{LOOPBACK}:{port}",
        slow_loop=slow.loop,
        message_bytes_max=32 * _MIB,
        calls_max=8_192,
        requests_bytes_max=2_048 * _MIB,
        names=(),
        files=(),
    )
    transport.start()
    over.wait()
    transport.stop(1.0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
