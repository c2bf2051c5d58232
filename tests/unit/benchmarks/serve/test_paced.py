"""Open loops: what is sent when, and what is made of what became of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.serve import opened, paced, sender, sending
from benchmarks.serve.opened import Opened
from benchmarks.serve.paced import Lone
from benchmarks.serve.sender import Load
from benchmarks.serve.sending import Shots


def shots(latency_ms: list[float], *, lag_ms: float = 0.1, failed: int = 0) -> Shots:
    """Return columns of requests of which the last ones failed."""
    count = len(latency_ms)
    return Shots(
        due=np.arange(count) / 10,
        lag_ms=np.full(count, lag_ms),
        latency_ms=np.array(latency_ms),
        code=np.array([0] * (count - failed) + [14] * failed, np.int16),
        retry=np.zeros(count, np.bool_),
        version=np.zeros(count, np.int32),
        run=np.zeros((count, 3)),
    )


def found(p50_ms: float, p99_ms: float = 9.0, *, void: bool = False) -> Opened:
    """Return what an open loop found."""
    return Opened(100, 0, p50_ms, p50_ms, p99_ms, p99_ms, p99_ms, 0.1, void)


def test_arrivals_are_as_asked() -> None:
    """Evenly, or as a Poisson process that a seed draws, within the time."""
    given = Load(address="", payload=b"", rate=100.0, seconds_max=10.0, arrivals="constant")
    assert sender.due_times(given)[:3].tolist() == [0.0, 0.01, 0.02]
    drawn = sender.due_times(Load(address="", payload=b"", rate=100.0, seconds_max=10.0, seed=3))
    assert 850 < len(drawn) < 1150
    assert 9.8 < drawn[-1] < 10
    assert (np.diff(drawn) > 0).all()


def test_processes_share_a_load() -> None:
    """Callers as evenly as can be, none without one; rates evenly, each with arrivals of its own."""
    closed = Load(address="", payload=b"", callers=5, seconds_max=1.0, connections=4)
    assert [(each.callers, each.connections) for each in sending.shares(closed, 3)] == [(2, 2), (2, 2), (1, 1)]
    assert len(sending.shares(closed, 9)) == 5
    parts = sending.shares(Load(address="", payload=b"", rate=90.0, seconds_max=1.0, seed=4), 3)
    assert [(each.rate, each.callers, each.connections) for each in parts] == [(30.0, 0, 4)] * 3
    assert len({each.seed for each in parts}) == 3


def test_a_generator_that_lags_makes_its_run_void() -> None:
    """Latency counts what came back; failures are counted apart."""
    got = opened.judged(shots([*map(float, range(1, 101)), 900.0], failed=1))
    assert (got.requests, got.failed, got.p50_ms, got.max_ms, got.void) == (101, 1, 50.0, 100.0, False)
    assert opened.judged(shots([60.0] * 10, lag_ms=50.0)).void
    assert opened.judged(shots([])).p99_ms == 0.0


def test_latency_is_promised_of_medians_of_rounds_that_count() -> None:
    """A void one keeps no promise, and is seen."""
    lone = Lone(4000.0, [found(0.5), found(0.6), found(90.0, void=True)], [found(0.3)] * 3, [0.1] * 3)
    checks = paced.judge(lone, [found(1.0, 2.0), found(1.0, 4.0), found(1.0, 2.9)])
    assert [(each.value, each.ok) for each in checks] == [(1.375, False), (2.9, True), (1, False), (0, True)]
    said = paced.facts(lone, [found(1.0)])
    assert (said["one caller"]["p50_ms"].high, len(said["one caller"]["rounds"])) == (0.6, 3)
    assert paced.judge(Lone(1.0, [], [], []), [])[0].value == pytest.approx(float("inf"))
