"""Open-loop load: the schedule and the judgement."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import load
from benchmarks.load import Shot


def shot(due: float, *, lag_ms: float = 0.5, latency_ms: float = 2.0, failed: bool = False) -> Shot:
    return Shot(due_seconds=due, lag_ms=lag_ms, latency_ms=latency_ms, failed=failed)


def test_arrivals_come_at_the_rate_and_at_times_that_have_no_memory() -> None:
    """A Poisson process: the mean gap is 1 / rate, and so is its deviation."""
    times = load.arrivals(200.0, 100.0, seed=3)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 100


def test_the_same_seed_draws_the_same_schedule() -> None:
    """And another draws another."""
    assert load.arrivals(10, 5, seed=1) == load.arrivals(10, 5, seed=1) != load.arrivals(10, 5, seed=2)


def test_a_run_that_kept_its_times_is_believed() -> None:
    """Ten a second for ten seconds, all back."""
    got = load.summary([shot(n / 10) for n in range(100)], rate=10, seconds=10, facts={"machine": "m"})
    assert (got["ok"], got["void"], got["requests"], got["achieved_rate"]) == (True, False, 100, 10.0)
    assert (got["p50_ms"], got["p999_ms"], got["machine"]) == (2.0, 2.0, "m")


def test_a_generator_that_lags_makes_the_run_void() -> None:
    """It measured itself, not the gateway."""
    got = load.summary([shot(n / 10, lag_ms=50.0) for n in range(100)], rate=10, seconds=10, facts={})
    assert (got["ok"], got["void"]) == (False, True)


def test_a_rate_that_was_not_achieved_makes_the_run_void() -> None:
    """Replies that come long after the end lower the rate that was achieved."""
    got = load.summary([shot(n / 10, latency_ms=10_000) for n in range(100)], rate=10, seconds=10, facts={})
    assert (got["ok"], got["void"]) == (False, True)


def test_a_failed_request_is_no_latency_and_fails_the_run() -> None:
    """A quick refusal must not look like a quick answer."""
    shots = [shot(n / 10) for n in range(99)] + [shot(9.9, latency_ms=0.01, failed=True)]
    got = load.summary(shots, rate=10, seconds=10, facts={})
    assert (got["ok"], got["void"], got["failed_requests"], got["p50_ms"]) == (False, False, 1, 2.0)


def test_a_draw_below_the_mean_is_not_held_against_the_run() -> None:
    """What counts is how much of what was offered came back, not how much the draw offered."""
    got = load.summary([shot(n / 9) for n in range(90)], rate=10, seconds=10, facts={})
    assert (got["ok"], got["offered_rate"], got["achieved_rate"]) == (True, 9.0, 9.0)
