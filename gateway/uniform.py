"""Arrays of one value, one entry a row: made once for each number of rows, and so nobody may change them."""

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


@lru_cache(maxsize=_KNOWN)
def zero(rows: int) -> NDArray[np.int8]:
    """Return 0 for each row."""
    found = np.zeros(rows, np.int8)
    found.flags.writeable = False
    return found
