"""What is promised of serving, measured in rounds: ours and what it is measured against in turns within a round."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.figures import Check, Figure, Spread, check, figure, spread
from benchmarks.serve import closed, echo, ground, models
from benchmarks.serve.closed import Closed
from benchmarks.serve.ground import Served
from benchmarks.serve.models import Name
from benchmarks.serve.sender import METHOD
from demur import kserve
from gateway.model import Model

Tell = Callable[[str], None]
_WARM_SHARE: Final = 0.2
_WAY_SECONDS: Final = 0.3


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much: rounds, calls of one closed loop (fewer on `aio`, which is slower), seconds of open ones in all."""

    rounds: int
    echo_calls: int
    calls: tuple[int, int, int]
    aio_echo_calls: int
    aio_calls: tuple[int, int, int]
    open_seconds: float

    def of(self, name: Name, kind: str) -> int:
        """Return the calls of one closed loop with a model."""
        return (self.aio_calls if kind == "aio" else self.calls)[list(models.SHAPES).index(name)]


FULL: Final = Size(
    rounds=5,
    echo_calls=60_000,
    calls=(50_000, 20_000, 1_500),
    aio_echo_calls=12_000,
    aio_calls=(8_000, 6_000, 1_500),
    open_seconds=10.0,
)
QUICK: Final = Size(
    rounds=2,
    echo_calls=10_000,
    calls=(8_000, 4_000, 300),
    aio_echo_calls=3_000,
    aio_calls=(2_000, 1_500, 300),
    open_seconds=2.0,
)


class Loop(NamedTuple):
    """One closed loop, and the processor time that the server took for each call, microseconds."""

    found: Closed
    cpu_us: float


def asked(name: Name, *, doubtful: bool = False) -> bytes:
    """Return a ModelInfer of one row: one that the model is sure of, or of zeros, which it can only guess at."""
    rows = models.rows(name, 1) * np.float32(not doubtful)
    message = kserve.ModelInferRequest(model_name=name)
    message.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    message.raw_input_contents.append(rows.tobytes())
    content: bytes = message.SerializeToString()
    return content


def loop(served: Served, method: str, payload: bytes, *, calls: int) -> Loop:
    """Measure one closed loop of 32 callers."""
    before = served.cpu_seconds()
    found = closed.saturate(served.address, method, payload, calls=calls)
    return Loop(found, 1e6 * (served.cpu_seconds() - before) / calls)


