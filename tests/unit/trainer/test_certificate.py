from __future__ import annotations

from itertools import pairwise
from math import exp, log, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fallback.errors import InvalidError
from gateway.promise import HEAD_COVERAGES, STAKES, WALK_COVERAGE, Promise, lifetime_delta
from trainer.certificate import (
    Evidence,
    Floats,
    advance,
    begin,
    certified,
    error_bound,
    grid,
    log_evidence,
    tau,
    walk,
)

THRESHOLDS = np.array([0.9, 0.5, 0.1])


def _evidence(seed: int, count: int, *, error: float = 0.05) -> Evidence:
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 0.1, 1.0], count)
    return Evidence(confidence=rng.random(count), weight=weight, error=(rng.random(count) < error).astype(np.float64))


def _plain(evidence: Evidence, threshold: float, alpha: float) -> list[float]:
    """Return K after every record, as the formula reads."""
    products, values = [1.0] * len(STAKES), []
    for confidence, weight, error in zip(evidence.confidence, evidence.weight, evidence.error, strict=True):
        x = weight * (error - alpha) if confidence >= threshold else 0.0
        products = [product * (1 - kappa / (1 - alpha) * x) for product, kappa in zip(products, STAKES, strict=True)]
        values.append(sum(products) / len(STAKES))
    return values


def test_it_is_the_formula() -> None:
    """K and its supremum are what the definition says, record by record."""
    evidence = _evidence(1, 700)
    state = advance(begin(3), evidence, THRESHOLDS, 0.05)
    for number, threshold in enumerate(THRESHOLDS):
        values = _plain(evidence, float(threshold), 0.05)
        assert exp(log_evidence(state)[number]) == pytest.approx(values[-1])
        assert exp(state.peaks[number]) == pytest.approx(max(1.0, *values))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 600), max_size=5))
def test_it_does_not_matter_where_the_ledger_is_cut(cuts: list[int]) -> None:
    """Counting in parts comes to the same as counting at once."""
    evidence = _evidence(2, 600)
    whole, parts = advance(begin(3), evidence, THRESHOLDS, 0.05), begin(3)
    edges = [0, *sorted(cuts), 600]
    for first, last in pairwise(edges):
        part = Evidence(
            confidence=evidence.confidence[first:last],
            weight=evidence.weight[first:last],
            error=evidence.error[first:last],
        )
        parts = advance(parts, part, THRESHOLDS, 0.05)
    np.testing.assert_allclose(parts.logs, whole.logs, atol=1e-9)
    np.testing.assert_allclose(parts.peaks, whole.peaks, atol=1e-9)


def test_sums_of_logarithms_add_up() -> None:
    """Two parts that know nothing of each other give the sums of the whole; only the supremum needs the order."""
    first, second = _evidence(3, 300), _evidence(4, 300)
    both = advance(advance(begin(3), first, THRESHOLDS, 0.05), second, THRESHOLDS, 0.05)
    alone = [advance(begin(3), part, THRESHOLDS, 0.05) for part in (first, second)]
    np.testing.assert_allclose(alone[0].logs + alone[1].logs, both.logs, atol=1e-9)


@given(
    weight=st.floats(0, 1),
    alpha=st.floats(0.001, 0.5),
    risk=st.floats(0, 1),
    q=st.floats(0.01, 1),
)
def test_no_bet_wins_on_average_where_the_promise_fails(weight: float, alpha: float, risk: float, q: float) -> None:
    """Over draw and error, a factor's mean is at most 1 for every risk of alpha or more, and no factor is negative."""
    risk = max(risk, alpha)
    floor = weight * q
    for kappa in STAKES:
        wrong = 1 - kappa * floor / (1 - alpha) / q * (1 - alpha)
        right = 1 + kappa * floor / (1 - alpha) / q * alpha
        assert min(wrong, right) >= 1 - max(STAKES) - 1e-12
        assert (1 - q) + q * (risk * wrong + (1 - risk) * right) <= 1 + 1e-12


