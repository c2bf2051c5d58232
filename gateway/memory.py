"""How the process's memory is given back to the system, and what of it is not looked through again and again."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 256 * 1024


def give_back_large() -> None:
    """Have blocks from LARGE_BYTES on come from the system one by one, and go back to it when they are freed.

    glibc raises that bound with every large block that is freed, up to 32 MiB: weights and activations of versions that
    are swapped to and fro then end up between small blocks, and what is resident grows by half. Nothing where the C
    library is another. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back_small() -> None:
    """Have what is free between blocks in use go back to the system now; takes a millisecond and more.

    glibc keeps the pages of small blocks that were freed, of a version as of requests that waited, until the same
    thread wants as many again. Nothing where the C library is another. Source: malloc_trim(3).
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_what_is_there() -> None:
    """Leave what there is by now, modules above all, out of garbage collection from now on: it stays anyway.

    To look through all of it takes some 50 ms, in which nobody is answered. Source: the documentation of gc.freeze.
    """
    gc.collect()
    gc.freeze()
