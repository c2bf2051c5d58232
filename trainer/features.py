"""Runs a model over examples in batches: the cut model for features, a whole one for its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.manifest import Manifest
from gateway.model import Model
from gateway.tensor import Array
from trainer.contents import Contents
from trainer.errors import NotTrainableError
from trainer.examples import Example, decode_inputs

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`values` (examples x columns), float64 and finite, for `examples`; labels beside them."""

    values: Floats
    examples: tuple[Example, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of each example's label."""
        return np.array([example.label for example in self.examples], dtype=np.int64)


def compute(
    model: Model,
    output: str,
    manifest: Manifest,
    examples: Sequence[Example],
    contents: Contents,
    *,
    columns: int,
    go_on: Callable[[], None] = lambda: None,
) -> Table:
    """Return what `model` gives as `output` (rows x `columns`) for `examples`.

    Left out: examples whose content has been erased meanwhile, and those for which the model gives NaN or infinity.
    `go_on` is called before every batch. Raises NotTrainableError where the output has another shape.
    """
    wanted = {spec.name for spec in model.signature.inputs}
    values: list[Floats] = []
    kept: list[Example] = []
    for chunk, feeds in _chunks(manifest, wanted, examples, contents):
        go_on()
        found = np.asarray(model.run(feeds)[output], dtype=np.float64)
        if found.ndim == 1 and not manifest.batched:
            found = found[None]
        if found.shape != (len(chunk), columns):
            raise NotTrainableError(
                f"output {output!r}: expected shape {[len(chunk), columns]}, got {list(found.shape)}",
            )
        finite = np.asarray(np.isfinite(found).all(axis=1))
        values.append(found[finite])
        kept += [example for example, fine in zip(chunk, finite.tolist(), strict=True) if fine]
    return Table(values=np.concatenate(values) if values else np.empty((0, columns)), examples=tuple(kept))


def _chunks(
    manifest: Manifest, wanted: set[str], examples: Sequence[Example], contents: Contents
) -> Iterator[tuple[list[Example], dict[str, Array]]]:
    """Yield examples whose inputs have the same shapes, with one feed for all of them."""
    specs = [spec for spec in manifest.inputs if spec.name in wanted]
    rows_max = manifest.batching.max_batch_size if manifest.batched else 1
    for start in range(0, len(examples), rows_max):
        groups: dict[Any, tuple[list[Example], list[dict[str, Array]]]] = {}
        for example in examples[start : start + rows_max]:
            content = contents.get(example.digest)
            if content is None:
                continue
            inputs = decode_inputs(content, specs, batched=manifest.batched)
            shapes = tuple((name, values.shape) for name, values in inputs.items())
            group = groups.setdefault(shapes, ([], []))
            group[0].append(example)
            group[1].append(inputs)
        for chunk, rows in groups.values():
            if manifest.batched:
                yield chunk, {spec.name: np.concatenate([row[spec.name] for row in rows]) for spec in specs}
            else:
                yield chunk, rows[0]
