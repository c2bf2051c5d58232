"""One load against the target, and what the server did meanwhile: processor time, GPUs, queue and compute."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import grpc
import msgspec
import numpy as np

from benchmarks.serve import closed, latencies, opened, serving, splits
from benchmarks.serve.gpus import Watch
from benchmarks.serve.results import Run
from benchmarks.serve.sender import METHOD, UNANSWERED, Load
from benchmarks.serve.sending import READY_SECONDS, START_SECONDS, Shots, Worker, shoot
from benchmarks.serve.splits import Stages
from benchmarks.serve.target import Found, Wish, grpc_timeout
from benchmarks.serve.wire import OK, SHED
from fallback.errors import UnavailableError

# Of each process, in an open loop; a closed one has no more than callers.
CONNECTIONS: Final = 4
_CALLS_MIN: Final = 200
_LATE_SECONDS: Final = 1.0
_MICRO: Final = 1e6
_NAMES: Final = {
    **{code.value[0]: code.name for code in grpc.StatusCode},
    SHED: "SHED",
    UNANSWERED: "UNANSWERED",
}


class Seen(NamedTuple):
    """What was looked at before or after a load."""

    at: float
    cpu_seconds: float
    stages: Stages | None


class Bench:
    """Sends loads to one target from several processes."""

    def __init__(self, found: Found, wish: Wish, crew: Sequence[Worker], watch: Watch) -> None:
        self._found = found
        self._crew = crew
        self._watch = watch
        self._seed = 0
        self._wait_seconds = START_SECONDS
        self._headers = (*wish.metadata, ("grpc-timeout", grpc_timeout(wish.timeout_seconds)))
        self._wish = wish
        # Whether the C client saturates: it is there, and can count answers, all being of one length.
        self.c_client = bool(closed.version()) and found.steady

    def open(self, rate: float, seconds: float) -> Run:
        """Send at `rate` a second, Poisson."""
        return self._sent(seconds, rate=rate)

    def closed(self, callers: int, seconds: float) -> Run:
        """Have so many callers ask, each again when it has its answer."""
        return self._sent(seconds, callers=callers)

    def saturated(self, callers: int, seconds: float, guess: float) -> Run:
        """Do as `closed` with the C client where there is one; it makes as many calls as `guess` a second needs."""
        if not self.c_client:
            return self.closed(callers, seconds)
        connections = min(CONNECTIONS, callers)
        calls = max(_CALLS_MIN, int(guess * seconds))
        before = self._look()
        found = closed.saturate(
            self._wish.address,
            METHOD,
            self._found.payload,
            calls=calls,
            connections=connections,
            streams=max(1, callers // connections),
            metadata=self._headers,
            tls=self._wish.ca is not None,
            answer_bytes=self._found.model.reply_bytes,
        )
        after = self._look()
        answered = calls - found.failed
        whole = Run(
            loop="closed",
            client="h2load",
            seconds=round(calls / found.rate, 3),
            callers=callers,
            requests=calls,
            failed=found.failed,
            codes={name: count for name, count in (("OK", answered), ("UNKNOWN", found.failed)) if count},
            answered=short(found.rate * answered / calls),
            samples=short(found.rate * answered / calls * self._found.model.rows),
            latency=latencies.latency(latencies.histogram(np.array(found.took_ms))),
        )
        return self._beside(whole, before, after)

    def _sent(self, seconds: float, **how: Any) -> Run:
        wish, self._seed = self._wish, self._seed + 1
        given = Load(
            address=wish.address,
            payload=self._found.payload,
            seconds_max=seconds,
            late_seconds=wish.timeout_seconds + _LATE_SECONDS,
            seed=self._seed,
            connections=CONNECTIONS,
            metadata=self._headers,
            ca=wish.ca,
            **how,
        )
        before = self._look()
        shots = shoot(self._crew, given, wait_seconds=self._wait_seconds)
        after = self._look()
        self._wait_seconds = READY_SECONDS
        return self._beside(run_of(shots, given, rows=self._found.model.rows), before, after)

    def _look(self) -> Seen:
        source = self._found.source
        cpu = serving.cpu_seconds(self._found.target.pids)
        return Seen(time.monotonic(), cpu, None if source is None else source.read())

    def _beside(self, run: Run, before: Seen, after: Seen) -> Run:
        """Return the run with what the server did."""
        source, cpu = self._found.source, after.cpu_seconds - before.cpu_seconds
        return msgspec.structs.replace(
            run,
            cpu_us=short(_MICRO * cpu / run.requests) if self._found.target.pids and run.requests else None,
            split=source
            and splits.between(before.stages, after.stages, mean_ms=run.latency.mean_ms, source=source.name),
            gpus=self._watch.between(before.at, after.at),
        )


def run_of(shots: Shots, given: Load, *, rows: int) -> Run:
    """Return what our own processes found. Pure."""
    back = shots.code == OK
    ends = shots.due + shots.latency_ms / 1000
    # A closed loop ends with its last answers; what comes late in an open one took place in that time too.
    span = max(given.seconds_max, float(ends[back].max(initial=0.0)))
    answered = int(back.sum()) / span
    lag = None if given.callers else opened.quantile(shots.lag_ms, 0.99)
    late = lag is not None and lag > opened.LAG_P99_MS_MAX
    return Run(
        loop="closed" if given.callers else "open",
        client="demur",
        seconds=round(span, 3),
        rate=None if given.callers else short(given.rate),
        callers=given.callers or None,
        requests=len(shots.due),
        failed=int((~back).sum()),
        codes=codes(shots),
        answered=short(answered),
        samples=short(answered * rows),
        latency=latencies.latency(latencies.histogram(shots.latency_ms[back])),
        lag_p99_ms=lag,
        void=f"the generator sent {lag:g} ms late (p99), more than {opened.LAG_P99_MS_MAX:g}" if late else "",
    )


def codes(shots: Shots) -> dict[str, int]:
    """Return how many requests ended in which way, the most frequent first."""
    counted = Counter(shots.code.tolist())
    return {_NAMES.get(code, str(code)): count for code, count in counted.most_common()}


def short(value: float) -> float:
    """Return four significant digits of it."""
    return float(f"{value:.4g}")


def attempted(make: Callable[[], Run], voided: Callable[[Run], None]) -> Run:
    """Return a run, made once more where it is void; what is void is told."""
    run = make()
    if run.void:
        voided(run)
        run = make()
        if run.void:
            voided(run)
    return run


def expect_requests(run: Run) -> None:
    """Raise UnavailableError where nothing came back at all."""
    if run.requests and run.failed == run.requests:
        ways = ", ".join(f"{count} {name}" for name, count in run.codes.items())
        raise UnavailableError(f"none of {run.requests} requests was answered: {ways}")
