"""Examples that did not come through the ledger: labelled inputs from a file, pinned to training or to the hold-out.

The file is an .npz: one array for each of the model's inputs, by the input's name, with a row for each example, and
`labels` (texts, or whole numbers that read as the model's labels). Inputs go to the contents, as inputs of live
requests do; what stays here is one JSON document a file, named by the file's sha256, so that a repeat changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from fallback.errors import InvalidError
from fallback.presence import write_atomic
from gateway.manifest import Manifest, TensorSpec
from gateway.tensor import DTYPES, Array
from trainer.contents import Contents
from trainer.errors import disk
from trainer.examples import encode_inputs, nan_row

FOLDER: Final = "imports"
LABELS: Final = "labels"
FILE_BYTES_MAX: Final = 4 * 1024**3


class Split(StrEnum):
    """What an example is for."""

    TRAIN = "train"
    HOLDOUT = "holdout"


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """One file's examples: sha256 (hex) of each input's content, and its label; the ledger's last row at that time."""

    split: Split
    examples: tuple[tuple[str, str], ...]
    after_row: int = 0


class Imports:
    """What was imported for each model: `<folder>/<model>/<sha256>.json`."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self.folder = folder
        self._contents = contents

    def add(
        self,
        manifest: Manifest,
        columns: Mapping[str, Array],
        labels: list[str],
        split: Split,
        *,
        examples_max: int,
        after_row: int = 0,
    ) -> int:
        """Keep examples for the model of `manifest`; returns how many. `columns`: rows of each input, by its name.

        `after_row`: the last row of the ledger now; rows up to there may have been trained on already.
        Raises InvalidError naming the array, what was expected and what came.
        """
        _check(manifest, columns, labels, examples_max)
        rows = [
            {name: values[number : number + 1] for name, values in columns.items()} for number in range(len(labels))
        ]
        if not manifest.batched:
            rows = [{name: values[0] for name, values in row.items()} for row in rows]
        digests = [self._contents.put(encode_inputs(row)) for row in rows]
        file = Imported(split=split, examples=tuple(zip(digests, labels, strict=True)))
        path = self.folder / manifest.model / f"{hashlib.sha256(msgspec.json.encode(file)).hexdigest()}.json"
        body = msgspec.json.encode(msgspec.structs.replace(file, after_row=after_row))
        with disk(path):
            # Written again it would count as the youngest.
            if not path.exists():
                write_atomic(path, body)
        return len(labels)

    def all(self, model: str) -> list[Imported]:
        """Return everything imported for `model`, oldest first."""
        paths = sorted((self.folder / model).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [msgspec.json.decode(path.read_bytes(), type=Imported) for path in paths]


def read(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Read an .npz into the inputs' rows and the labels; raises InvalidError. Nothing in the file is ever executed."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise InvalidError(f"{path}: expected at most {FILE_BYTES_MAX} bytes, got {size}")
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise InvalidError(f"{path}: expected an .npz of plain arrays, got {error}") from error
    labels = columns.pop(LABELS, None)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "Uiu":
        got = "none" if labels is None else f"{labels.dtype} {list(labels.shape)}"
        raise InvalidError(f"{path}: labels: expected one text or whole number an example, got {got}")
    return columns, [str(label) for label in labels.tolist()]


def _check(manifest: Manifest, columns: Mapping[str, Array], labels: list[str], examples_max: int) -> None:
    if not 1 <= len(labels) <= examples_max:
        raise InvalidError(f"labels: expected 1 to {examples_max} examples, got {len(labels)}")
    strange = sorted(set(labels) - set(manifest.labels))
    if strange:
        known = ", ".join(manifest.labels[:20])
        raise InvalidError(f"labels: expected labels that {manifest.model} knows ({known}), got {strange[0]!r}")
    specs = {spec.name: spec for spec in manifest.inputs}
    if set(columns) != set(specs):
        raise InvalidError(f"inputs: expected arrays named {', '.join(specs)}, got {', '.join(columns) or 'none'}")
    for name, values in columns.items():
        _check_column(name, values, specs[name], len(labels), batched=manifest.batched)
        row = nan_row(values) if manifest.forbid_nan else None
        if row is not None:
            raise InvalidError(f"{name}[{row}]: expected numbers, as {manifest.model} forbids NaN, got NaN")


def _check_column(name: str, values: Array, spec: TensorSpec, rows: int, *, batched: bool) -> None:
    expected: tuple[Any, ...] = spec.shape[1:] if batched else spec.shape
    fits = len(values.shape) == len(expected) + 1 and all(
        want in {-1, got} for want, got in zip(expected, values.shape[1:], strict=False)
    )
    if values.shape[:1] != (rows,) or not fits:
        raise InvalidError(f"{name}: expected shape {[rows, *expected]}, got {list(values.shape)}")
    if spec.datatype != "BYTES" and values.dtype != DTYPES[spec.datatype]:
        raise InvalidError(f"{name}: expected {DTYPES[spec.datatype]}, got {values.dtype}")
