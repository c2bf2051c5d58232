"""`demur demo` and `demur bench`: see the loop work, and measure it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.serve import options

STREAM = 1200

demo = typer.Typer(help="See the whole loop work, by itself, on real data.", no_args_is_help=True)
bench = typer.Typer(help="Measure latency under open-loop load.", no_args_is_help=True)

_RUNNING_HELP = "Use the stack that runs on this data folder, or start one of its own in a temporary folder and end it."
Running = Annotated[bool, typer.Option("--running/--own", help=_RUNNING_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Progress to stderr; the last line of stdout is one object.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Draws what the run leaves to chance.")]
_KEEP_HELP = "Keep everything of the run in this empty folder: data, logs, journals, picture."
Keep = Annotated[Path | None, typer.Option("--keep", help=_KEEP_HELP, show_default=False)]
_quick = partial(typer.Option, "--quick")
_models = partial(typer.Option, "--model", show_default=False)


@demo.callback()
@bench.callback()
def group() -> None:
    """Make a group of commands even while it has but one."""


@demo.command()
def digits(
    *,
    json: Json = False,
    running: Running = False,
    requests: Annotated[
        int, typer.Option(min=1, max=STREAM, help="How many digits to stream; fewer may not bring two new versions.")
    ] = STREAM,
    seed: Seed = 1,
    keep: Keep = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Where to write the picture, a PNG. [default: <data folder>/demo/]", show_default=False),
    ] = None,
) -> None:
    """Stream handwritten digits; people answer what the model is unsure of; it learns and is swapped while they come.

    Clients, reviewers and a receiver of callbacks are processes of their own, and every count comes from them. Ends
    with 1 unless every promise holds: exactly one outcome for every deferral, every callback arrived, no request
    failed, at least two hot swaps, and a last version better than the first on digits that were never trained on.
    """
    from benchmarks.demo import command

    ok = command.run(as_json=json, running=running, requests=requests, seed=seed, keep=keep, to=picture)
    raise typer.Exit(0 if ok else 1)


@demo.command()
def stream(
    *,
    scores: Annotated[
        Path, typer.Option(help="An .npy file (rows, classes): what a model says, probabilities or logits.")
    ],
    labels: Annotated[Path, typer.Option(help="An .npy file (rows): the true class of each.")],
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5, help="At most this share of the answers wrong.")],
    delta: Annotated[float, typer.Option(min=1e-9, max=0.5, help="The promise may fail with this probability.")] = 0.05,
    audit_share: Annotated[float, typer.Option(min=1e-3, max=1, help="Share of the answers that people check.")] = 0.2,
    requests: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many rows to draw, with replacement.")
    ] = 5000,
    error_rate: Annotated[float, typer.Option(min=0, max=1, help="How often each reviewer is wrong.")] = 0.01,
    people: Annotated[int, typer.Option(min=4, max=60, help="How many people review.")] = 6,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="Requests a second at most.")] = 150.0,
    seed: Seed = 1,
    keep: Keep = None,
    json: Json = False,
) -> None:
    """Replay any model's scores through the real gateway, queue, ledger and certificate, with simulated people.

    A stack of its own is started for it and ended. What is asked for is alpha; which requests are answered is the
    certificate's business. Every threshold that comes into force is compared with the truth that only the files know.
    Ends with 1 unless every promise holds.
    """
    from benchmarks.demo.stream import command

    wish = command.Wish(
        scores=scores,
        labels=labels,
        alpha=alpha,
        delta=delta,
        audit_share=audit_share,
        requests=requests,
        error_rate=error_rate,
        people=people,
        per_second=rate,
        seed=seed,
        as_json=json,
        keep=keep,
    )
    raise typer.Exit(0 if command.run(wish) else 1)


@bench.command()
def serve(
    *,
    target: options.Address = None,
    model: Annotated[list[str] | None, _models(help="tiny, mid or conv, all unless said; the target's model.")] = None,
    scenario: options.Scenarios = None,
    bound: options.BoundMs = 10.0,
    shape: options.Shapes = None,
    rows: options.Rows = None,
    callers: options.Callers = None,
    seconds: options.Seconds = None,
    processes: options.Processes = None,
    timeout: options.TimeoutSeconds = 10.0,
    ca: options.Authorities = None,
    metadata: options.Metadata = None,
    pid: options.Pid = None,
    metrics: options.Metrics = None,
    html: Annotated[
        Path | None, typer.Option(help="A file for the report: plots and tables on one page.", show_default=False)
    ] = None,
    json: Json = False,
    quick: Annotated[bool, _quick(help="Fewer and shorter runs: to see it work.")] = False,
) -> None:
    """Measure the gateway on each transport against raw echoes and ONNX Runtime alone, all in one run; or a target.

    Throughput is closed loop, 32 callers of a client in C (h2load); latency is open loop, from when each request was
    due. Policy, metrics and audits are on. Ends with 1 unless every promise holds.

    With --target any KServe v2 gRPC server is measured, with random requests of what its model declares, in MLPerf's
    scenarios and two sweeps. Ends with 1 if a request failed, or a figure cannot be believed.

    Example: demur bench serve --model tiny --json

    Example: demur bench serve --target localhost:8001 --model resnet --shape input=1,3,224,224 --bound 20
    """
    from benchmarks import bench_serve, bench_target
    from benchmarks.serve.report import writing

    writing.expect(html)
    if target is None:
        bench_target.expect_none(scenario, shape, rows, callers, seconds, processes, ca, metadata, pid, metrics)
        ok = bench_serve.run(names=bench_serve.named(model), as_json=json, quick=quick, html=html)
        raise typer.Exit(0 if ok else 1)
    wished = bench_target.wish(
        to=target,
        models=model or (),
        shapes=shape or (),
        metadata=metadata or (),
        rows=rows,
        timeout_seconds=timeout,
        ca=None if ca is None else str(ca),
        pid=pid,
        metrics=metrics,
    )
    ordered = bench_target.order(
        chosen=scenario or (),
        bound_ms=bound,
        processes=processes,
        callers=callers,
        seconds=seconds,
        quick=quick,
        as_json=json,
    )
    raise typer.Exit(0 if bench_target.run(wished, ordered, html=html) else 1)


@bench.command()
def swap(
    *,
    model: Annotated[str, typer.Option(help="tiny, mid or conv.")] = "tiny",
    transport: Annotated[str, typer.Option(help="cq or aio.")] = "cq",
    json: Json = False,
    quick: Annotated[bool, _quick(help="Fewer swaps: to see it work.")] = False,
) -> None:
    """Swap a model fifty times under open-loop load at 60 % of capacity, with broken versions in between.

    Both versions say in their answers which of them ran, and in which batch. A window runs from the load request until
    the old version is freed. Ends with 1 unless every promise holds.
    """
    from benchmarks import bench_serve, bench_swap

    (name,) = bench_serve.named([model])
    raise typer.Exit(0 if bench_swap.run(name=name, transport=transport, as_json=json, quick=quick) else 1)


@bench.command()
def overload(
    *,
    model: Annotated[list[str] | None, _models(help="tiny or conv; both unless said.")] = None,
    json: Json = False,
    quick: Annotated[bool, _quick(help="Shorter: to see it work.")] = False,
) -> None:
    """Send twice as many requests as can be answered, open loop, with a calm load before, within and after.

    conv is refused by its queue's limit, tiny shed by the limit on streams: its figures are told, not promised. Ends
    with 1 unless every promise holds.
    """
    from benchmarks import bench_overload, bench_serve

    names = bench_serve.named(model or [*bench_overload.MODELS])
    raise typer.Exit(0 if bench_overload.run(names=names, as_json=json, quick=quick) else 1)


@bench.command()
def defer(
    *,
    model: Annotated[list[str] | None, _models(help="tiny, mid or conv; all of them unless said.")] = None,
    json: Json = False,
    quick: Annotated[bool, _quick(help="One short round: to see it work.")] = False,
) -> None:
    """Measure what is answered while 5 % is parked and 5 % audited, against the same traffic with neither, in turns.

    32 callers, closed loop, with calls beside that the model is sure of on one side and not on the other. And at a low
    rate, how much longer who is parked waits than who is answered, against a bare script's write to the same server.
    Ends with 1 unless every promise holds.
    """
    from benchmarks import bench_defer, bench_serve

    raise typer.Exit(0 if bench_defer.run(names=bench_serve.named(model), as_json=json, quick=quick) else 1)


@bench.command()
def gpu(
    *,
    json: Json = False,
    cpu: Annotated[
        bool,
        typer.Option("--cpu", help="Try the same code out on the CPU, in a few seconds: it shows nothing of a GPU."),
    ] = False,
) -> None:
    """Check and measure all that needs an NVIDIA GPU: providers, answers, refusals, swaps, memory, batches, serving.

    benchmarks/gpu.sh installs what it wants and runs it. Ends with 1 unless every promise holds, with 77 where there is
    no GPU.
    """
    from benchmarks import bench_gpu

    raise typer.Exit(bench_gpu.run(as_json=json, cpu=cpu))


@bench.command()
def predict(
    *,
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="Requests a second on average, Poisson.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long to send.")] = 10.0,
    callers: Annotated[int, typer.Option(min=1, max=64, help="Processes that send.")] = 2,
    json: Json = False,
    running: Running = False,
    seed: Seed = 1,
) -> None:
    """Measure Predict from when each request was due, sent late or not; a generator that lags makes the run void.

    A digit a request, to a digits model of the run's own whose policy answers everything, so that nothing is parked
    and nobody's queue is touched. Ends with 1 if a request failed or the run is void.
    """
    from benchmarks import bench_predict

    ok = bench_predict.run(rate=rate, seconds=seconds, callers=callers, as_json=json, running=running, seed=seed)
    raise typer.Exit(0 if ok else 1)


@bench.command("queue")
def review_queue(
    *,
    json: Json = False,
    quick: Annotated[bool, _quick(help="Smaller: 50,000 waiting items, 5,000 lapsed leases.")] = False,
) -> None:
    """Measure the review queue against bare commands of the same client on the same server, in turns in one run.

    The server is the embedded one, started for the run, with every write on the disk before it is answered; payloads
    are 1 KiB; each ratio is the median of five rounds. Ends with 1 unless every promise holds.
    """
    from benchmarks import bench_queue

    raise typer.Exit(0 if bench_queue.run(as_json=json, quick=quick) else 1)


@bench.command()
def chaos(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="How many rounds, of at most 8 s each.")] = 15,
    seed: Seed = 1,
    json: Json = False,
    keep: Keep = None,
) -> None:
    """Kill, stop and cut off real processes at moments that the seed draws, and check what everybody saw.

    A gateway, two review replicas, reviewers, clients and a receiver of callbacks on an embedded Valkey of the run's
    own; in each round at least 200 deferrals are in flight. Ends with 1 unless every promise held: one outcome for
    every accepted deferral, one live lease a slot, no effect of a stale token, every outcome told, nothing left over.
    """
    from benchmarks.chaos import command

    raise typer.Exit(0 if command.run(rounds=rounds, seed=seed, as_json=json, keep=keep) else 1)


@bench.command("report")
def html_report(
    *,
    run: Annotated[
        Path, typer.Argument(metavar="RUN.json", help="What `demur bench serve --json` or benchmarks/gpu.sh printed.")
    ],
    html: Annotated[Path | None, typer.Option(help="Where to write the page.", show_default=False)] = None,
    plots: Annotated[
        Path | None, typer.Option(help="A folder for the plots, each an SVG of its own.", show_default=False)
    ] = None,
) -> None:
    """Make the HTML report of a run that was kept, or its plots one by one; nothing is measured.

    The page is one file that needs nothing beside it. Plots are named after the file: RUN-percentiles.svg.

    Example: demur bench report tiny.json --html tiny.html
    """
    from benchmarks.serve.report import writing

    for written in writing.again(run, html=html, plots=plots):
        typer.echo(str(written))