def test_an_undrawn_record_changes_nothing_and_an_unknown_one_counts_everywhere() -> None:
    """Weight 0 is a factor of 1; an infinite confidence is above every threshold."""
    nothing = Evidence(confidence=np.ones(5), weight=np.zeros(5), error=np.ones(5))
    np.testing.assert_array_equal(advance(begin(3), nothing, THRESHOLDS, 0.05).logs, begin(3).logs)
    hole = Evidence(confidence=np.array([np.inf]), weight=np.ones(1), error=np.ones(1))
    logs = advance(begin(3), hole, THRESHOLDS, 0.05).logs
    np.testing.assert_allclose(logs, np.log1p(-np.array(STAKES))[:, np.newaxis].repeat(3, axis=1))


def test_the_walk_goes_from_the_strictest_and_stops() -> None:
    """A loose threshold that is proved does not count while a stricter one is not."""
    peaks = np.array([[log(20), log(19), log(30)], [log(20), log(21), log(22)], [0.0, log(30), log(30)]])
    state = begin(3, (3,))
    held = certified(type(state)(logs=state.logs, peaks=peaks + 1e-12), 0.05)
    assert held.tolist() == [1, 3, 0]
    assert tau(begin(3), THRESHOLDS, 0.05) is None
    assert tau(type(state)(logs=begin(3).logs, peaks=peaks[1] + 1e-12), THRESHOLDS, 0.05) == 0.1


def test_once_certified_is_certified() -> None:
    """Errors that come later lower K, not its supremum."""
    right = Evidence(confidence=np.ones(100), weight=np.ones(100), error=np.zeros(100))
    wrong = Evidence(confidence=np.ones(50), weight=np.ones(50), error=np.ones(50))
    state = advance(advance(begin(1), right, np.array([0.5]), 0.05), wrong, np.array([0.5]), 0.05)
    assert certified(state, 0.05) == 1
    assert log_evidence(state)[0] < 0


def test_a_long_quiet_life_is_no_overflow() -> None:
    """Beyond any doubt the numbers stand still, and errors still take away from them."""
    quiet = Evidence(confidence=np.ones(30_000), weight=np.ones(30_000), error=np.zeros(30_000))
    state = advance(begin(1), quiet, np.array([0.5]), 0.3)
    assert (float(state.peaks[0]), float(log_evidence(state)[0])) == (490.0, 490.0)
    assert np.isfinite(state.logs).all()


def test_a_long_disaster_is_no_underflow() -> None:
    """Nothing but errors: ln K falls without end, and the supremum stays that of the beginning."""
    wrong = Evidence(confidence=np.ones(20_000), weight=np.ones(20_000), error=np.ones(20_000))
    state = advance(begin(1), wrong, np.array([0.5]), 0.05)
    assert float(state.peaks[0]) == 0
    assert float(log_evidence(state)[0]) == pytest.approx(20_000 * log(0.9) - log(6))


def test_a_certificate_survives_being_carried_on() -> None:
    """However often nothing is counted, a peak at the very line stays there."""
    state = begin(1)
    at_line = type(state)(logs=state.logs, peaks=np.array([log(1 / 0.05)]))
    for _ in range(20):
        at_line = advance(at_line, _evidence(5, 3), np.array([2.0]), 0.05)
    assert certified(at_line, 0.05) == 1


def _walked(peaks: list[float], shares: tuple[float, ...], delta: float = 0.05) -> tuple[list[bool], list[float]]:
    state = begin(len(peaks))
    held, needed = walk(type(state)(logs=state.logs, peaks=np.array(peaks)), delta, shares)
    return held.tolist(), np.exp(-needed).tolist()


def test_a_walk_begins_wherever_there_is_a_share_and_takes_along_what_was_certified() -> None:
    """What one that is not certified had is lost to those behind it; without shares the strictest has all."""
    shares, proof = (0.25, 0.25, 0.5, 0.0), log(1 / 0.05)
    quarter, half = log(1 / 0.0125), log(1 / 0.025)
    assert _walked([quarter + 1e-9, half + 1e-9, proof + 1e-9, proof + 1e-9], shares)[0] == [True] * 4
    assert _walked([quarter + 1e-9, quarter - 0.1, half, half], shares)[0] == [True, True, True, True]
    held, levels = _walked([0.0, quarter - 0.1, proof, proof], shares)
    assert held == [False] * 4
    assert levels == pytest.approx([0.0125, 0.0125, 0.025, 0.025])
    held, levels = _walked([0.0, quarter + 1e-9, proof, half], shares)
    assert held == [False, True, False, False]
    assert levels == pytest.approx([0.0125, 0.0125, 0.0375, 0.0375])
    held, levels = _walked([0.0, 0.0, half + 1e-9, half + 1e-9], shares)
    assert held == [False, False, True, True]
    assert _walked([0.0, proof, proof], ())[0] == [False] * 3


