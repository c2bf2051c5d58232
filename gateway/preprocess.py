"""What a person is shown of an input, made into the tensor that a model takes, as the version's manifest says.

Images (PNG, JPEG) become (pixel * scale - mean) / std in the manifest's size, mode and layout; JSON becomes numbers in
order; `application/octet-stream` is the tensor's raw contents as they are. A text is the one element of a BYTES input.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any, Final

import msgspec
import numpy as np
from PIL import Image, ImageOps

from fallback.answer import Subject
from fallback.errors import InvalidError
from gateway import tensor
from gateway.manifest import Preprocess, TensorSpec
from gateway.tensor import Array

PIXELS_MAX: Final = 16 * 1024 * 1024
RAW_MEDIA_TYPE: Final = "application/octet-stream"
TEXT_MEDIA_TYPE: Final = "text/plain"
_FORMATS: Final = {"image/png": "PNG", "image/jpeg": "JPEG"}
_SHOWN_CHARS: Final = 100
# Deep shades are brought to the 0..255 of all other images.
_DEEP_MODES: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})
_DEEP_TO_BYTE: Final = 1 / 257


def to_tensor(
    subject: Subject, spec: TensorSpec, preprocess: Preprocess | None, *, sizes: tuple[int, ...], pixels_max: int
) -> Array:
    """Return one row of the input `spec`, without an axis of rows; raises InvalidError naming the field.

    `sizes` are those of one row, -1 for any. `preprocess` None: only raw contents can be read, and a text
    for a BYTES input of one element.
    """
    if subject.media_type == RAW_MEDIA_TYPE:
        return _raw(subject.content, spec, sizes)
    if preprocess is None and subject.media_type == TEXT_MEDIA_TYPE and spec.datatype == "BYTES":
        return _text(subject.content, sizes)
    if preprocess is None:
        raise InvalidError(
            f"subject: this model has no preprocessing for {subject.media_type}; expected `inputs`, or a subject of "
            f"{RAW_MEDIA_TYPE} with the raw contents of {spec.name!r}",
        )
    if preprocess.kind == "image":
        return _image(subject, preprocess, pixels_max).astype(tensor.dtype_of(spec.datatype))
    return _json(subject, spec, preprocess, sizes)


def known_shapes(preprocess: Preprocess | None) -> dict[str, tuple[int, ...]]:
    """Return the shape, rows left out, of the input that an image becomes."""
    if preprocess is None or preprocess.kind != "image":
        return {}
    width, height, channels = preprocess.width, preprocess.height, len(preprocess.mode)
    match preprocess.layout:
        case "NCHW":
            return {preprocess.input: (channels, height, width)}
        case "NHWC":
            return {preprocess.input: (height, width, channels)}
        case _:
            return {preprocess.input: (channels * height * width,)}


def _raw(content: bytes, spec: TensorSpec, sizes: tuple[int, ...]) -> Array:
    if min(sizes, default=0) < 0 or spec.datatype == "BYTES":
        raise InvalidError(f"subject: the sizes of input {spec.name!r} are not fixed; expected `inputs` with a shape")
    return tensor.decode(content, spec.datatype, sizes, field="subject.content")


def _text(content: bytes, sizes: tuple[int, ...]) -> Array:
    shape = tuple(1 if size < 0 else size for size in sizes)
    if math.prod(shape) != 1:
        raise InvalidError(f"subject: a text is one element; expected `inputs` with a shape of {list(sizes)} a row")
    return tensor.texts([content], field="subject.content").reshape(shape)


def _image(subject: Subject, preprocess: Preprocess, pixels_max: int) -> Array:
    """Return one row of float32 in the manifest's layout."""
    picture = _open(subject, pixels_max)
    picture = _in_mode(picture, preprocess.mode)
    size = (preprocess.width, preprocess.height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.float32).reshape(preprocess.height, preprocess.width, len(preprocess.mode))
    values = pixels * np.float32(preprocess.scale)
    if preprocess.mean:
        values -= np.asarray(preprocess.mean, np.float32)
    if preprocess.std:
        values /= np.asarray(preprocess.std, np.float32)
    if preprocess.layout != "NHWC":
        values = values.transpose(2, 0, 1)
    return values.reshape(-1) if preprocess.layout == "flat" else values


