from __future__ import annotations

import pytest

from trainer.follow import trim_cursor


@pytest.mark.parametrize(
    ("done", "now", "keep_seconds", "trimmed"),
    [
        ("5000-3", 100.0, 0.0, "5000-3"),
        ("5000-3", 100.0, 96.0, "4000-0"),
        ("5000-3", 100.0, 1000.0, "0-0"),
        ("0", 100.0, 0.0, ""),
        ("", 100.0, 0.0, ""),
    ],
)
def test_a_stream_is_trimmed_up_to_what_is_kept_and_old(
    done: str, now: float, keep_seconds: float, trimmed: str
) -> None:
    """Never past the ledger, never into the watchers' window, nothing before there is a ledger."""
    assert trim_cursor(done, now=now, keep_seconds=keep_seconds) == trimmed
