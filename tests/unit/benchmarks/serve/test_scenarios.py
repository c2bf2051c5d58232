"""Scenarios on a made-up server: it answers so many a second, and the more of them the slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.serve import latencies, runs, scenarios, search
from benchmarks.serve.results import Run, Scenario, Scenarios
from benchmarks.serve.scenarios import Course, Size
from benchmarks.serve.search import Bounds
from benchmarks.serve.sender import UNANSWERED, Load
from benchmarks.serve.wire import SHED
from fallback.errors import UnavailableError
from tests.unit.benchmarks.serve.test_paced import shots

CAPACITY = 1000.0
SIZE = Size(seconds=1.0, rounds=3, callers=6, shares=(0.5, 0.9))


def made(**changed: Any) -> Run:
    """Return a run of which everything came back at once."""
    took = latencies.latency(latencies.histogram(np.full(100, changed.pop("ms", 1.0))))
    plain = Run(
        loop="open", client="demur", seconds=1.0, requests=100, failed=0, codes={}, answered=1, samples=1, latency=took
    )
    return msgspec.structs.replace(plain, **changed)


class Fake:
    """Latency is 1 ms over the share of the capacity that is left; what is asked is kept."""

    def __init__(self, *, late_above: float = np.inf, worse_again: float = 0.0) -> None:
        self.rates: list[float] = []
        self.seconds: list[float] = []
        self._late_above = late_above
        self._worse = worse_again

    def open(self, rate: float, seconds: float) -> Run:
        """Answer at a rate."""
        self.rates.append(rate)
        self.seconds.append(seconds)
        ms = 1 / max(1e-3, 1 - rate / CAPACITY) + (self._worse if self.rates.count(rate) > 3 else 0)
        void = "late" if rate > self._late_above else ""
        return made(rate=rate, ms=ms, answered=rate, samples=2 * rate, void=void, lag_p99_ms=0.1)

    def closed(self, callers: int, seconds: float) -> Run:
        """Answer callers."""
        del seconds
        return made(loop="closed", callers=callers, answered=CAPACITY, samples=CAPACITY)

    def saturated(self, callers: int, seconds: float, guess: float) -> Run:
        """Answer as many as there are."""
        assert guess == CAPACITY
        return self.closed(callers, seconds)


def gone(fake: Fake, *chosen: Scenario, bound_ms: float = 5.0) -> tuple[Scenarios, Course]:
    """Go through scenarios."""
    course = Course(fake, SIZE, bound_ms=bound_ms, tell=lambda _: None)
    return course.go(chosen), course


def test_the_highest_rate_within_the_bound_is_found_and_verified_five_times() -> None:
    """1 / (1 - x) is 5 at .8 of the capacity."""
    found, _ = gone(Fake(), "server")
    assert found.server is not None
    assert 0.95 * 800 <= found.server.rate <= 800
    assert (found.server.limited_by, len(found.server.verified)) == ("bound", 5)
    assert found.server.samples == pytest.approx(2 * found.server.rate, rel=1e-3)
    assert all(run.latency.p99_ms <= 5.0 for run in found.server.verified)
    assert found.offline is None
    assert [each.ok for each in scenarios.checks(found, given_up=0)] == [True, True, True]


def test_a_rate_that_cannot_be_verified_is_lowered() -> None:
    """The runs that failed stand among the searched ones; the verified ones are all of one rate."""
    fake = Fake(worse_again=0.9)
    found, _ = gone(fake, "server")
    assert found.server is not None
    assert found.server.rate < 0.9 * 800
    assert (len(found.server.verified), found.server.limited_by) == (5, "bound")
    assert {run.rate for run in found.server.verified} == {fake.rates[-1]}


def test_a_bound_that_no_rate_keeps_has_none() -> None:
    """And the check says so."""
    found, _ = gone(Fake(), "server", bound_ms=0.5)
    assert found.server is not None
    assert (found.server.rate, found.server.verified, found.server.limited_by) == (0.0, (), "bound")
    assert [each.ok for each in scenarios.checks(found, given_up=0)] == [True, True, False]


def test_a_generator_that_lags_is_not_taken_for_a_server_that_does() -> None:
    """Void runs are made once more, kept apart, and limit what can be said."""
    found, course = gone(Fake(late_above=600.0), "server", "rates")
    assert found.server is not None
    assert found.server.limited_by == "generator"
    assert 0.9 * 600 <= found.server.rate <= 600
    assert found.rates is not None
    assert [run.rate for run in found.rates.points] == [500.0]
    assert course.given_up == 1
    assert [each.run.rate for each in course.voided if each.scenario == "rates"] == [900.0, 900.0]
    assert not scenarios.checks(found, given_up=course.given_up)[1].ok


def test_sweeps_and_saturation_and_a_lone_caller() -> None:
    """Callers double up to the most; the rates are shares of what saturates."""
    found, _ = gone(Fake(), "single-stream", "offline", "callers", "rates")
    assert found.single_stream is not None
    assert found.single_stream.run.callers == 1
    assert found.offline is not None
    assert (found.offline.samples.median, len(found.offline.runs)) == (CAPACITY, 3)
    assert found.callers is not None
    assert [run.callers for run in found.callers.points] == [1, 2, 4, 6]
    assert found.rates is not None
    assert [run.rate for run in found.rates.points] == [500.0, 900.0]
    assert set(msgspec.to_builtins(found)) == {"single-stream", "offline", "callers", "rates"}


def test_a_slow_rate_is_measured_for_longer() -> None:
    """So that there are requests to judge it by, within limits."""
    fake = Fake()
    course = Course(fake, SIZE, bound_ms=5.0, tell=lambda _: None)
    for rate in (1000.0, 100.0, 1.0):
        course._open("rates", rate)
    assert fake.seconds == [1.0, 2.0, 5.0]


def test_nothing_answered_is_said_at_once() -> None:
    """With how the requests ended."""
    with pytest.raises(UnavailableError, match="none of 100 requests was answered: 100 UNAVAILABLE"):
        runs.expect_requests(made(failed=100, codes={"UNAVAILABLE": 100}))


def test_what_became_of_requests_is_a_run() -> None:
    """Codes by name, rates over the time until the last answer, and whether the generator lagged."""
    found = shots([1.0, 1.0, 1.0, 5000.0], failed=0)
    given = Load(address="", payload=b"", rate=4.0, seconds_max=1.0)
    run = runs.run_of(found, given, rows=3)
    assert (run.requests, run.failed, run.codes) == (4, 0, {"OK": 4})
    assert (run.seconds, run.answered, run.samples) == (5.3, 0.7547, 2.264)
    assert (run.loop, run.rate, run.callers, run.lag_p99_ms, run.void) == ("open", 4.0, None, 0.1, "")
    assert runs.run_of(shots([1.0], lag_ms=20.0), given, rows=1).void
    found.code[:] = [0, SHED, UNANSWERED, 8]
    assert runs.codes(found) == {"OK": 1, "SHED": 1, "UNANSWERED": 1, "RESOURCE_EXHAUSTED": 1}
    closed = runs.run_of(found, msgspec.structs.replace(given, callers=4), rows=1)
    assert (closed.loop, closed.callers, closed.lag_p99_ms, closed.failed) == ("closed", 4, None, 3)


def test_a_run_is_a_line_for_people() -> None:
    """With what failed, and the processor time where it is known."""
    assert scenarios.line(made(callers=1, answered=900)) == "1 caller: 900 answered a second; p50 1, p90 1, p99 1 ms"
    said = scenarios.line(made(rate=5.0, failed=2, cpu_us=70.0))
    assert said.startswith("5 a second: ")
    assert said.endswith("; 2 of 100 failed; 70 us of processor a request")
    assert scenarios.line(made(rate=5.0, void="late")) == "5 a second: void, late"


def steps(limit: float) -> Sequence[float]:
    """Return what is tried where rates up to `limit` keep the bound."""
    bounds, tried = Bounds(0.0, 1000.0), []
    while (rate := search.following(bounds)) is not None:
        tried.append(rate)
        bounds = search.learnt(bounds, rate, None if rate <= limit else "bound")
    return tried


def test_the_search_halves_what_it_does_not_know() -> None:
    """And ends where that is little, or after so many tries."""
    assert list(steps(2000.0)) == [700.0, 850.0, 925.0, 962.5]
    assert list(steps(0.0))[:3] == [700.0, 350.0, 175.0]
    assert len(steps(0.0)) == search.TRIES_MAX
