"""What strikes whom."""

from __future__ import annotations

import pytest

from benchmarks.chaos import plan
from benchmarks.chaos.plan import LEASE_SECONDS, Kind, Target, draw


def test_a_seed_draws_the_same_faults_again() -> None:
    """A run can be repeated; another seed or round is another run."""
    assert draw(7, 3) == draw(7, 3)
    assert draw(7, 3) != draw(8, 3)
    assert draw(7, 3) != draw(7, 4)


@pytest.mark.parametrize("seed", range(20))
def test_any_ten_rounds_have_every_process_and_every_fault(seed: int) -> None:
    """The server is among the processes; each round has at least three faults, a kill and a stop among them."""
    rounds = [draw(seed, number) for number in range(30)]
    assert plan.missing(rounds) == []
    for faults in rounds:
        assert len(faults) >= 3
        assert {Kind.KILL, Kind.STOP} < {fault.kind for fault in faults}
        assert faults[0].at == 0.0
        assert all(fault.seconds > LEASE_SECONDS for fault in faults if fault.kind is Kind.STOP)


def test_what_is_missing_is_named() -> None:
    """Ten rounds without the server are not enough."""
    rounds = [tuple(one for one in draw(1, number) if one.target is not Target.VALKEY) for number in range(10)]
    assert plan.missing(rounds) == ["rounds 0 to 9: no valkey"]
