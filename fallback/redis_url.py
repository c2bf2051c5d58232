"""The address of the server that holds the queues, as redis-py reads it: what it hides, and what may be shown of it.

A password stands before the host or in a parameter. One that holds '/', '?' or '#' and was not escaped ends the host
early: its rest then stands where a path would, with the '@' after it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, unquote_plus, urlsplit

_SCHEMES: Final = ("redis", "rediss", "unix")


def without_password(url: str) -> str:
    """Return an address as it may be shown; of one that cannot be read only its scheme."""
    parts = _read(url)
    if parts is None or _spilt(parts):
        scheme = url.partition("://")[0]
        return f"{scheme if scheme in _SCHEMES else ''}://..."
    query = "&".join(pair for pair in parts.query.split("&") if not _is_secret(pair))
    if not parts.password and query == parts.query:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?' if query else ''}{query}"


def has_password(url: str) -> bool:
    """Say whether `url` holds a password: before the host, or in a parameter (password=, ssl_password=)."""
    parts = _read(url)
    if parts is None:
        return "@" in url
    return bool(parts.password) or _spilt(parts) or any(map(_is_secret, parts.query.split("&")))


def problem(url: str, *, cluster: bool = False, sentinels: bool = False) -> str:
    """Say what `url` should be, and what it is as far as that may be shown; empty: it will do."""
    got = f"got {without_password(url)!r}"
    parts = _read(url)
    if parts is None or parts.scheme not in _SCHEMES or (parts.scheme == "unix" and not parts.path):
        return f"expected redis://, rediss:// or unix://, as in redis://host:6379/0 or unix:///path, {got}"
    if (cluster or sentinels) and parts.scheme == "unix":
        return f"expected redis:// or rediss:// with redis.{'cluster' if cluster else 'sentinels'}, {got}"
    if sentinels and parts.hostname:
        return f"expected redis:// or rediss:// without a host beside redis.sentinels, {got}"
    return ""


def _read(url: str) -> SplitResult | None:
    """Return the parts of `url`; None where its host or port is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _spilt(parts: SplitResult) -> bool:
    """Say whether a piece of a password may stand behind the host."""
    return parts.scheme != "unix" and ("@" in parts.path + parts.query or bool(parts.fragment))


def _is_secret(pair: str) -> bool:
    name, _, value = pair.partition("=")
    return bool(value) and "password" in unquote_plus(name).lower()
