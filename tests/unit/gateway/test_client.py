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
        (
            {"image": "seven.png"},
            "image: expected the bytes of a PNG or JPEG file, got the str 'seven.png'",
        ),
        ({"text": b"hello"}, "text: expected a str, got bytes"),
        ({"subject": ("hello", "text/plain")}, r"subject: expected a Subject, or a tuple .*, got \(str, str\)"),
        ({"subject": "hello"}, "subject: expected a Subject, or a tuple .*, got the str 'hello'"),
        ({"attributes": {"a": 1}}, r"attributes\['a'\]: expected a str, got the int '1'"),
        ({"attributes": {1: "a"}}, "attributes: expected names that are str, got the int '1'"),
        ({"attributes": "a=1"}, "attributes: expected a mapping of str to str, got the str 'a=1'"),
        ({"review_seconds": -1}, "review_seconds: expected more than 0, got -1"),
        ({"review_seconds": 0.0}, "review_seconds: expected more than 0, got 0.0"),
        ({"review_seconds": "60"}, "review_seconds: expected more than 0, got '60'"),
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
