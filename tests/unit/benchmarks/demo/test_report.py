"""The report as text."""

from __future__ import annotations

from benchmarks.demo.report import percent, sparkline


def test_a_sparkline_has_a_bar_a_value_from_lowest_to_highest() -> None:
    """The smallest value is the lowest bar and the largest the highest."""
    assert sparkline([0.88, 0.92, 0.96]) == "▁▅█"
    assert sparkline([]) == ""


def test_equal_values_are_equal_bars() -> None:
    """No division by a spread of nothing."""
    assert sparkline([0.5, 0.5]) == "▅▅"


def test_what_was_not_measured_is_a_dash_and_not_a_zero() -> None:
    """None is not 0 %."""
    assert percent(None) == "-"
    assert percent(0.0) == "0.0 %"
