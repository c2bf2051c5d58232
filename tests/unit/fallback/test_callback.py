"""What is decided about one callback without calling anybody."""

from __future__ import annotations

import base64
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from fallback.callback import asked_seconds, key_of, keys_of, sign
from fallback.errors import ConfigError


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    """RFC 9110, 10.2.3: both forms, never negative, never more than a day; nonsense asks for nothing."""
    now = dt.datetime(2026, 11, 25, 12, 0, 0, tzinfo=dt.UTC).timestamp()
    assert asked_seconds("120", now) == 120
    assert asked_seconds("Wed, 25 Nov 2026 12:02:00 GMT", now) == 120
    assert asked_seconds("Wednesday, 25-Nov-26 12:02:00 GMT", now) == 120
    assert asked_seconds("Wed Nov 25 12:02:00 2026", now) == 120
    assert asked_seconds("Wed, 25 Nov 2026 11:00:00 GMT", now) == 0
    assert asked_seconds("9" * 400, now) == asked_seconds("Wed, 25 Nov 2099 11:00:00 GMT", now) == 86_400
    for nonsense in ("", "-5", "1.5", "soon", "Wed, 99 Nov 2026 11:00:00 GMT", "\u0661\u0662", "x" * 5_000):
        assert asked_seconds(nonsense, now) == 0


@given(st.text())
def test_no_header_makes_retry_after_fail(header: str) -> None:
    """Whatever a receiver sends: seconds between 0 and a day."""
    assert 0 <= asked_seconds(header, 1_700_000_000.0) <= 86_400


@given(
    body=st.text(),
    delivery_id=st.uuids(),
    seconds=st.integers(0, 4_000_000_000),
    key=st.binary(min_size=24, max_size=64),
)
def test_a_signature_is_the_standards(body: str, delivery_id: object, seconds: int, key: bytes) -> None:
    """The official library makes the same one."""
    encoded = body.encode("utf-8", "replace")
    theirs = Webhook("whsec_" + base64.b64encode(key).decode()).sign(
        str(delivery_id), dt.datetime.fromtimestamp(seconds, dt.UTC), encoded.decode()
    )
    assert sign(key, delivery_id=str(delivery_id), timestamp=seconds, body=encoded) == theirs


def test_a_secret_is_read_as_the_standard_writes_it() -> None:
    """whsec_ and the base64 of 24 to 64 bytes."""
    key = bytes(range(32))
    assert key_of("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", base64.b64encode(bytes(32)).decode()])
def test_a_secret_that_could_not_sign_is_refused_and_not_shown(secret: str) -> None:
    """The sentence says what was expected without the secret."""
    with pytest.raises(ConfigError, match="DEMUR_WEBHOOK_SECRET: expected whsec_") as caught:
        key_of(secret)
    assert not secret or secret not in str(caught.value).replace("expected whsec_", "")


def test_several_secrets_are_several_keys_in_order() -> None:
    """Separated by spaces, the newest first; none, or one that cannot sign, is refused."""
    one, two = ("whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
    assert keys_of(f"{one} {two}") == (bytes([1] * 32), bytes([2] * 32))
    for wrong in ("", " ", f"{one} whsec_short"):
        with pytest.raises(ConfigError):
            keys_of(wrong)
