"""The address of the server: what it hides, and what is said of one that is wrong."""

from __future__ import annotations

import pytest

from fallback.redis_url import has_password, problem, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:geheim@queue:6379/0", "redis://queue:6379/0"),
        ("redis://h/0?password=geheim", "redis://h/0"),
        ("rediss://h/0?ssl_cert_reqs=none&password=geheim&db=2", "rediss://h/0?ssl_cert_reqs=none&db=2"),
        ("rediss://h/0?ssl_password=geheim", "rediss://h/0"),
        ("redis://h/0?pass%77ord=geheim", "redis://h/0"),
        ("unix:///d/valkey.sock?password=geheim&db=1", "unix:///d/valkey.sock?db=1"),
        ("redis://:geheim/x@h/0", "redis://..."),
        ("redis://:12/geheim@h/0", "redis://..."),
        ("redis://:12?geheim@h/0", "redis://..."),
        ("redis://:12#geheim@h/0", "redis://..."),
        ("redis://:[geheim@h/0", "redis://..."),
    ],
)
def test_a_password_is_found_and_never_shown(url: str, shown: str) -> None:
    """Wherever redis-py takes it from, and where it was not escaped."""
    assert has_password(url)
    assert without_password(url) == shown
    assert "geheim" not in problem(url)


@pytest.mark.parametrize(
    "url", ["", "redis://me@h:1/2?db=3", "unix:///d/valkey.sock", "unix:///@/valkey.sock", "redis://h/0?password="]
)
def test_what_hides_nothing_is_shown_as_it_is(url: str) -> None:
    """An empty password is none."""
    assert not has_password(url)
    assert without_password(url) == url


@pytest.mark.parametrize("url", ["http://h", "redis://h:99999", "redis://h:x", "unix://", "h:6379", "redis//h"])
def test_what_is_no_address_of_a_server(url: str) -> None:
    """By its scheme, its port or its path."""
    assert problem(url).startswith("expected redis://, rediss:// or unix://")


@pytest.mark.parametrize("url", ["redis://", "redis://h", "rediss://:pw@[::1]:6379/2", "unix:///d/valkey.sock?db=1"])
def test_what_is_one(url: str) -> None:
    """With what redis-py takes beside."""
    assert problem(url) == ""
