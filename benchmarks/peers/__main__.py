"""`python -m benchmarks.peers FOLDER [--rounds N] [--seconds S] [--only NAME ...]`: what `benchmarks/peers.sh` runs.

FOLDER has a virtual environment for each peer (mlserver, kserve, pytriton), of those that there are. One server at a
time is started, measured by `demur bench serve --target` with 32 callers in a closed loop, and ended. What was measured
is added to FOLDER/runs.jsonl; the table is of all that stands there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import grpc
import msgspec

from benchmarks import machine, stack
from benchmarks.demo.processes import tail_of
from benchmarks.serve import ground, models
from benchmarks.serve.report.page import number
from demur import kserve
from fallback.errors import DemurError, UnavailableError
from gateway.up import demur

CALLERS: Final = 32
_SERVERS: Final = Path(__file__).parent / "servers"
_START_SECONDS_MAX: Final = 90.0
_LOOK_SECONDS: Final = 0.2
_END_SECONDS: Final = 20.0
_BENCH_SECONDS_MAX: Final = 120.0
# How long a batch of MLServer waits for more: longer costs it rate and latency here.
_BATCH_SECONDS: Final = 0.001


class Side(NamedTuple):
    """A server to measure: what the table calls it, the environment it needs, and how it is started."""

    name: str
    needs: str
    # With FOLDER and a free port, beside which the next three are free, as far as is known.
    start: Callable[[Path, int], contextlib.AbstractContextManager[tuple[int, int]]]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, as a line of runs.jsonl."""

    side: str
    server: str
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int


