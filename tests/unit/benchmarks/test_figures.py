"""What measuring adds up to: one value of many."""

from __future__ import annotations

from benchmarks.figures import percentile


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Nearest rank: no interpolation between two requests."""
    assert percentile([], 0.99) == 0.0
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert percentile(list(map(float, range(1, 101))), 0.99) == 99.0