def _open(subject: Subject, pixels_max: int) -> Image.Image:
    """Decode a PNG or JPEG, upright as its EXIF says; the size is judged from the header, before any pixel."""
    format_ = _FORMATS.get(subject.media_type)
    if format_ is None:
        raise InvalidError(f"subject.media_type: expected {' or '.join(_FORMATS)}, got {subject.media_type!r}")
    try:
        picture = Image.open(io.BytesIO(subject.content), formats=(format_,))
        if math.prod(picture.size) > pixels_max:
            raise _too_large(pixels_max, f"{picture.size[0]} x {picture.size[1]}")
        picture.load()
        return ImageOps.exif_transpose(picture)
    except InvalidError:
        raise
    # Pillow's own limit is farther off; its warning is an error where Python was told so.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(pixels_max, "far more") from error
    # What Pillow raises for broken files is not one family.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        raise InvalidError(
            f"subject.content: expected a whole {format_} image, got {len(subject.content)} bytes that are none",
        ) from error


def _too_large(pixels_max: int, got: str) -> InvalidError:
    return InvalidError(f"subject.content: expected an image of at most {pixels_max} pixels, got {got}")


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode in _DEEP_MODES:
        deep = np.asarray(picture).astype(np.float64) * _DEEP_TO_BYTE
        picture = Image.fromarray(np.clip(deep, 0, 255).astype(np.uint8))
    return picture if picture.mode == mode else picture.convert(mode)


def _json(subject: Subject, spec: TensorSpec, preprocess: Preprocess, sizes: tuple[int, ...]) -> Array:
    """Read an array of numbers, or an object with the manifest's fields, as one row."""
    if subject.media_type != "application/json":
        raise InvalidError(f"subject.media_type: expected application/json, got {subject.media_type!r}")
    try:
        found = msgspec.json.decode(subject.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"subject.content: expected JSON: {error}") from error
    values = _fields(found, preprocess.fields) if preprocess.fields else found
    if not isinstance(values, list):
        raise InvalidError(f"subject.content: expected an array of numbers, got {_shown(found)}")
    fixed = min(sizes, default=0) >= 0
    if fixed and len(values) != math.prod(sizes):
        raise InvalidError(f"subject.content: expected {math.prod(sizes)} numbers, got {len(values)}")
    whole = tensor.dtype_of(spec.datatype).kind in "iu"
    for number, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            where = preprocess.fields[number] if preprocess.fields else f"[{number}]"
            raise InvalidError(f"subject.content.{where}: expected a number, got {_shown(value)}")
        if whole and isinstance(value, float) and not value.is_integer():
            where = preprocess.fields[number] if preprocess.fields else f"[{number}]"
            raise InvalidError(f"subject.content.{where}: expected a whole number for {spec.datatype}, got {value!r}")
    shape = sizes if fixed else (len(values),)
    return tensor.from_values(values, spec.datatype, shape, field="subject.content")


def _fields(found: Any, fields: tuple[str, ...]) -> list[Any]:
    if not isinstance(found, dict):
        raise InvalidError(f"subject.content: expected an object with {', '.join(fields)}, got {_shown(found)}")
    missing = [field for field in fields if field not in found]
    if missing:
        raise InvalidError(f"subject.content.{missing[0]}: expected a number, got nothing")
    unknown = [str(field) for field in found if field not in fields]
    if unknown:
        raise InvalidError(f"subject.content: expected only {', '.join(fields)}, got {unknown[0][:_SHOWN_CHARS]!r}")
    return [found[field] for field in fields]


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN_CHARS]
