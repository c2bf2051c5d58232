"""Work that gives way: the processor first goes to whoever answers requests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

# About a tenth of what a thread that does not give way gets, where both want the same core.
NICENESS: Final = 10

T = TypeVar("T")


def humbly(work: Callable[[], T]) -> T:
    """Do `work` on a thread of its own that gives way, and return what it returns, or raise what it raises.

    A thread that gave way can never take it back without privileges, hence its own; one that it starts gives way too.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="humble", initializer=give_way) as thread:
        return thread.submit(work).result()


def give_way() -> None:
    """Have the calling thread give way from now on; nothing where the system knows only whole processes."""
    if sys.platform == "linux":
        os.nice(NICENESS)
