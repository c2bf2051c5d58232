"""What the client refuses before it calls anybody: by name, as an error of the family."""

from __future__ import annotations

from typing import Any

import pytest

from fallback.errors import InvalidError, UnavailableError
from gateway.client import Client


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"wish": "human"}, r"wish: expected \(empty\), person, model; got 'human'"),
        ({"on_expiry": "panic"}, r"on_expiry: expected \(empty\), answer_unreviewed, abstain, escalate; got 'panic'"),
        ({"json": {"when": object()}}, "json: expected a value that JSON can hold"),
        ({"image": b"hello"}, "image: expected PNG or JPEG"),
        ({"image": b"hello", "text": "hello"}, "expected one of image, text, json and subject, got image and text"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(options: dict[str, Any], sentence: str) -> None:
    """Nothing else than a DemurError leaves the client."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises((InvalidError, UnavailableError), match=sentence):
            await client.predict("fraud", **options)


async def test_a_plain_list_is_a_tensor() -> None:
    """The gateway judges its type and shape."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError):
            await client.predict("fraud", inputs={"x": [[1.0, 2.0]]})  # type: ignore[dict-item]  # on purpose
