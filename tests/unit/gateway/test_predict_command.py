"""How `demur predict` reads what it is given."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from fallback.errors import InvalidError, UnavailableError
from gateway import predict_command
from gateway.manifest import Manifest, Preprocess, TensorSpec

MANIFEST = Manifest(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)), TensorSpec(name="n", datatype="INT64", shape=(-1, 1)))
)
ALONE = msgspec.structs.replace(MANIFEST, inputs=MANIFEST.inputs[:1])


def test_json_names_the_models_inputs() -> None:
    """One row of each, or the only input's values alone; a row's own axis may be there or not."""
    found = predict_command.tensors_of(b'{"x": [1, 2], "n": [[3]]}', MANIFEST)
    np.testing.assert_array_equal(found["x"], np.array([[1, 2]], np.float32))
    assert [str(found[name].dtype) for name in "xn"] == ["float32", "int64"]
    assert found["n"].shape == (1, 1)
    assert predict_command.tensors_of(b"[1, 2]", ALONE)["x"].shape == (1, 2)


def test_json_that_a_model_reads_itself_is_left_alone() -> None:
    """Its preprocessing says what the features are."""
    reading = msgspec.structs.replace(ALONE, preprocess=Preprocess(kind="json", fields=("a", "b")))
    assert predict_command.tensors_of(b'{"a": 1, "b": 2}', reading) == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1,", "--json: expected a JSON text or a file"),
        (b"[1]", "--json: expected a value for each input (x, n), got none"),
        (b'{"x": [1]}', "--json: expected a value for each input (x, n), got x"),
        (b'{"x": [1, null], "n": [1]}', "--json: input 'x' expects FP32: got null at x[1]"),
        (b'{"x": [[1, 2]], "n": null}', "--json: input 'n' expects INT64: got null at n"),
        (b'{"x": ["a", 2], "n": [1]}', "--json: input 'x' expects FP32"),
        (b'{"x": [[1], [2, 3]], "n": [1]}', "--json: input 'x' expects FP32"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(content: bytes, sentence: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidError) as caught:
        predict_command.tensors_of(content, MANIFEST)
    assert sentence in caught.value.message


def test_a_digit_is_drawn_as_the_model_was_taught() -> None:
    """Eight by eight, all shades from paper to ink; number 7 is a seven."""
    from trainer import digits

    drawn = predict_command.digit_png(7)
    with Image.open(io.BytesIO(drawn)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (8, 8))
        np.testing.assert_array_equal(np.asarray(picture), digits.load().pixels[7])
    assert digits.load().label(7) == "7"


def test_a_digit_can_be_kept_and_nothing_else(tmp_path: Path) -> None:
    """--save goes with --digit."""
    kept = tmp_path / "seven.png"
    with pytest.raises(UnavailableError):
        predict_command.predict("digits", digit=7, save=kept, gateway="127.0.0.1:1")
    assert kept.read_bytes() == predict_command.digit_png(7)
    with pytest.raises(InvalidError, match="--save: expected --digit"):
        predict_command.predict("digits", text="seven", save=kept, gateway="127.0.0.1:1")


def test_an_image_file_must_be_one(tmp_path: Path) -> None:
    """By its name's end, and it must be there."""
    from typer.testing import CliRunner

    from gateway.application import application

    runner = CliRunner()
    for name, sentence in (("a.gif", "expected a file that ends in .png"), ("a.png", "cannot be read: No such file")):
        done = runner.invoke(application(["predict"]), ["predict", "m", "--image", str(tmp_path / name)])
        assert isinstance(done.exception, InvalidError)
        assert sentence in done.exception.message
