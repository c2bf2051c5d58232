"""What a caller of the client gives to be looked at and where to be called back, as it stands on the wire. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from demur.v1 import types_pb2
from fallback import wire
from fallback.answer import Subject
from fallback.deferral import Callback
from fallback.errors import InvalidError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"


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
        return Subject(content=image, media_type=_image_type(image))
    if text is not None:
        return Subject(content=text.encode(), media_type="text/plain")
    if json is not None:
        return Subject(content=_json(json), media_type="application/json")
    if isinstance(subject, tuple):
        return Subject(content=subject[0], media_type=subject[1])
    return subject


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
    return types_pb2.Subject(content=subject.content, media_type=subject.media_type, attributes=subject.attributes)


def callback_to_wire(callback: str) -> types_pb2.Callback | None:
    """Return a webhook's URL, or a CallbackService's host:port, as it stands on the wire."""
    if not callback:
        return None
    web = "://" in callback
    return wire.callback_to_wire(Callback(webhook_url=callback if web else "", grpc_target="" if web else callback))
