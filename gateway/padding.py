"""Inputs of different sizes made alike, so that they are run together, and their outputs cut back to their own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from fallback.errors import InvalidError
from gateway.batching import Padding
from gateway.manifest import TensorSpec
from gateway.tensor import Array


def free(specs: Sequence[TensorSpec], padding: Padding) -> list[str]:
    """Return the names of the tensors whose padded axis may have any size."""
    return [spec.name for spec in specs if len(spec.shape) > padding.axis and spec.shape[padding.axis] < 0]


def pad(arrays: Mapping[str, Array], names: Sequence[str], padding: Padding) -> tuple[dict[str, Array], int | None]:
    """Return `arrays` with those of `names` filled up to the next of the sizes, and what size they had; None: as it is.

    What is larger than all sizes stays. Raises InvalidError where the sizes of several differ.
    """
    sizes = {arrays[name].shape[padding.axis] for name in names}
    if len(sizes) > 1:
        counts = {name: arrays[name].shape[padding.axis] for name in names}
        raise InvalidError(f"inputs: expected the same size of axis {padding.axis} in each, got {counts}")
    if not sizes:
        return dict(arrays), None
    (size,) = sizes
    place = bisect_left(padding.sizes, size)
    if place == len(padding.sizes) or padding.sizes[place] == size:
        return dict(arrays), None
    return {**arrays, **{name: _padded(arrays[name], padding.sizes[place], padding) for name in names}}, size


def cut(outputs: Mapping[str, Array], names: Sequence[str], axis: int, size: int) -> dict[str, Array]:
    """Return `outputs` with those of `names` cut back to `size`."""
    return {
        name: array[(slice(None),) * axis + (slice(size),)] if name in names else array
        for name, array in outputs.items()
    }


def _padded(array: Array, size: int, padding: Padding) -> Array:
    shape = list(array.shape)
    shape[padding.axis] = size
    whole = np.full(shape, "" if array.dtype.kind in "OSU" else padding.value, array.dtype)
    whole[(slice(None),) * padding.axis + (slice(array.shape[padding.axis]),)] = array
    return whole
