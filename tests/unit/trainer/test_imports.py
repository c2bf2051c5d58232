from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from fallback.errors import InvalidError
from gateway.manifest import Manifest, TensorSpec
from trainer import commands
from trainer.contents import Contents
from trainer.examples import decode_inputs
from trainer.imports import Imports, Split, read
from trainer.retrain import Rooms

MANIFEST = Manifest(
    model="m", labels=("a", "b"), inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),), batched=True
)
X = np.array([[1, 2], [3, 4]], np.float32)


def npz(folder: Path, **arrays: NDArray[Any]) -> Path:
    path = folder / "examples.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    return path


def test_a_file_becomes_examples(tmp_path: Path) -> None:
    """Each row is kept as a live request's input would be, under its digest, beside its label."""
    contents = Contents(tmp_path / "contents")
    imports = Imports(tmp_path / "imports", contents)
    columns, labels = read(npz(tmp_path, x=X, labels=np.array(["a", "b"])))
    assert imports.add(MANIFEST, columns, labels, Split.HOLDOUT, examples_max=10) == 2
    [kept] = imports.all("m")
    assert kept.split is Split.HOLDOUT
    assert [label for _, label in kept.examples] == ["a", "b"]
    content = contents.get(kept.examples[1][0])
    assert content is not None
    np.testing.assert_array_equal(decode_inputs(content, MANIFEST.inputs, batched=True)["x"], X[1:])


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    """A repeat is the same examples under the same names."""
    imports = Imports(tmp_path / "imports", Contents(tmp_path / "contents"))
    for _ in range(2):
        imports.add(MANIFEST, {"x": X}, ["a", "b"], Split.TRAIN, examples_max=10)
    assert len(imports.all("m")) == 1


def test_whole_numbers_name_labels(tmp_path: Path) -> None:
    """Labels 0 and 1 are the labels "0" and "1"."""
    assert read(npz(tmp_path, x=X, labels=np.array([0, 1])))[1] == ["0", "1"]


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    """An array of Python objects would be a pickle: refused."""
    with pytest.raises(InvalidError, match=r"expected an \.npz of plain arrays"):
        read(npz(tmp_path, x=np.array([{}, {}]), labels=np.array(["a", "b"])))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    """Broken files are the user's to know of."""
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidError, match=r"expected an \.npz"):
        read(path)


def test_labels_must_be_there_and_plain(tmp_path: Path) -> None:
    """Missing, or floats: named with what came."""
    with pytest.raises(InvalidError, match="labels: expected one text or whole number an example, got none"):
        read(npz(tmp_path, x=X))
    with pytest.raises(InvalidError, match=r"got float64 \[2\]"):
        read(npz(tmp_path, x=X, labels=np.array([0.0, 1.0])))


@pytest.mark.parametrize(
    ("columns", "labels", "sentence"),
    [
        ({"x": X}, ["a", "c"], r"expected labels that m knows \(a, b\), got 'c'"),
        ({"y": X}, ["a", "b"], "expected arrays named x, got y"),
        ({"x": X[:1]}, ["a", "b"], r"x: expected shape \[2, 2\], got \[1, 2\]"),
        ({"x": X[:, :1]}, ["a", "b"], r"x: expected shape \[2, 2\], got \[2, 1\]"),
        ({"x": X.astype(np.float64)}, ["a", "b"], "x: expected float32, got float64"),
        ({"x": np.array([[1, 2], [3, np.nan]], np.float32)}, ["a", "b"], r"x\[1\]: expected numbers, as m forbids NaN"),
        ({"x": X}, [], "expected 1 to 3 examples, got 0"),
        ({"x": np.zeros((4, 2), np.float32)}, ["a"] * 4, "expected 1 to 3 examples, got 4"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    columns: dict[str, NDArray[Any]], labels: list[str], sentence: str, tmp_path: Path
) -> None:
    """Each sentence names the array, expected and got; nothing of the file is kept."""
    imports = Imports(tmp_path / "imports", Contents(tmp_path / "contents"))
    with pytest.raises(InvalidError, match=sentence):
        imports.add(MANIFEST, columns, labels, Split.TRAIN, examples_max=3)
    assert imports.all("m") == []
    assert not (tmp_path / "contents").exists()


def test_nan_is_kept_where_the_model_takes_it(tmp_path: Path) -> None:
    """Its manifest says so."""
    imports = Imports(tmp_path / "imports", Contents(tmp_path / "contents"))
    takes = msgspec.structs.replace(MANIFEST, forbid_nan=False)
    assert imports.add(takes, {"x": X * np.float32("nan")}, ["a", "b"], Split.TRAIN, examples_max=3) == 2


def test_what_is_refused_names_the_file(rooms: Rooms, tmp_path: Path) -> None:
    """Beside row and field, so that whoever imports many knows where to look."""
    images = np.zeros((3, 1, 8, 8), np.float32)
    images[2, 0, 1, 1] = np.nan
    path = npz(tmp_path, image=images, labels=np.array(["1", "2", "3"]))
    before = len(rooms.imports.all("digits"))
    with pytest.raises(InvalidError, match=rf"^{path}: image\[2\]: expected numbers, as digits forbids NaN, got NaN$"):
        commands.import_examples("digits", path, split="train", data=rooms.data)
    assert len(rooms.imports.all("digits")) == before
