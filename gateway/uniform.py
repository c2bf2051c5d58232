"""Arrays of one value, one entry a row: made once for each number of rows, and so nobody may change them.

Flags of one row are such arrays, whatever they say. So what is done with flags here takes no steps of numpy's for a
request that comes alone, whose time these would be a good part of.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# For so many numbers of rows they are at hand.
_KNOWN: Final = 128


@lru_cache(maxsize=_KNOWN)
def true(rows: int) -> NDArray[np.bool_]:
    """Return True for each row."""
    found = np.ones(rows, np.bool_)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=_KNOWN)
def false(rows: int) -> NDArray[np.bool_]:
    """Return False for each row."""
    found = np.zeros(rows, np.bool_)
    found.flags.writeable = False
    return found


_YES: Final = true(1)
_NO: Final = false(1)


def reach(values: NDArray[np.float64], bounds: NDArray[np.float64], which: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether each value is at least its bound, number `which` of `bounds`; NaN never is."""
    if len(values) != 1:
        return values >= bounds[which]
    return _YES if values.item() >= bounds.item(which.item()) else _NO


def below(values: NDArray[np.float64], bound: float) -> NDArray[np.bool_]:
    """Return whether each value is below the bound."""
    if len(values) != 1:
        return values < bound
    return _YES if values.item() < bound else _NO


def opposite(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return False where they are True, and True where they are False."""
    if len(flags) != 1:
        return ~flags
    return _NO if flags.item() else _YES


def both(some: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where both are True."""
    if len(some) != 1:
        return some & others
    return others if some.item() else _NO


def either(some: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where one of them is True at least."""
    if len(some) != 1:
        return some | others
    return _YES if some.item() else others


@lru_cache(maxsize=_KNOWN)
def zero(rows: int) -> NDArray[np.int8]:
    """Return 0 for each row."""
    found = np.zeros(rows, np.int8)
    found.flags.writeable = False
    return found
