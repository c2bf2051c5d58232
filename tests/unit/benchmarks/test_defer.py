"""What `demur bench defer` makes of what it sees."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import bench_defer
from benchmarks.serve import deferred, measures, models
from benchmarks.serve.closed import Closed
from benchmarks.serve.deferred import Loop, Measured, Paced
from benchmarks.serve.opened import Opened
from demur import kserve


def loop(rate: float, cpu_us: float, *, parked: int = 0, expected: float = 0.0, failed: int = 0) -> Loop:
    """Return a loop of a made-up gateway."""
    return Loop(
        Closed(rate, 1.0, 2.0, 3.0, failed), Closed(rate / 19, 1.0, 2.0, 3.0, 0), cpu_us, 5.0, parked, expected, 0.1
    )


def paced(answered_ms: float, parked_ms: float, bare_ms: float) -> Paced:
    """Return a round at a low rate."""
    answered, parked = (Opened(100, 0, ms, ms, ms, ms, ms, 0.1, void=False) for ms in (answered_ms, parked_ms))
    return Paced(answered, parked, bare_ms)


def found(**changes: Any) -> Measured:
    """Return a gateway that keeps its promises, but for `changes`."""
    good = Measured(
        "tiny",
        [loop(1000, 50.0), loop(1100, 50.0)],
        [loop(990, 52.0, parked=100, expected=100.0), loop(1089, 52.0, parked=95, expected=100.0)],
        [paced(1.0, 2.2, 1.0), paced(1.0, 2.4, 1.0)],
    )
    return good._replace(**changes)


def test_what_is_answered_is_compared_round_by_round() -> None:
    """And what who is parked waits longer with a bare write."""
    rates, waits = deferred.figures(found())
    assert (rates.ratio.median, rates.ratio.low) == (0.99, 0.99)
    assert (waits.ratio.low, waits.ratio.high) == (1.2, 1.4)
    assert all(check.ok for check in deferred.checks(found()))


def test_a_promise_that_is_not_kept_is_told() -> None:
    """Each by a check of its own: less answered, a longer wait, a failed call, rows that were not parked."""
    plain, slow = [loop(1000, 50.0)], [loop(960, 50.0, parked=100, expected=100.0)]
    lost, failing = ([loop(1000, 50.0, parked=70, expected=100.0, failed=count)] for count in (0, 1))
    cases = (
        (found(plain=plain, deferring=slow), "over none"),
        (found(paced=[paced(1.0, 2.6, 1.0)]), "over a bare write"),
        (found(plain=plain, deferring=lost), "furthest from what was meant"),
    )
    for case, name in cases:
        assert [check.name.endswith(name) for check in deferred.checks(case) if not check.ok] == [True]
    assert sum(not check.ok for check in deferred.checks(found(plain=plain, deferring=failing))) == 2


def test_a_row_for_people_is_told_by_what_it_takes() -> None:
    """The gateway's processor time more, for all rows that are parked or audited."""
    got = bench_defer.summary([found()], quick=True, seconds=1.0)
    assert got["ok"] is True
    told = got["tiny"]
    assert isinstance(told, dict)
    assert (told["row_us"], told["parked"]) == (20.5, 195)


def test_a_model_can_only_guess_at_a_row_of_zeros() -> None:
    """Its confidence is that of a blind guess, far below what is answered."""
    asked = kserve.ModelInferRequest.FromString(measures.asked("tiny", doubtful=True))
    row = np.frombuffer(asked.raw_input_contents[0], np.float32).reshape(1, -1)
    said = measures._loaded("tiny", 1).run({"x": row})["p"]
    assert said.max() < models.THRESHOLD
