"""The machine's name card."""

from __future__ import annotations

import os

from benchmarks import machine


def test_the_machine_is_named_in_one_line_with_what_this_process_may_use() -> None:
    """Cores that may be used, not those that are built in."""
    assert 0 < machine.cores() <= (os.cpu_count() or 1)
    line = machine.describe()
    assert "\n" not in line
    assert f"{machine.cores():g} core" in line
    assert "Python 3." in line
