"""A subject becomes the tensor that the manifest describes, or a sentence says what is wrong with it."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image

from fallback.answer import Subject
from fallback.errors import InvalidError
from gateway.manifest import Preprocess, TensorSpec
from gateway.preprocess import known_shapes, to_tensor

SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
GREY = Preprocess(kind="image", input="x", width=4, height=2, mode="L")
PICTURES = st_numpy.arrays(np.uint8, (2, 4, 3))


def _png(pixels: NDArray[Any], format_: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format_, **options)
    return content.getvalue()


def _read(content: bytes, preprocess: Preprocess | None, *, media_type: str = "image/png", **options: Any) -> Any:
    given = {"sizes": (3,), "pixels_max": 10_000, "spec": SPEC, **options}
    spec = given.pop("spec")
    return to_tensor(Subject(content=content, media_type=media_type), spec, preprocess, **given)


@given(PICTURES)
def test_pixels_are_scaled_and_laid_out_as_the_manifest_says(pixels: NDArray[np.uint8]) -> None:
    """(pixel * scale - mean) / std in each of the three layouts."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    expected = (pixels.astype(np.float32) / 255 - mean) / std
    wide = Preprocess(kind="image", input="x", width=4, height=2, mode="RGB", layout="NHWC", mean=mean, std=std)
    planes = msgspec.structs.replace(wide, layout="NCHW")
    flat = msgspec.structs.replace(wide, layout="flat")
    channels = expected.transpose(2, 0, 1)
    for preprocess, wanted in ((wide, expected), (planes, channels), (flat, channels.ravel())):
        found = _read(_png(pixels), preprocess)
        assert found.shape == wanted.shape == known_shapes(preprocess)["x"]
        assert found.dtype == np.float32
        assert np.allclose(found, wanted, atol=1e-6)


def test_a_text_is_the_one_element_of_a_model_of_texts() -> None:
    """Where a row has room for one text; more need `inputs`."""
    spec = TensorSpec(name="text", datatype="BYTES", shape=(-1, 1))
    for sizes, shape in (((1,), (1,)), ((-1,), (1,)), ((), ())):
        found = _read("grüß dich".encode(), None, media_type="text/plain", spec=spec, sizes=sizes)
        assert (found.shape, found.tolist()) == (shape, "grüß dich" if shape == () else ["grüß dich"])
    with pytest.raises(InvalidError, match=r"a text is one element; expected `inputs` with a shape of \[2\] a row"):
        _read(b"hello", None, media_type="text/plain", spec=spec, sizes=(2,))
    with pytest.raises(InvalidError, match=r"subject\.content"):
        _read(b"\xff", None, media_type="text/plain", spec=spec, sizes=(1,))


def test_another_size_is_resized_and_another_mode_converted() -> None:
    """A large grey-alpha picture for a small grey model."""
    pixels = np.full((20, 40, 4), 102, np.uint8)
    found = _read(_png(pixels), GREY)
    assert found.shape == (1, 2, 4)
    assert np.allclose(found, 0.4)


def test_sixteen_bits_are_brought_to_eight() -> None:
    """Not clipped."""
    found = _read(_png(np.full((2, 4), 32_768, np.uint16)), GREY)
    assert np.allclose(found, 0.5, atol=0.01)


def test_a_photograph_is_turned_as_its_exif_says() -> None:
    """The model sees it as the reviewer's browser shows it."""
    pixels = np.zeros((4, 2), np.uint8)
    pixels[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to show
    content = _png(pixels, "JPEG", exif=exif, quality=100)
    found = _read(content, GREY, media_type="image/jpeg")
    assert (found[0, :, :2] < 0.2).all()
    assert (found[0, :, 2:] > 0.8).all()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_invalid(content: bytes) -> None:
    """Never another error."""
    for prefix in (b"", _png(np.zeros((2, 4), np.uint8))[:40]):
        with pytest.raises(InvalidError, match="expected a whole PNG image"):
            _read(prefix + content, GREY)


def test_the_size_is_judged_before_the_pixels() -> None:
    """By the header."""
    with pytest.raises(InvalidError, match="at most 7 pixels, got 4 x 2"):
        _read(_png(np.zeros((2, 4), np.uint8)), GREY, pixels_max=7)


def test_a_jpeg_that_says_it_is_a_png_is_refused() -> None:
    """What is shown to a person must be what the model saw."""
    content = _png(np.zeros((2, 4), np.uint8), "JPEG")
    with pytest.raises(InvalidError, match="expected a whole PNG image"):
        _read(content, GREY)


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        (b"[1, 2.5, -3]", (), [1, 2.5, -3]),
        (b'{"c": 3, "a": 1, "b": 2}', ("a", "b", "c"), [1, 2, 3]),
    ],
)
def test_json_becomes_numbers_in_order(content: bytes, fields: tuple[str, ...], expected: list[float]) -> None:
    """An array, or an object by the manifest's fields."""
    found = _read(content, Preprocess(kind="json", fields=fields), media_type="application/json")
    assert found.tolist() == expected


@pytest.mark.parametrize("wrong", ["1.5", "1e300", "1e-3"])
def test_a_whole_number_is_not_made_of_a_part(wrong: str) -> None:
    """What a model of whole numbers would cut off is refused; 2.0 is whole."""
    spec = TensorSpec(name="x", datatype="INT64", shape=(-1, 3))
    plain = Preprocess(kind="json")
    found = _read(b"[1, 2.0, -3]", plain, media_type="application/json", spec=spec)
    assert (found.dtype, found.tolist()) == (np.int64, [1, 2, -3])
    with pytest.raises(InvalidError, match=r"subject\.content"):
        _read(f"[1, {wrong}, 2]".encode(), plain, media_type="application/json", spec=spec)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1, 2]", "expected 3 numbers, got 2"),
        (b"[1, 2, true]", r"subject.content.\[2\]: expected a number, got True"),
        (b"{}", "expected an array of numbers, got {}"),
        (b"[1, 2, 1e999]", "subject.content"),
        (b"\xff", "expected JSON"),
    ],
)
def test_json_that_is_wrong_is_named(content: bytes, sentence: str) -> None:
    """Field, expected, got."""
    with pytest.raises(InvalidError, match=sentence):
        _read(content, Preprocess(kind="json"), media_type="application/json")


def test_numbers_that_do_not_fit_the_type_are_refused() -> None:
    """A byte of 300 is no byte."""
    spec = TensorSpec(name="x", datatype="UINT8", shape=(-1, 3))
    with pytest.raises(InvalidError, match="expected values of UINT8"):
        _read(b"[1, 2, 300]", Preprocess(kind="json"), media_type="application/json", spec=spec)


def test_raw_contents_need_a_fixed_shape() -> None:
    """Otherwise nobody knows where a row ends."""
    raw = np.arange(3, dtype=np.float32)
    found = _read(raw.tobytes(), None, media_type="application/octet-stream")
    assert np.array_equal(found, raw)
    with pytest.raises(InvalidError, match="sizes of input 'x' are not fixed"):
        _read(b"", None, media_type="application/octet-stream", sizes=(-1,))
