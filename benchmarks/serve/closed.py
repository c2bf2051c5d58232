"""Closed loop: so many callers, each asks again as soon as it has its answer. It says how much, never how soon.

The load comes from h2load (nghttp2), a client in C, where it is installed: one in Python would be measured itself.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from benchmarks.figures import percentile
from fallback.errors import UnavailableError

# 32 callers: four connections with eight calls under way on each.
CONNECTIONS: Final = 4
STREAMS: Final = 8
_SECONDS_MAX: Final = 300.0
_CALL_SECONDS: Final = 10.0
# Before each message: whether it is compressed, and its length.
_FRAME_BYTES: Final = 5
_HEADERS: Final = ("content-type: application/grpc", "te: trailers")
_HOW: Final = "install it (Debian: apt-get install nghttp2-client)"


class Closed(NamedTuple):
    """What a closed loop found: calls a second, and how long each took, ms."""

    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    failed: int
    took_ms: Sequence[float] = ()


def expect() -> None:
    """Raise UnavailableError, saying how to get it, where there is no h2load."""
    if shutil.which("h2load") is None:
        raise UnavailableError(f"h2load, a client in C that can saturate a server, is not on PATH: {_HOW}")


def saturate(
    address: str,
    method: str,
    payload: bytes,
    *,
    calls: int,
    connections: int = CONNECTIONS,
    streams: int = STREAMS,
    rate: float = 0.0,
    metadata: Sequence[tuple[str, str]] = (),
    tls: bool = False,
    answer_bytes: int | None = None,
) -> Closed:
    """Make `calls` calls of one method with one request; raises UnavailableError where there is no h2load.

    With a `rate` no more than so many a second, evenly, as long as the calls under way leave streams for them. With
    `tls` it is spoken, to whoever answers. `answer_bytes`: how long an answer is, where that is known.

    h2load knows nothing of gRPC, whose refusals are HTTP's 200 without a message: so one call tells beforehand how long
    an answer is, and the bytes that came say how many answers there were.
    """
    expect()
    answer = _FRAME_BYTES + (len(_one(address, method, payload)) if answer_bytes is None else answer_bytes)
    headers = [*_HEADERS, *(f"{name}: {value}" for name, value in metadata)]
    with tempfile.TemporaryDirectory(prefix="demur-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(b"\0" + struct.pack(">I", len(payload)) + payload)
        argv = ["h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", str(body)]
        argv += [f"--rps={rate / connections:.2f}"] if rate else []
        argv += [f"--log-file={log}", *(word for header in headers for word in ("-H", header))]
        ran = subprocess.run(  # noqa: S603 - a fixed program, our own arguments
            [*argv, f"{'https' if tls else 'http'}://{address}{method}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS_MAX,
        )
        if ran.returncode:
            raise UnavailableError(f"h2load ended with {ran.returncode}: {(ran.stderr or ran.stdout)[-300:]}")
        return read(ran.stdout, log.read_text(encoding="ascii").splitlines(), calls=calls, answer_bytes=answer)


def _one(address: str, method: str, payload: bytes) -> bytes:
    """Return the answer to one call; raises UnavailableError where it is refused."""
    with grpc.insecure_channel(address) as channel:
        ask: Any = channel.unary_unary(method)
        try:
            return bytes(ask(payload, timeout=_CALL_SECONDS))
        except grpc.RpcError as error:
            raise UnavailableError(f"{address} does not answer {method}: {error}") from error


def read(said: str, lines: Sequence[str], *, calls: int, answer_bytes: int) -> Closed:
    """Return what h2load said, and its log of one line a call: begin, status, microseconds.

    `answer_bytes`: what one answer weighs with its frame.
    """
    rate, done = re.search(r"finished in .*?, ([\d.]+) req/s", said), re.search(r"\((\d+)\) data", said)
    if rate is None or done is None:
        raise UnavailableError(f"h2load said something that is not known: {said[-300:]}")
    took = [int(line.split()[2]) / 1000 for line in lines]
    p50, p99, p999 = (round(percentile(took, share), 3) for share in (0.5, 0.99, 0.999))
    failed = max(0, calls - round(int(done.group(1)) / answer_bytes))
    return Closed(float(rate.group(1)), p50, p99, p999, failed, took)


def version() -> str:
    """Return what h2load calls itself; empty where there is none."""
    program = shutil.which("h2load")
    if program is None:
        return ""
    ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=_CALL_SECONDS)  # noqa: S603 - a fixed program
    return ran.stdout.strip()
