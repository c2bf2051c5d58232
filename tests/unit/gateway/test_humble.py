"""Work that gives way."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from gateway.humble import NICENESS, humbly


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own only there")
def test_only_the_work_gives_way() -> None:
    """The thread that has it done stays as it was."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    within = humbly(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert within == min(19, before + NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_goes_wrong_is_told_to_who_asked() -> None:
    """As if it had done the work itself."""
    with pytest.raises(ZeroDivisionError):
        humbly(lambda: 1 / 0)