@given(
    st.lists(st.floats(0, 8), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_a_walk_never_spends_more_than_delta(peaks: list[float], parts: list[float]) -> None:
    """What those are tried at that are not certified, of those whose turn it is, adds up to delta at most."""
    parts[0] += 0.01
    shares = tuple(part / sum(parts[: len(peaks)]) for part in parts[: len(peaks)])
    held, levels = _walked(peaks, shares)
    turn = [share > 0 or before for share, before in zip(shares, [False, *held], strict=False)]
    lost = sum(level for level, here, tried in zip(levels, held, turn, strict=True) if tried and not here)
    assert lost <= 0.05 * (1 + 1e-9)
    assert all(peak >= -np.log(level) - 1e-9 for peak, level, here in zip(peaks, levels, held, strict=True) if here)


@given(st_numpy.arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 1)))
def test_a_grid_goes_down_from_a_twentieth_to_everything(confidences: Floats) -> None:
    """Strictly falling; the first lets through what was asked for, the last everything; all of delta is shared out."""
    found = grid(confidences)
    assert (np.diff(found.thresholds) < 0).all()
    assert 1 <= len(found.thresholds) == len(found.shares) <= 27
    assert (confidences >= found.thresholds[0]).mean() >= HEAD_COVERAGES[0] - 1e-9
    assert found.thresholds[-1] == confidences.min()
    assert found.shares[0] > 0
    assert sum(found.shares) == pytest.approx(1)


def test_nearly_all_of_delta_is_where_the_walk_begins() -> None:
    """Seven stricter thresholds share a twentieth; what ties has its shares together."""
    found = grid(np.linspace(0, 1, 1_000))
    assert [round(float((np.linspace(0, 1, 1_000) >= each).mean()), 3) for each in found.thresholds[:8]] == [
        *HEAD_COVERAGES,
        WALK_COVERAGE,
    ]
    assert found.shares[:8] == pytest.approx([0.05 / 7] * 7 + [0.95])
    assert found.shares[8:] == (0.0,) * 19
    assert grid(np.ones(50)).shares == (1.0,)
    half = grid(np.concatenate([np.ones(50), np.linspace(0, 0.9, 50)]))
    assert half.shares[0] == pytest.approx(1)


def test_a_grid_of_nothing_is_refused() -> None:
    """And one of what is no number."""
    with pytest.raises(InvalidError, match="finite confidences"):
        grid(np.array([]))
    with pytest.raises(InvalidError, match="finite confidences"):
        grid(np.array([np.nan]))


@pytest.mark.parametrize("values", [{"alpha": 0.0}, {"alpha": 0.6}, {"alpha": 0.1, "delta": 0.0}])
def test_a_promise_has_its_range(values: dict[str, float]) -> None:
    """Nothing wrong ever, or wrong more often than right, is no promise that can be kept or worth keeping."""
    with pytest.raises(InvalidError, match="share above 0"):
        Promise(**values)


def test_all_processes_of_a_lifetime_share_delta() -> None:
    """The shares add up to delta, however many there are."""
    shares = [lifetime_delta(0.05, number) for number in range(1, 10_001)]
    assert shares[0] == pytest.approx(0.05 * 6 / pi**2)
    assert 0.0499 < sum(shares) < 0.05
    with pytest.raises(InvalidError, match="number"):
        lifetime_delta(0.05, 0)


def test_the_bound_on_the_error_covers_it() -> None:
    """In few of 60 runs is the bound below the true error, looked at in the end; it is 1 before there is anything."""
    below, bounds = 0, []
    for run in range(60):
        rng = np.random.default_rng(run)
        evidence = Evidence(
            confidence=np.ones(500), weight=np.ones(500), error=(rng.random(500) < 0.02).astype(np.float64)
        )
        bounds.append(error_bound(evidence, 0.5, Promise(alpha=0.05)))
        below += bounds[-1] < 0.02
    assert below <= 7
    assert 0.025 < float(np.median(bounds)) < 0.08
    assert error_bound(_evidence(1, 0), 0.5, Promise(alpha=0.05)) == 1
