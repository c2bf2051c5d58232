"""What `demur bench serve --target` finds: the object that `--json` prints. Pure data; its keys are stable.

Times end in their unit. Latencies are milliseconds: of an open loop from when a request was due, of a closed one from
when it was sent. Rates are per second. What is not known is null. Keys are only ever added, or `format` is raised.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from benchmarks.figures import Check, Spread

FORMAT: Final = 1

Scenario = Literal["single-stream", "server", "offline", "callers", "rates"]
SCENARIOS: Final[tuple[Scenario, ...]] = ("single-stream", "offline", "callers", "rates", "server")


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long the requests that were answered took, ms, to three significant digits; all 0 where none was.

    A percentile for which there are too few requests (p99.99 of fewer than 10,000) is that of the slowest.
    """

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    p9999_ms: float
    max_ms: float
    # By percentile, to plot: [percentile in [0, 100], ms], both rising, denser towards 100.
    curve: tuple[tuple[float, float], ...] = ()
    # The whole histogram, in HdrHistogram's compressed V2 encoding (base64) of microseconds, to be merged with others.
    hdr: str = ""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Where the mean request's time went, ms; the three add up to its latency.

    `transport_ms` is all that is neither: network, (de)serialisation, the client, and for a gateway its policy.
    """

    queue_ms: float
    compute_ms: float
    transport_ms: float
    # Who says so: "demur metrics", "Triton metrics" or "ModelStatistics".
    source: str


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU of this machine while a load ran, from nvidia-smi, about five times a second."""

    index: int
    name: str
    samples: int
    # Share of the time in which it did something, percent.
    utilisation_mean: float
    utilisation_max: float
    memory_mib_max: float
    # Null where the card does not say.
    power_w_mean: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One load, from its begin until what was sent is answered or given up."""

    # "open": requests come when they are due; "closed": so many callers, each asks again when it has its answer.
    loop: Literal["open", "closed"]
    client: Literal["demur", "h2load"]
    seconds: float
    # Of an open loop: requests a second that were asked for, Poisson. Null for a closed one.
    rate: float | None = None
    # Of a closed loop. Null for an open one.
    callers: int | None = None
    requests: int
    failed: int
    # How requests ended, by gRPC's code ("OK", "RESOURCE_EXHAUSTED"), "SHED" (the server's limit on streams left no
    # room) or "UNANSWERED".
    codes: dict[str, int]
    # Requests answered a second, and samples: rows of those.
    answered: float
    samples: float
    latency: Latency
    # How late requests were sent, ms: the generator's own fault. Null for a closed loop.
    lag_p99_ms: float | None = None
    # Why the run counts for nothing; empty for one that counts.
    void: str = ""
    # The server's processor time a request, microseconds. Null where the server is not on this machine.
    cpu_us: float | None = None
    split: Split | None = None
    # Empty where there is none, or the server is elsewhere.
    gpus: tuple[Gpu, ...] = ()


class SingleStream(msgspec.Struct, frozen=True, kw_only=True):
    """MLPerf's single stream: one caller, back to back; what counts is its p90."""

    p90_ms: float
    run: Run


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """MLPerf's server: the highest Poisson rate with p99 within the bound, searched, then verified.

    `rate` is 0 where no rate that was tried kept the bound, or none of those found could be verified.
    """

    bound_ms: float
    rate: float
    samples: float
    # What kept it from being higher: p99 over the bound, failed requests, or a generator that could not send more.
    limited_by: Literal["bound", "failures", "generator", "capacity"]
    # The runs of the search in their order, and of the verification at `rate`.
    searched: tuple[Run, ...]
    verified: tuple[Run, ...]


class Offline(msgspec.Struct, frozen=True, kw_only=True):
    """MLPerf's offline: samples (rows) a second with so many callers that the server is never idle."""

    samples: Spread
    callers: int
    runs: tuple[Run, ...]


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The same load at rising numbers of callers (closed loop), or at rising rates (open loop)."""

    points: tuple[Run, ...]


class Scenarios(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"single_stream": "single-stream"}
):
    """What was measured; a scenario that was not chosen is left out."""

    single_stream: SingleStream | None = None
    offline: Offline | None = None
    callers: Sweep | None = None
    rates: Sweep | None = None
    server: Server | None = None


class Voided(msgspec.Struct, frozen=True, kw_only=True):
    """A run that counts for nothing, and where it happened; `run.void` says why. It was made once more."""

    scenario: Scenario
    run: Run


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The server: what it says of itself, and its processes where it is on this machine."""

    address: str
    tls: bool
    name: str
    version: str
    extensions: tuple[str, ...]
    # The process that listens and its descendants. Empty where the server is elsewhere, or they cannot be told.
    pids: tuple[int, ...] = ()
    # What the first of them runs, e.g. "tritonserver".
    command: str = ""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: as the server declares it (-1: free), and as it is sent (null for an output)."""

    name: str
    datatype: str
    declared: tuple[int, ...]
    sent: tuple[int, ...] | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The model and the request that is sent, each time the same."""

    name: str
    version: str
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # Samples in one request.
    rows: int
    request_bytes: int
    reply_bytes: int


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What sends, always on `Result.machine`."""

    processes: int
    # Of each process.
    connections: int
    timeout_seconds: float
    # The C client that saturates ("h2load nghttp2/1.52.0"); empty where our own processes do.
    saturates: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole object."""

    target: Target
    model: Asked
    client: Client
    scenarios: Scenarios
    voided: tuple[Voided, ...]
    # What a reader has to know beside the figures, in sentences: "p99.99 is of few requests", "requests were deferred".
    notes: tuple[str, ...]
    # The machine that sends; where `target.pids` is not empty, also the one that serves.
    machine: str
    # When it began, in UTC (RFC 3339), and how long it took.
    begun: str
    seconds: float
    quick: bool
    checks: tuple[Check, ...]
    ok: bool
    format: int = FORMAT
