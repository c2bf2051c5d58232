"""Made-up results of `demur bench serve`, as the commands print them."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Check, Spread, figure
from benchmarks.serve.results import (
    Asked,
    Client,
    Gpu,
    Latency,
    Offline,
    Result,
    Run,
    Scenarios,
    Server,
    SingleStream,
    Split,
    Sweep,
    Target,
    Tensor,
    Voided,
)

PERCENTILES = (0.0, 10.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)


def latency(p50_ms: float) -> Latency:
    """Return the latency of 20,000 requests, with a tail."""
    curve = tuple(
        (at, round(p50_ms * (0.6 + 0.8 * at / 100) / (1 - min(at, 99.995) / 100) ** 0.25, 3)) for at in PERCENTILES
    )
    by = dict(curve)
    return Latency(
        count=20_000,
        mean_ms=1.2 * p50_ms,
        p50_ms=by[50.0],
        p90_ms=by[90.0],
        p99_ms=by[99.0],
        p999_ms=by[99.9],
        p9999_ms=by[99.99],
        max_ms=by[100.0],
        curve=curve,
    )


def run(*, p50_ms: float, answered: float, void: str = "", gpus: bool = False, **how: Any) -> Run:
    """Return one load; `how`: its rate or its callers."""
    took = latency(p50_ms)
    gpu = Gpu(
        index=0, name="NVIDIA L4", samples=10, utilisation_mean=answered / 200, utilisation_max=99, memory_mib_max=1200
    )
    return Run(
        loop="open" if "rate" in how else "closed",
        client="demur",
        seconds=2.0,
        requests=20_000,
        failed=0,
        codes={"OK": 20_000},
        answered=answered,
        samples=answered,
        latency=took,
        lag_p99_ms=0.4 if "rate" in how else None,
        void=void,
        cpu_us=80.0 + p50_ms,
        split=Split(
            queue_ms=0.5 * took.mean_ms,
            compute_ms=0.2 * took.mean_ms,
            transport_ms=0.3 * took.mean_ms,
            source="demur metrics",
        ),
        gpus=(gpu,) if gpus else (),
        **how,
    )


def result(*, gpus: bool = False, model: str = "tiny") -> Result:
    """Return a whole run against a target."""
    rates = [
        run(p50_ms=0.5 + 0.002 * rate / (10 - rate / 1000), answered=rate, rate=rate, gpus=gpus)
        for rate in range(1000, 9001, 1000)
    ]
    callers = [
        run(p50_ms=0.3 + 0.09 * many, answered=9500 * many / (many + 3), callers=many, gpus=gpus)
        for many in (1, 2, 4, 8, 16, 32, 64)
    ]
    lagged = run(p50_ms=9.0, answered=9100, rate=9600.0, void="the generator sent 7.1 ms late (p99), more than 5")
    held = [run(p50_ms=1.4, answered=7600, rate=7600.0) for _ in range(5)]
    tensor = Tensor(name="x", datatype="FP32", declared=(-1, 64), sent=(1, 64))
    return Result(
        target=Target(address="127.0.0.1:8001", tls=False, name="demur", version="0.1.0", extensions=(), pids=(7,)),
        model=Asked(
            name=model, version="1", platform="onnxruntime_onnx", inputs=(tensor,), outputs=(tensor,), rows=1,
            request_bytes=300, reply_bytes=120,
        ),
        client=Client(processes=1, connections=4, timeout_seconds=10.0, saturates="h2load nghttp2/1.52.0"),
        scenarios=Scenarios(
            single_stream=SingleStream(p90_ms=0.9, run=run(p50_ms=0.5, answered=1900, callers=1, gpus=gpus)),
            offline=Offline(
                samples=Spread(median=9400, low=9100, high=9500), callers=64,
                runs=tuple(run(p50_ms=6, answered=9400, callers=64, gpus=gpus) for _ in range(3)),
            ),
            callers=Sweep(points=tuple(callers)),
            rates=Sweep(points=tuple(rates)),
            server=Server(
                bound_ms=10.0, rate=7600.0, samples=7590.0, limited_by="bound", searched=(lagged, *held[:1]),
                verified=tuple(held),
            ),
        ),
        voided=(Voided(scenario="server", run=lagged),),
        notes=("client and server share this machine's cores",),
        machine="2 cores of some processor, 24 GiB",
        begun="2026-11-26T12:00:00+00:00",
        seconds=63.2,
        quick=False,
        checks=(
            Check(name="failed requests", value=0, goal="= 0", ok=True),
            Check(name="server: runs at its rate with p99 within 10 ms", value=5, goal="= 5", ok=True),
        ),
        ok=True,
    )  # fmt: skip


def promised() -> dict[str, Any]:
    """Return the object of a run without a target."""
    spread = Spread(median=100.0, low=90.0, high=120.0)
    sides = ("echo cq", "echo aio", "cq", "aio")
    rounds = [
        {
            "requests": 1000,
            "failed": 0,
            "p50_ms": 0.4,
            "p90_ms": 0.6,
            "p99_ms": 1.1,
            "p999_ms": 3.0,
            "max_ms": 4.0,
            "lag_p99_ms": 0.2,
            "void": void,
        }
        for void in (False, True)
    ]
    figures = [
        figure(
            "tiny: cq over its raw echo", "calls a second", [(17000, 32000), (18000, 31000)], limit=0.8, at_least=True
        ),
        figure("tiny: p99 on cq over aio's, closed loop", "ms", [(3.0, 14.0), (3.3, 13.0)], limit=0.3),
        figure(
            "mid: cq over 1/(1/echo + 1/ONNX Runtime: batches of 64, 1 threads)",
            "calls a second",
            [(12000, 23000)],
            limit=0.9,
            at_least=True,
        ),
    ]
    return {
        "figures": figures,
        "cpu_us": {model: dict.fromkeys(sides, spread) for model in ("tiny", "mid")},
        "closed_ms": {
            model: {
                side: {"p50_ms": 1.0 + at, "p99_ms": 3.0 + at, "p999_ms": 9.0 + at} for at, side in enumerate(sides)
            }
            for model in ("tiny", "mid")
        },
        "rates": {
            model: {side: Spread(median=9000.0 * (at + 1), low=8000, high=9900) for at, side in enumerate(sides)}
            for model in ("tiny", "mid")
        },
        "alone": {"tiny": "batches of 64, 1 threads", "mid": "batches of 64, all threads"},
        "open": {
            "one caller": {**dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "p999_ms"), spread), "rounds": rounds},
            "one caller back to back, a second": 1850.0,
            "ONNX Runtime alone, ms": spread,
        },
        "callers": 32,
        "quick": False,
        "seconds": 210.0,
        "grpcio": "1.85.3",
        "machine": "2 cores of some processor, 24 GiB",
        "checks": [
            Check(name=each.name, value=each.ratio.median, goal=f">= {each.limit:g}", ok=False) for each in figures
        ],
        "ok": False,
    }
