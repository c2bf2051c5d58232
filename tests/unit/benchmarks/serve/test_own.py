"""A gateway of one's own as a target: what is read of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serve import own
from benchmarks.serve.ground import Served


def test_what_runs_the_model_is_what_the_last_swap_said(tmp_path: Path) -> None:
    """The session's own word; lines that are none of the log's form are passed over."""
    served = Served("", 0, tmp_path)
    served.log.write_text('warning: x\n[1]\n{"event": "serving", "provider": "A"}\n')
    assert not own.provider(served)
    with served.log.open("a") as log:
        log.write('{"event": "swapped", "provider": "B"}\n{"event": "swapped", "provider": "C"}\n')
    assert own.provider(served) == "C"


def test_a_model_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setattr("sys.argv", ["own", "large"])
    with pytest.raises(SystemExit, match="expected some of tiny, mid, conv, got 'large'"):
        own.main()
