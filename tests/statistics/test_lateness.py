"""Whether the promise is kept when labels are late or never come, records are lost, gateways die, and clocks differ."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.promise import Promise
from tests.statistics.fleet import TICKS, Fleet, Trouble, replay
from tests.statistics.simulation import Bands, report, violations

RUNS, VIOLATIONS_MAX = 1_000, 63
# Ten seconds each on an idle core; a busy machine is no finding.
pytestmark = pytest.mark.timeout(600)
COVERAGE = np.array([0.4, 0.5, 0.7, 1.0])
TROUBLES = {
    "late": (0.05, Trouble()),
    "killed with its spool, clocks differ": (0.05, Trouble(down_seconds=40, skew=7)),
    "killed without its spool, clocks differ": (0.05, Trouble(lost=True, skew=7)),
    # So many errors that are only assumed leave no room below 5 %.
    "all of it, 5 % never, holes": (
        0.15,
        Trouble(never_share=0.05, hole_share=0.005, down_seconds=40, lost=True, skew=7),
    ),
}


def _fleet(name: str, *, runs: int, seed: int) -> Fleet:
    """Two thresholds at .3 alpha, then two at 1.02 alpha."""
    alpha, trouble = TROUBLES[name]
    bands = Bands(coverage=COVERAGE, risk=alpha * np.array([0.3, 0.3, 1.02, 1.02]))
    return Fleet(bands=bands, promise=Promise(alpha=alpha), audit_share=0.3, trouble=trouble, runs=runs, seed=seed)


@pytest.mark.parametrize("name", TROUBLES)
def test_the_promise_holds_in_trouble(name: str) -> None:
    """Errors take ten times as long as the rest, and more goes wrong: few runs certify what they must not."""
    fleet = _fleet(name, runs=RUNS, seed=47)
    state = fleet.run()
    assert (fleet.watermark == TICKS - 1).all()
    broken = violations(state, fleet.bands.risk, fleet.promise)
    safe = float((state.peaks[:, :2].min(axis=1) >= np.log(1 / fleet.promise.delta)).mean())
    report(f"{name}, alpha {fleet.promise.alpha}: {broken} of {RUNS} violate; both safe ones certified in {safe:.3f}")
    assert broken <= VIOLATIONS_MAX
    assert safe > 0.5


@pytest.mark.parametrize("name", TROUBLES)
def test_the_arrays_do_what_the_watermark_does(name: str) -> None:
    """A run of the simulation, sent row by row through the library, passes the same seconds and proves the same."""
    fleet = _fleet(name, runs=1, seed=48)
    fleet.run()
    for run in range(fleet.runs):
        state, passed = replay(fleet, run)
        assert [min(second, TICKS - 1) for second in passed] == [int(past[run]) for past in fleet.history]
        np.testing.assert_allclose(state.logs, fleet.state.logs[run], atol=1e-9)
        np.testing.assert_allclose(state.peaks, fleet.state.peaks[run], atol=1e-9)
