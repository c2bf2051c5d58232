"""What a caller of the client gives to be looked at and where to be called back, as it stands on the wire. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Final

import msgspec
from google.protobuf.duration_pb2 import Duration

from demur.v1 import types_pb2
from fallback import wire
from fallback.answer import Subject
from fallback.deferral import Callback
from fallback.errors import InvalidError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_SHOWN_CHARS_MAX: Final = 100
_SHOWN_ITEMS_MAX: Final = 4


def subject_of(
    *, image: bytes | None, text: str | None, json: object, subject: Subject | tuple[bytes, str] | None
) -> Subject | None:
    """Return what a reviewer is shown, None for nothing; raises InvalidError where it is given twice or is no image."""
    given = [
        name
        for name, value in (("image", image), ("text", text), ("json", json), ("subject", subject))
        if value is not None
    ]
    if len(given) > 1:
        raise InvalidError(f"expected one of image, text, json and subject, got {' and '.join(given)}")
    if image is not None:
        if not isinstance(image, bytes):
            raise InvalidError(f"image: expected the bytes of a PNG or JPEG file, got {_what(image)}")
        return Subject(content=image, media_type=_image_type(image))
    if text is not None:
        if not isinstance(text, str):
            raise InvalidError(f"text: expected a str, got {_what(text)}")
        return Subject(content=text.encode(), media_type="text/plain")
    if json is not None:
        return Subject(content=_json(json), media_type="application/json")
    return None if subject is None else _subject(subject)


def _subject(subject: object) -> Subject:
    match subject:
        case Subject(content=bytes(), media_type=str()):
            return subject
        case (bytes() as content, str() as media_type):
            return Subject(content=content, media_type=media_type)
        case _:
            raise InvalidError(
                f"subject: expected a Subject, or a tuple of content (bytes) and media type (str), got {_what(subject)}"
            )


def _what(value: object) -> str:
    """Say what was given, shortly."""
    match value:
        case str() | int() | float():
            return f"the {type(value).__name__} {str(value)[:_SHOWN_CHARS_MAX]!r}"
        case tuple():
            return f"({', '.join(type(item).__name__ for item in value[:_SHOWN_ITEMS_MAX])})"
        case _:
            return type(value).__name__


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"json: expected a value that JSON can hold, got one that it cannot: {error}") from error


def _image_type(image: bytes) -> str:
    if image.startswith(_PNG):
        return "image/png"
    if image.startswith(_JPEG):
        return "image/jpeg"
    raise InvalidError(f"image: expected PNG or JPEG, got {len(image)} bytes that begin with {image[:8].hex()}")


def subject_to_wire(subject: Subject | None) -> types_pb2.Subject | None:
    """Return `subject` as it stands on the wire."""
    if subject is None:
        return None
    attributes = attributes_to_wire(subject.attributes, field="subject.attributes")
    return types_pb2.Subject(content=subject.content, media_type=subject.media_type, attributes=attributes)


def attributes_to_wire(attributes: Mapping[str, str] | None, *, field: str = "attributes") -> dict[str, str]:
    """Return texts by their names; raises InvalidError for anything else."""
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping):
        raise InvalidError(f"{field}: expected a mapping of str to str, got {_what(attributes)}")
    for key, value in attributes.items():
        if not isinstance(key, str):
            raise InvalidError(f"{field}: expected names that are str, got {_what(key)}")
        if not isinstance(value, str):
            raise InvalidError(f"{field}[{key[:_SHOWN_CHARS_MAX]!r}]: expected a str, got {_what(value)}")
    return dict(attributes)


def deadline_to_wire(review_seconds: float | None) -> Duration | None:
    """Return how long people have; raises InvalidError for no time at all."""
    if review_seconds is None:
        return None
    if not isinstance(review_seconds, Real) or not 0 < review_seconds < math.inf:
        raise InvalidError(f"review_seconds: expected more than 0, got {review_seconds!r}")
    return wire.duration_to_wire(review_seconds)


def callback_to_wire(callback: str) -> types_pb2.Callback | None:
    """Return a webhook's URL, or a CallbackService's host:port, as it stands on the wire."""
    if not callback:
        return None
    web = "://" in callback
    return wire.callback_to_wire(Callback(webhook_url=callback if web else "", grpc_target="" if web else callback))
