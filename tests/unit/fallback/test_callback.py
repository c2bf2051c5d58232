"""What is decided about one callback without calling anybody."""

from __future__ import annotations

import base64
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from fallback.callback import Backoff, key_of, retry_after, sign
from fallback.config import FallbackSettings
from fallback.errors import ConfigError

BACKOFF = Backoff(attempts_max=5, seconds=2.0, seconds_max=10.0)


def test_waits_double_up_to_the_longest() -> None:
    """2, 4, 8, 10 at full jitter, then no more."""
    waits = [retry_after(attempt, 1.0, BACKOFF) for attempt in range(1, 7)]
    assert waits == [2.0, 4.0, 8.0, 10.0, None, None]


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_stays_within_its_bound(attempt: int, jitter: float) -> None:
    """However many attempts: a wait is between 0 and the longest, or there is none."""
    wait = retry_after(attempt, jitter, Backoff(attempts_max=100, seconds=2.0, seconds_max=43_200.0))
    assert (wait is None) == (attempt >= 100)
    assert wait is None or 0 <= wait <= 43_200


def test_a_receiver_that_asks_for_time_gets_it_within_reason() -> None:
    """Retry-After lengthens a wait, up to a day; it never shortens one or brings a dead letter back."""
    assert retry_after(1, 0.5, BACKOFF, asked_seconds=120) == 120
    assert retry_after(4, 1.0, BACKOFF, asked_seconds=1) == 10
    assert retry_after(1, 0.5, BACKOFF, asked_seconds=1e9) == 86_400
    assert retry_after(5, 0.5, BACKOFF, asked_seconds=120) is None


def test_the_defaults_reach_over_days() -> None:
    """As Standard Webhooks asks: attempts go on for days, the first ones come within seconds."""
    settings = FallbackSettings()
    backoff = Backoff(
        attempts_max=settings.callback_attempts_max,
        seconds=settings.callback_backoff_seconds,
        seconds_max=settings.callback_backoff_seconds_max,
    )
    waits = [wait for attempt in range(1, 200) if (wait := retry_after(attempt, 0.5, backoff)) is not None]
    assert waits[0] <= 5
    assert 2 <= sum(waits) / 86_400 <= 5


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
