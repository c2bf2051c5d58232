"""As many cores as a control group has time for, and never none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cores import cores


@pytest.mark.parametrize(
    ("text", "expected"), [("100000 100000", 1), ("1000 100000", 1), ("max 100000", None), ("?", None)]
)
def test_a_quota_bounds_the_cores(tmp_path: Path, text: str, expected: int | None) -> None:
    """None: as if there were no quota."""
    quota = tmp_path / "cpu.max"
    there = cores(quota)
    assert there >= 1
    quota.write_text(text, encoding="ascii")
    assert cores(quota) == (there if expected is None else expected)