class Alone:
    """ONNX Runtime by itself, in every batch and with the threads that may be the best."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._loaded = {threads: _loaded(name, threads) for threads in (1, 0)}
        sizes = sorted({8, 16, 32, models.SHAPES[name].rows_max})
        self._rates: dict[tuple[int, int], list[float]] = {
            (threads, rows): [] for threads in self._loaded for rows in sizes
        }

    def round(self) -> None:
        """Measure each way once: rows a second."""
        for (threads, rows), rates in self._rates.items():
            rates.append(_alone(self._loaded[threads], models.rows(self._name, rows), _WAY_SECONDS))

    def best(self) -> list[tuple[str, float]]:
        """Return what the best way is, with its rate in each round."""
        threads, rows = max(self._rates, key=lambda way: median(self._rates[way]))
        said = f"batches of {rows}, {threads or 'all'} threads"
        return [(said, rate) for rate in self._rates[threads, rows]]


def lone_ms(name: Name) -> float:
    """Return how long ONNX Runtime takes for one row, p50, ms."""
    model, rows, took = _loaded(name, 1), models.rows(name, 1), []
    for _ in range(300):
        start = time.perf_counter()
        model.run({"x": rows})
        took.append(time.perf_counter() - start)
    return 1000 * median(took)


class Measured(NamedTuple):
    """All that was measured of one model, in rounds."""

    name: Name
    echo_cq: list[Loop]
    echo_aio: list[Loop]
    cq: list[Loop]
    aio: list[Loop]
    alone: list[tuple[str, float]]


@contextlib.contextmanager
def gateways(folder: Path, name: Name) -> Iterator[dict[str, Served]]:
    """Yield an echo and a gateway that serves the model, on each transport."""
    with contextlib.ExitStack() as held:
        found = {f"echo {kind}": held.enter_context(ground.echo(kind)) for kind in ("cq", "aio")}
        for kind in ("cq", "aio"):
            found[kind] = held.enter_context(ground.gateway(folder, transport=kind))
            ground.published(found[kind].address, name)
        yield found


def throughput(folder: Path, name: Name, size: Size, tell: Tell) -> Measured:
    """Measure a model on both transports, their echoes and ONNX Runtime alone, in turns."""
    payload, alone, found = asked(name), Alone(name), Measured(name, [], [], [], [], [])
    with gateways(folder, name) as served:
        kinds: tuple[tuple[str, str, list[Loop], int], ...] = (
            ("echo cq", echo.METHOD, found.echo_cq, size.echo_calls),
            ("echo aio", echo.METHOD, found.echo_aio, size.aio_echo_calls),
            ("cq", METHOD, found.cq, size.of(name, "cq")),
            ("aio", METHOD, found.aio, size.of(name, "aio")),
        )
        for kind, method, _, calls in kinds:
            loop(served[kind], method, payload, calls=int(_WARM_SHARE * calls))
        for number in range(size.rounds):
            for kind, method, into, calls in kinds:
                into.append(loop(served[kind], method, payload, calls=calls))
            alone.round()
            rates = ", ".join(f"{kind} {into[-1].found.rate:.0f}" for kind, _, into, _ in kinds)
            tell(f"{name}, round {number + 1} of {size.rounds}, calls a second: {rates}")
    found.alone.extend(alone.best())
    return found


def figures(found: Measured) -> list[Figure]:
    """Return the promises of one model's throughput."""
    name = found.name
    cq, aio = _rates(found.cq), _rates(found.aio)
    echo_cq, echo_aio = _rates(found.echo_cq), _rates(found.echo_aio)
    alone = [rate for _, rate in found.alone]
    how = found.alone[0][0]

    def over(what: str, ours: list[float], other: list[float], least: float) -> Figure:
        return figure(f"{name}: {what}", "calls a second", _pairs(ours, other), limit=least, at_least=True)

    match name:
        case "tiny":
            p99 = _pairs([each.found.p99_ms for each in found.cq], [each.found.p99_ms for each in found.aio])
            return [
                over("cq over its raw echo", cq, echo_cq, 0.8),
                over("cq over aio", cq, aio, 4.0),
                figure("tiny: p99 on cq over aio's, closed loop", "ms", p99, limit=0.3),
                over("aio over its raw echo", aio, echo_aio, 0.7),
            ]
        case "mid":
            wall = [1 / (1 / one + 1 / other) for one, other in zip(echo_cq, alone, strict=True)]
            return [
                over(f"cq over 1/(1/echo + 1/ONNX Runtime: {how})", cq, wall, 0.9),
                over("cq over aio", cq, aio, 4.0),
            ]
        case _:
            return [over(f"cq over ONNX Runtime alone ({how})", cq, alone, 0.95)]


def checks(found: list[Figure]) -> list[Check]:
    """Return the promises of throughput."""
    return [check(each) for each in found]


def rates(found: Measured) -> dict[str, Spread]:
    """Return the calls a second of each side, and ONNX Runtime's rows."""
    sides = {"echo cq": found.echo_cq, "echo aio": found.echo_aio, "cq": found.cq, "aio": found.aio}
    calls = {side: spread(_rates(loops)) for side, loops in sides.items()}
    return {**calls, "ONNX Runtime alone": spread([rate for _, rate in found.alone])}


def cpu(found: Measured) -> dict[str, Spread]:
    """Return the server's processor time a call, microseconds."""
    sides = {"echo cq": found.echo_cq, "echo aio": found.echo_aio, "cq": found.cq, "aio": found.aio}
    return {side: spread([each.cpu_us for each in loops]) for side, loops in sides.items()}


def latencies(found: Measured) -> dict[str, dict[str, float]]:
    """Return the closed loops' median latencies, ms; to compare, not to promise."""
    sides = {"echo cq": found.echo_cq, "echo aio": found.echo_aio, "cq": found.cq, "aio": found.aio}
    names = ("p50_ms", "p99_ms", "p999_ms")
    return {
        side: {name: median(getattr(each.found, name) for each in loops) for name in names}
        for side, loops in sides.items()
    }


def failed(found: Measured) -> int:
    """Return how many calls did not come back."""
    return sum(each.found.failed for loops in (found.echo_cq, found.echo_aio, found.cq, found.aio) for each in loops)


def _rates(loops: list[Loop]) -> list[float]:
    return [each.found.rate for each in loops]


def _pairs(ours: list[float], other: list[float]) -> list[tuple[float, float]]:
    return list(zip(ours, other, strict=True))


def _loaded(name: Name, threads: int) -> Model:
    """Load a model with so many threads, 0 for one a core."""
    with tempfile.TemporaryDirectory(prefix="demur-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(models.artefact(name))
        loaded = Model.load(path, device="cpu", threads=threads)
    loaded.run({"x": models.rows(name, 1)})
    return loaded


def _alone(model: Model, rows: np.ndarray[Any, Any], seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        model.run({"x": rows})
        count += len(rows)
    return count / spent