@contextlib.contextmanager
def child(folder: Path, name: str, argv: list[str], port: int, cwd: Path) -> Iterator[tuple[int, int]]:
    """Yield the port and the process of a peer that answers; raises UnavailableError with its log where none does."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=output, cwd=cwd, start_new_session=True)  # noqa: S603 - a peer
    try:
        _wait(child, port, log)
        yield port, child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # With the workers that it started: they are of its session.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS_MAX
    asked = kserve.ModelReadyRequest(name="tiny").SerializeToString()
    with grpc.insecure_channel(f"{stack.LOOPBACK}:{port}") as channel:
        ask: Any = channel.unary_unary(f"/{kserve.SERVICE}/ModelReady")
        while time.monotonic() < until and child.poll() is None:
            with contextlib.suppress(grpc.RpcError):
                if kserve.ModelReadyResponse.FromString(ask(asked, timeout=2, wait_for_ready=True)).ready:
                    return
            time.sleep(_LOOK_SECONDS)
    raise UnavailableError(f"it ended with {child.poll()} (None: not yet); the end of {log}:\n{tail_of(log)}")


def _mlserver(name: str, workers: int, batch: int) -> Side:
    def start(folder: Path, port: int) -> contextlib.AbstractContextManager[tuple[int, int]]:
        place = folder / name.replace(" ", "-")
        place.mkdir(exist_ok=True)
        (place / "mlserver_onnx.py").write_bytes((_SERVERS / "mlserver_onnx.py").read_bytes())
        # Its `debug`, which is the default, writes a line for each call.
        ports = {"grpc_port": port, "http_port": port + 1, "metrics_port": port + 2}
        settings = {"debug": False, "host": stack.LOOPBACK, "parallel_workers": workers, **ports}
        model = {
            "name": "tiny",
            "implementation": "mlserver_onnx.Onnx",
            "parameters": {"uri": str(folder / "tiny.onnx")},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 10]}],
            **({"max_batch_size": batch, "max_batch_time": _BATCH_SECONDS} if batch else {}),
        }
        (place / "settings.json").write_bytes(msgspec.json.encode(settings))
        (place / "model-settings.json").write_bytes(msgspec.json.encode(model))
        return child(folder, place.name, [str(folder / "mlserver/bin/mlserver"), "start", "."], port, place)

    return Side(name, "mlserver", start)


def _kserve(folder: Path, port: int) -> contextlib.AbstractContextManager[tuple[int, int]]:
    argv = [str(folder / "kserve/bin/python"), str(_SERVERS / "kserve_onnx.py"), "--model_name", "tiny"]
    argv += ["--path", "tiny.onnx", "--grpc_port", str(port), "--http_port", str(port + 1)]
    return child(folder, "kserve", argv, port, folder)


def _pytriton(folder: Path, port: int) -> contextlib.AbstractContextManager[tuple[int, int]]:
    argv = [str(folder / "pytriton/bin/python"), str(_SERVERS / "pytriton_onnx.py"), "tiny.onnx", str(port)]
    return child(folder, "pytriton", argv, port, folder)


def _ours(transport: str) -> Side:
    @contextlib.contextmanager
    def start(folder: Path, _: int) -> Iterator[tuple[int, int]]:
        with (
            tempfile.TemporaryDirectory(dir=folder) as place,
            ground.gateway(Path(place), transport=transport) as served,
        ):
            ground.published(served.address, "tiny")
            yield int(served.address.rpartition(":")[2]), served.pid

    return Side(f"demur {transport}", "", start)


SIDES: Final = (
    _mlserver("mlserver", workers=1, batch=0),
    _mlserver("mlserver in one process", workers=0, batch=0),
    _mlserver("mlserver in one process batching", workers=0, batch=CALLERS),
    Side("kserve", "kserve", _kserve),
    Side("pytriton", "pytriton", _pytriton),
    _ours("aio"),
    _ours("cq"),
)


def measured(side: Side, folder: Path, seconds: float) -> Figures:
    """Start, measure and end one side; raises UnavailableError where it does not come up or cannot be measured."""
    with side.start(folder, ground.free_port()) as (port, pid):
        argv = ["--target", f"{stack.LOOPBACK}:{port}", "--model", "tiny", "--pid", str(pid), "--quick", "--json"]
        argv += ["--scenario", "offline", "--callers", str(CALLERS), "--seconds", str(seconds)]
        ran = subprocess.run(  # noqa: S603 - this Python, our own command
            demur("bench", "serve", *argv), capture_output=True, check=False, timeout=_BENCH_SECONDS_MAX
        )
    lines = ran.stdout.splitlines()
    if not lines:
        raise UnavailableError(f"bench serve --target ended with {ran.returncode}: {ran.stderr.decode()[-500:]}")
    found = msgspec.json.decode(lines[-1])
    (run,) = found["scenarios"]["offline"]["runs"]
    took = run["latency"]
    return Figures(
        side=side.name,
        server=f"{found['target']['name']} {found['target']['version']}",
        rate=run["answered"],
        p50_ms=took["p50_ms"],
        p99_ms=took["p99_ms"],
        cpu_us=run["cpu_us"],
        failed=run["failed"],
    )


def table(found: list[Figures]) -> str:
    """Return medians in Markdown, in the order of `SIDES`; of rates also the lowest and the highest."""
    lines = [
        "| server | rounds | requests/s | p50 ms | p99 ms | server's CPU us a request |",
        "|---|---|---|---|---|---|",
    ]
    for side in SIDES:
        runs = [each for each in found if each.side == side.name]
        if runs:
            rates = [each.rate for each in runs]
            middle = (median(getattr(each, key) for each in runs) for key in ("p50_ms", "p99_ms", "cpu_us"))
            spread = f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            cells = (f"{side.name}: {runs[-1].server}", str(len(runs)), spread, *map(number, middle))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure in rounds and print the table; 1 where a side could not be measured, or a request failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/peers.sh")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run")
    parser.add_argument("--only", nargs="*", choices=[side.name for side in SIDES], default=[])
    asked = parser.parse_args()
    folder: Path = asked.folder.resolve()
    (folder / "tiny.onnx").write_bytes(models.artefact("tiny"))
    kept, failed = folder / "runs.jsonl", 0
    sides = [side for side in SIDES if not asked.only or side.name in asked.only]
    with stack.tidily():
        for side in [each for _ in range(asked.rounds) for each in sides]:
            if side.needs and not (folder / side.needs / "bin/python").exists():
                continue
            try:
                found = measured(side, folder, asked.seconds)
            except (DemurError, subprocess.TimeoutExpired) as error:
                failed += 1
                _tell(f"{side.name}: {error}")
                continue
            failed += found.failed
            with kept.open("ab") as file:
                file.write(msgspec.json.encode(found) + b"\n")
            _tell(msgspec.json.encode(found).decode())
    _say(table(read(kept)))
    _say(f"\n{CALLERS} callers, closed loop, client on the same machine: {machine.describe()}")
    return 1 if failed else 0


def read(kept: Path) -> list[Figures]:
    """Return what was measured until now."""
    return msgspec.json.Decoder(Figures).decode_lines(kept.read_bytes()) if kept.exists() else []


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output


if __name__ == "__main__":
    sys.exit(main())
